"""Reads what failures cost: which tasks ended, where each failed, what it had paid by then.

Only tasks that have ended count, in the period in which they did, with all that they were ever charged. The daily sums
have nearly all of that; what tasks at the period's edges were charged on its other side is added or taken away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, Connection, Engine, Select, and_, case, exists, func, not_, or_, select

from app.dapr.history.model import AttemptOutcome
from app.domain.models import AnsweredBy
from app.finance.failures.failure_figures import (
    INTERRUPTED,
    Facts,
    FailureFact,
    SpendRole,
    Spent,
    Sum,
    WastedSpend,
    progress_of,
    weights,
)
from app.ledger.store.charge_rows import Prices, charge_of, day_number, day_of
from app.ledger.store.tables import ATTEMPTS, CHARGES, DAILY_COSTS, FAILURES, PRICES, STEPS, TASKS
from app.pricing.charge_types import TOKEN_LINES

# The questions that failures are read with.

# Clocks of workers and sidecars differ by less: Dapr's certificates allow a quarter of that.
_CLOCKS = timedelta(hours=1)
_MODEL = CHARGES.c.meter.in_([line.value for line in TOKEN_LINES])
_COUNTS = case((CHARGES.c.correction % 2 == 1, -1), else_=1)
_QUANTITY, _TIMES = (
    func.coalesce(func.sum(CHARGES.c.consumed_quantity), 0).label("consumed_quantity"),
    func.sum(_COUNTS).label("times"),
)
_STAGE = func.coalesce(STEPS.c.stage, "").label("stage")
_DONE = ATTEMPTS.alias("done")  # how a charged step was completed, if it was


@dataclass(frozen=True)
class EndedPeriod:
    """Which tasks: those that ended on these days (UTC, `until` not among them), of these tenants; None is all."""

    since: date | None
    until: date | None
    tenants: frozenset[str] | None

    @property
    def begin(self) -> datetime | None:
        """The first moment."""
        return None if self.since is None else datetime.combine(self.since, time(), UTC)

    @property
    def end(self) -> datetime | None:
        """The first moment after it."""
        return None if self.until is None else datetime.combine(self.until, time(), UTC)

    def tasks(self) -> list[ColumnElement[bool]]:
        """The tasks."""
        found = [TASKS.c.ended_at.is_not(None), *self.theirs()]
        if self.begin is not None:
            found.append(TASKS.c.ended_at >= self.begin)
        if self.end is not None:
            found.append(TASKS.c.ended_at < self.end)
        return found

    def others(self) -> ColumnElement[bool]:
        """Tasks that did not end in it, and may have been charged in it."""
        found: list[ColumnElement[bool]] = [TASKS.c.ended_at.is_(None)]
        if self.begin is not None:
            found.append(and_(TASKS.c.ended_at < self.begin, TASKS.c.ended_at >= self.begin - _CLOCKS))
        if self.end is None:
            return or_(*found)
        return and_(or_(*found, TASKS.c.ended_at >= self.end), TASKS.c.started_at < self.end + _CLOCKS)

    def at_edges(self) -> list[ColumnElement[bool]]:
        """Which of the tasks may have been charged outside."""
        found = [] if self.begin is None else [TASKS.c.started_at < self.begin + _CLOCKS]
        return found + ([] if self.end is None else [TASKS.c.ended_at >= self.end - _CLOCKS])

    def charged(self) -> list[ColumnElement[bool]]:
        """Charges of its days."""
        found = [] if self.begin is None else [CHARGES.c.at >= self.begin]
        return found + ([] if self.end is None else [CHARGES.c.at < self.end])

    def theirs(self) -> list[ColumnElement[bool]]:
        """Tasks of the tenants."""
        return [] if self.tenants is None else [TASKS.c.tenant.in_(sorted(self.tenants))]


def ended(period: EndedPeriod) -> Select[Any]:
    """How many tasks, by tenant."""
    return select(TASKS.c.tenant, func.count().label("tasks")).where(*period.tasks()).group_by(TASKS.c.tenant)


def by_day(period: EndedPeriod) -> Select[Any]:
    """What was charged on the period's days, whenever the task ended."""
    table = DAILY_COSTS.c
    key = (table.tenant, table.stage, table.price_no, table.usage_basis, table.wasted)
    query = select(
        *key, func.sum(table.consumed_quantity).label("consumed_quantity"), func.sum(table.charges).label("times")
    )
    if period.since is not None:
        query = query.where(table.day >= day_number(period.since))
    if period.until is not None:
        query = query.where(table.day < day_number(period.until))
    if period.tenants is not None:
        query = query.where(table.tenant.in_(sorted(period.tenants)))
    return query.group_by(*key)


