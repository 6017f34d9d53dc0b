"""Reads what failures cost: which tasks ended, where each failed, what it had paid by then.

Only tasks that have ended count, in the period in which they did, with all that they were ever charged. The daily sums
have nearly all of that; what tasks at the period's edges were charged on its other side is added or taken away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, select

from app.finance.failures.facts import INTERRUPTED, Facts, Failure, Role, Spent, Sum, Vain, progress_of
from app.finance.failures.weights import weights
from app.ledger.reading import failure_queries, row_mapping
from app.ledger.reading.failure_queries import Period
from app.ledger.store.daily import day_of
from app.ledger.store.price_rows import Prices
from app.ledger.store.record_tables import PRICES
from app.pricing.charge_kinds import TOKEN_LINES

_TOKENS = (PRICES.c.line.in_([line.value for line in TOKEN_LINES]), PRICES.c.unit_price != "")
_PRICES_OF_TOKENS = select(PRICES.c.price_no, PRICES.c.currency, PRICES.c.unit_price).where(*_TOKENS)
_Failed = tuple[int, int]  # a task's number, and its failure's


class _Place(NamedTuple):
    """What a sum is a sum of."""

    tenant: str
    stage: str
    price_no: int
    known: str
    rerun: bool


def facts(
    engine: Engine, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
) -> Facts:
    """What is known of the tasks that ended from day `since` to before day `until` (UTC). `tenants` None is all."""
    with _one_view(engine) as connection:
        reader = _Reader(connection, Period(since, until, tenants), Prices(engine))
        return Facts(
            ended={row.tenant: row.tasks for row in reader.rows(failure_queries.ended(reader.period))},
            failures=tuple(reader.failures()),
            vain=tuple(reader.vain()),
            sums=(*reader.charged(), *reader.prevented()),
        )


class _Reader:
    """Asks for the tasks of one period."""

    def __init__(self, connection: Connection, period: Period, prices: Prices) -> None:
        self.period = period
        self._connection = connection
        self._prices = prices
        self._restarts = failure_queries.restarts(period)
        found = {number: (currency, Decimal(price)) for number, currency, price in self.rows(_PRICES_OF_TOKENS)}
        self._weights = weights(found)

    def rows(self, query: Select[Any]) -> Any:
        """All rows at once, which is quicker than one by one."""
        return self._connection.execute(query).all()

    def failures(self) -> Iterator[Failure]:
        """Each failure, with what its task spent."""
        spent, partly = self._spent()
        for task, number, tenant, stage, kind, cause, restarts in self.rows(failure_queries.failures(self._restarts)):
            key = (task, number)
            sums = sorted(spent.get(key, {}).items())
            found = tuple(Spent(currency, before, clean) for currency, (before, clean) in sums if clean)
            progress = progress_of(found, whole=key not in partly) if restarts else None
            yield Failure(task, tenant, stage, kind, cause, bool(restarts), progress, found)

    def vain(self) -> Iterator[Vain]:
        """What the tasks spent in vain."""
        found: Counter[tuple[int, str, str, str]] = Counter()
        for task, tenant, stage, price_no, quantity in self.rows(failure_queries.vain(self._restarts)):
            if price_no in self._weights:
                currency, weight = self._weights[price_no]
                found[task, tenant, stage, currency] += int(quantity) * weight
        return (Vain(*key, spent) for key, spent in found.items() if spent)

    def charged(self) -> Iterator[Sum]:
        """All charges of the tasks."""
        for place, (quantity, times) in self._charges().items():
            if quantity or times:
                role = Role.RERUN if place.rerun else Role.CLEAN
                yield self._sum(role, place, quantity, times)

    def prevented(self) -> Iterator[Sum]:
        """What restarts would have paid again."""
        query = failure_queries.prevented(self._restarts)
        for tenant, stage, kind, role, price_no, known, quantity, times in self.rows(query):
            if quantity or times:
                place = _Place(tenant, stage, price_no, known, False)
                yield self._sum(Role(role), place, int(quantity), int(times), crash=kind == INTERRUPTED)

    def _spent(self) -> tuple[Mapping[_Failed, Mapping[str, list[int]]], set[_Failed]]:
        """By failure and currency, what was spent before it and in all; the failures for which that is not known."""
        found: defaultdict[_Failed, dict[str, list[int]]] = defaultdict(dict)
        partly: set[_Failed] = set()
        for task, number, price_no, before, clean, unreported in self.rows(failure_queries.spent(self._restarts)):
            if unreported or (clean and price_no not in self._weights):
                partly.add((task, number))
            if price_no in self._weights:
                currency, weight = self._weights[price_no]
                sums = found[task, number].setdefault(currency, [0, 0])
                sums[0] += int(before) * weight
                sums[1] += int(clean) * weight
        return found, partly

    def _charges(self) -> Mapping[_Place, tuple[int, int]]:
        """Those of the period's days, without other tasks', and the tasks' own of other days."""
        found: defaultdict[_Place, list[int]] = defaultdict(lambda: [0, 0])
        queries = [(failure_queries.by_day(self.period), 1), (failure_queries.by_others(self.period), -1)]
        if self.period.at_edges():
            queries.append((failure_queries.outside(self.period), 1))
        for query, sign in queries:
            for tenant, stage, price_no, known, rerun, quantity, times in self.rows(query):
                sums = found[_Place(tenant, stage, price_no, known, bool(rerun))]
                sums[0] += sign * int(quantity)
                sums[1] += sign * int(times)
        return {place: (quantity, times) for place, (quantity, times) in found.items()}

    def _sum(self, role: Role, place: _Place, quantity: int, times: int, *, crash: bool = False) -> Sum:
        # What a rerun was charged for is asked here, not that it was one: that is its role.
        values = place._asdict() | {"rerun": False, "quantity": quantity}
        return Sum(
            role,
            crash,
            row_mapping.charge(values, self._prices.row(place.price_no, self._connection), day_of(0)),
            times,
        )


@contextmanager
def _one_view(engine: Engine) -> Iterator[Connection]:
    """All questions are answered from the same state, whatever is written meanwhile."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("BEGIN")
        yield connection