def outside(period: EndedPeriod) -> Select[Any]:
    """What the tasks were charged on other days."""
    return _charges_of(and_(*period.tasks(), or_(*period.at_edges()))).where(not_(and_(*period.charged())))


def by_others(period: EndedPeriod) -> Select[Any]:
    """What other tasks were charged on the period's days."""
    return _charges_of(and_(period.others(), *period.theirs())).where(*period.charged())


def _charges_of(tasks: ColumnElement[bool]) -> Select[Any]:
    key = (TASKS.c.tenant, _STAGE, CHARGES.c.price_no, CHARGES.c.usage_basis, CHARGES.c.wasted)
    return (
        select(*key, _QUANTITY, _TIMES)
        .select_from(TASKS)
        .join(CHARGES, CHARGES.c.task_no == TASKS.c.task_no)
        .join(STEPS, and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step), isouter=True)
        .where(tasks)
        .group_by(*key)
    )


def restarts(period: EndedPeriod) -> CTE:
    """The failures, each with whether a runner without a record would have begun again there.

    Not where nothing was done after it; nor at what failed before work went on after a failure of the same kind, side
    by side with it; nor at another failed attempt at a step since whose last failure nothing was paid that stands.
    """
    task, order = FAILURES.c.task_no, (FAILURES.c.at, FAILURES.c.number)
    resumed = func.max(func.coalesce(FAILURES.c.resumed_at, FAILURES.c.at))
    of_kind = resumed.over(partition_by=(task, FAILURES.c.kind), order_by=order, rows=(None, -1))
    of_step = func.lag(FAILURES.c.at).over(partition_by=(task, FAILURES.c.step), order_by=order)
    told = (
        select(FAILURES, TASKS.c.tenant, _STAGE, of_kind.label("idle_until"), of_step.label("failed_before"))
        .join(TASKS, TASKS.c.task_no == task)
        .join(STEPS, and_(STEPS.c.task_no == task, STEPS.c.step == FAILURES.c.step), isouter=True)
        .where(*period.tasks())
        .cte("told")
        .c
    )
    here = CHARGES.alias("here")
    went_on = or_(told.resumed_at.is_not(None), _any(here, told, here.c.step != 0, here.c.at > told.at))
    apart = or_(told.idle_until.is_(None), told.at >= told.idle_until)
    stands = _any(here, told, here.c.wasted.is_(False), here.c.at >= told.failed_before, here.c.at < told.at)
    anew = or_(told.kind == INTERRUPTED, told.failed_before.is_(None), stands)
    return select(*told, case((and_(went_on, apart, anew), 1), else_=0).label("restarts")).cte("restarting")


def _any(here: Any, told: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(here.c.task_no == told.task_no, *conditions)


def failures(restarting: CTE) -> Select[Any]:
    """Every failure."""
    told = restarting.c
    return select(told.task_no, told.number, told.tenant, told.stage, told.kind, told.cause, told.restarts)


def spent(restarting: CTE) -> Select[Any]:
    """What the model calls of each failure's task used that were not wasted, by price: before it, and in all; and how
    many charges have no quantity."""
    told, quantity = restarting.c, CHARGES.c.consumed_quantity
    before = case((_paid(restarting), quantity), else_=0)
    return (
        select(
            told.task_no,
            told.number,
            CHARGES.c.price_no,
            func.coalesce(func.sum(before), 0).label("before"),
            func.coalesce(func.sum(quantity), 0).label("clean"),
            func.sum(case((quantity.is_(None), _COUNTS), else_=0)).label("unreported"),
        )
        .select_from(restarting)
        .join(CHARGES, and_(CHARGES.c.task_no == told.task_no, CHARGES.c.wasted.is_(False), _MODEL))
        .join(_DONE, _completed(), isouter=True)
        .group_by(told.task_no, told.number, CHARGES.c.price_no)
    )


def vain(restarting: CTE) -> Select[Any]:
    """What model calls used in vain, of each task and each stage in which it failed, by price."""
    told = restarting.c
    steps = select(told.task_no, told.step, told.tenant, told.stage).distinct().subquery()
    key = (steps.c.task_no, steps.c.tenant, steps.c.stage, CHARGES.c.price_no)
    same_step = and_(CHARGES.c.task_no == steps.c.task_no, CHARGES.c.step == steps.c.step)
    return (
        select(*key, func.sum(CHARGES.c.consumed_quantity).label("consumed_quantity"))
        .select_from(steps)
        .join(CHARGES, and_(same_step, CHARGES.c.wasted, _MODEL, CHARGES.c.consumed_quantity.is_not(None)))
        .group_by(*key)
    )


def prevented(restarting: CTE) -> Select[Any]:
    """What restarts would have paid again, by the failed step's stage, the kind, and what prevented it."""
    told = restarting.c
    its_step = and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step)
    answered_by = select(STEPS.c.answered_by).where(its_step).correlate(CHARGES).scalar_subquery()
    role = case(
        (_done(restarting), SpendRole.REPLAY.value),
        (answered_by == AnsweredBy.JOURNAL.value, SpendRole.JOURNAL.value),
        else_=SpendRole.UNDER_WAY.value,
    ).label("role")
    key = (told.tenant, told.stage, told.kind, role, CHARGES.c.price_no, CHARGES.c.usage_basis)
    return (
        select(*key, _QUANTITY, _TIMES)
        .select_from(restarting)
        .join(CHARGES, and_(CHARGES.c.task_no == told.task_no, CHARGES.c.wasted.is_(False)))
        .join(_DONE, _completed(), isouter=True)
        .where(told.restarts == 1, _paid(restarting))
        .group_by(*key)
    )


def _completed() -> ColumnElement[bool]:
    same = and_(_DONE.c.task_no == CHARGES.c.task_no, _DONE.c.step == CHARGES.c.step)
    return and_(same, _DONE.c.outcome == AttemptOutcome.COMPLETED.value)


def _done(restarting: CTE) -> ColumnElement[bool]:
    """Whether a charge's step was completed before the failure."""
    return and_(CHARGES.c.step != restarting.c.step, _DONE.c.ended_at <= restarting.c.at)


def _paid(restarting: CTE) -> ColumnElement[bool]:
    """Whether a charge that is not wasted was paid before the failure. A worker that was lost may have worked on for a
    moment after its last sign of life: what the failed step asked before it was taken up again was asked before."""
    told = restarting.c
    begun_by = case((CHARGES.c.step == told.step, func.coalesce(told.resumed_at, told.at)), else_=told.at)
    return or_(_done(restarting), and_(_MODEL, CHARGES.c.at < begun_by))


_TOKENS = (PRICES.c.meter.in_([line.value for line in TOKEN_LINES]), PRICES.c.contracted_unit_price != "")
_PRICES_OF_TOKENS = select(PRICES.c.price_no, PRICES.c.currency, PRICES.c.contracted_unit_price).where(*_TOKENS)
_Failed = tuple[int, int]  # a task's number, and its failure's


class _Place(NamedTuple):
    """What a sum is a sum of."""

    tenant: str
    stage: str
    price_no: int
    usage_basis: str
    wasted: bool


def facts(
    engine: Engine, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
) -> Facts:
    """What is known of the tasks that ended from day `since` to before day `until` (UTC). `tenants` None is all."""
    with _one_view(engine) as connection:
        reader = _Reader(connection, EndedPeriod(since, until, tenants), Prices(engine))
        return Facts(
            ended={row.tenant: row.tasks for row in reader.rows(ended(reader.period))},
            failures=tuple(reader.failures()),
            wasted_spend=tuple(reader.vain()),
            sums=(*reader.charged(), *reader.prevented()),
        )


class _Reader:
    """Asks for the tasks of one period."""

    def __init__(self, connection: Connection, period: EndedPeriod, prices: Prices) -> None:
        self.period = period
        self._connection = connection
        self._prices = prices
        self._restarts = restarts(period)
        found = {number: (currency, Decimal(price)) for number, currency, price in self.rows(_PRICES_OF_TOKENS)}
        self._weights = weights(found)

    def rows(self, query: Select[Any]) -> Any:
        """All rows at once, which is quicker than one by one."""
        return self._connection.execute(query).all()

    def failures(self) -> Iterator[FailureFact]:
        """Each failure, with what its task spent."""
        spent, partly = self._spent()
        for task, number, tenant, stage, kind, cause, restarts in self.rows(failures(self._restarts)):
            key = (task, number)
            sums = sorted(spent.get(key, {}).items())
            found = tuple(Spent(currency, before, clean) for currency, (before, clean) in sums if clean)
            progress = progress_of(found, whole=key not in partly) if restarts else None
            yield FailureFact(task, tenant, stage, kind, cause, bool(restarts), progress, found)

    def vain(self) -> Iterator[WastedSpend]:
        """What the tasks spent in vain."""
        found: Counter[tuple[int, str, str, str]] = Counter()
        for task, tenant, stage, price_no, quantity in self.rows(vain(self._restarts)):
            if price_no in self._weights:
                currency, weight = self._weights[price_no]
                found[task, tenant, stage, currency] += int(quantity) * weight
        return (WastedSpend(*key, spent) for key, spent in found.items() if spent)

    def charged(self) -> Iterator[Sum]:
        """All charges of the tasks."""
        for place, (quantity, times) in self._charges().items():
            if quantity or times:
                role = SpendRole.WASTED if place.wasted else SpendRole.CLEAN
                yield self._sum(role, place, quantity, times)

    def prevented(self) -> Iterator[Sum]:
        """What restarts would have paid again."""
        query = prevented(self._restarts)
        for tenant, stage, kind, role, price_no, known, quantity, times in self.rows(query):
            if quantity or times:
                place = _Place(tenant, stage, price_no, known, False)
                yield self._sum(SpendRole(role), place, int(quantity), int(times), crash=kind == INTERRUPTED)

    def _spent(self) -> tuple[Mapping[_Failed, Mapping[str, list[int]]], set[_Failed]]:
        """By failure and currency, what was spent before it and in all; the failures for which that is not known."""
        found: defaultdict[_Failed, dict[str, list[int]]] = defaultdict(dict)
        partly: set[_Failed] = set()
        for task, number, price_no, before, clean, unreported in self.rows(spent(self._restarts)):
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
        queries = [(by_day(self.period), 1), (by_others(self.period), -1)]
        if self.period.at_edges():
            queries.append((outside(self.period), 1))
        for query, sign in queries:
            for tenant, stage, price_no, known, wasted, quantity, times in self.rows(query):
                sums = found[_Place(tenant, stage, price_no, known, bool(wasted))]
                sums[0] += sign * int(quantity)
                sums[1] += sign * int(times)
        return {place: (quantity, times) for place, (quantity, times) in found.items()}

    def _sum(self, role: SpendRole, place: _Place, quantity: int, times: int, *, crash: bool = False) -> Sum:
        # What wasted work was charged for is asked here, not that it was one: that is its role.
        values = place._asdict() | {"wasted": False, "consumed_quantity": quantity}
        return Sum(
            role,
            crash,
            charge_of(values, self._prices.row(place.price_no, self._connection), day_of(0)),
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
