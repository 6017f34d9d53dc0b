"""Reads the facts of the failure cost: which tasks ended, where each failed, and what it had paid by then.

A task counts in the period in which it ended, with all its charges. Most of that comes from the daily sums of the
period; charges of tasks at its edges that fall on the other side are added or subtracted.
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
from app.pricing.charge_types import TOKEN_METERS

# The clocks of workers and sidecars differ by less: Dapr's certificates allow a quarter of this.
_CLOCKS = timedelta(hours=1)
_MODEL = CHARGES.c.meter.in_([line.value for line in TOKEN_METERS])
_COUNTS = case((CHARGES.c.correction % 2 == 1, -1), else_=1)
_QUANTITY, _TIMES = (
    func.coalesce(func.sum(CHARGES.c.consumed_quantity), 0).label("consumed_quantity"),
    func.sum(_COUNTS).label("times"),
)
_STAGE = func.coalesce(STEPS.c.stage, "").label("stage")
_DONE = ATTEMPTS.alias("done")  # the completed attempt of a charged step, if it has one


@dataclass(frozen=True)
class EndedPeriod:
    """Selects the tasks that ended from day `since` to before day `until` (UTC), of these tenants; None: no limit."""

    since: date | None
    until: date | None
    tenants: frozenset[str] | None

    @property
    def begin(self) -> datetime | None:
        """The first moment of the period."""
        return None if self.since is None else datetime.combine(self.since, time(), UTC)

    @property
    def end(self) -> datetime | None:
        """The first moment after the period."""
        return None if self.until is None else datetime.combine(self.until, time(), UTC)

    def tasks(self) -> list[ColumnElement[bool]]:
        """Conditions for the tasks that ended in the period."""
        conditions = [TASKS.c.ended_at.is_not(None), *self.of_tenants()]
        if self.begin is not None:
            conditions.append(TASKS.c.ended_at >= self.begin)
        if self.end is not None:
            conditions.append(TASKS.c.ended_at < self.end)
        return conditions

    def other_tasks(self) -> ColumnElement[bool]:
        """Condition for tasks that did not end in the period but may have been charged in it."""
        conditions: list[ColumnElement[bool]] = [TASKS.c.ended_at.is_(None)]
        if self.begin is not None:
            conditions.append(and_(TASKS.c.ended_at < self.begin, TASKS.c.ended_at >= self.begin - _CLOCKS))
        if self.end is None:
            return or_(*conditions)
        return and_(or_(*conditions, TASKS.c.ended_at >= self.end), TASKS.c.started_at < self.end + _CLOCKS)

    def at_edges(self) -> list[ColumnElement[bool]]:
        """Alternative conditions for those of the period's tasks that may have been charged outside it."""
        conditions = [] if self.begin is None else [TASKS.c.started_at < self.begin + _CLOCKS]
        return conditions + ([] if self.end is None else [TASKS.c.ended_at >= self.end - _CLOCKS])

    def charged(self) -> list[ColumnElement[bool]]:
        """Conditions for the charges of the period's days."""
        conditions = [] if self.begin is None else [CHARGES.c.at >= self.begin]
        return conditions + ([] if self.end is None else [CHARGES.c.at < self.end])

    def of_tenants(self) -> list[ColumnElement[bool]]:
        """Conditions for the tasks of the tenants."""
        return [] if self.tenants is None else [TASKS.c.tenant.in_(sorted(self.tenants))]


def ended_tasks(period: EndedPeriod) -> Select[Any]:
    """The number of tasks that ended in the period, by tenant."""
    return select(TASKS.c.tenant, func.count().label("tasks")).where(*period.tasks()).group_by(TASKS.c.tenant)


def charges_by_day(period: EndedPeriod) -> Select[Any]:
    """Sums of all charges of the period's days, including tasks that ended outside it."""
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


def charges_outside(period: EndedPeriod) -> Select[Any]:
    """Sums of the charges that the period's tasks got on other days."""
    return _charges_of(and_(*period.tasks(), or_(*period.at_edges()))).where(not_(and_(*period.charged())))


def charges_of_other_tasks(period: EndedPeriod) -> Select[Any]:
    """Sums of the charges of the period's days for tasks that did not end in it."""
    return _charges_of(and_(period.other_tasks(), *period.of_tenants())).where(*period.charged())


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
    """All failures of the period's tasks, with `restarts`: whether a runner without a record would have restarted.

    Not a restart if no work followed the failure; if it overlaps an earlier failure of the same kind that was not yet
    resumed; or if it is a further failed attempt at a step and nothing that was not wasted was paid since the step's
    previous failure.
    """
    task, order = FAILURES.c.task_no, (FAILURES.c.at, FAILURES.c.number)
    resumed = func.max(func.coalesce(FAILURES.c.resumed_at, FAILURES.c.at))
    of_kind = resumed.over(partition_by=(task, FAILURES.c.kind), order_by=order, rows=(None, -1))
    of_step = func.lag(FAILURES.c.at).over(partition_by=(task, FAILURES.c.step), order_by=order)
    failure = (
        select(FAILURES, TASKS.c.tenant, _STAGE, of_kind.label("idle_until"), of_step.label("failed_before"))
        .join(TASKS, TASKS.c.task_no == task)
        .join(STEPS, and_(STEPS.c.task_no == task, STEPS.c.step == FAILURES.c.step), isouter=True)
        .where(*period.tasks())
        .cte("failure")
        .c
    )
    charge = CHARGES.alias("charge")

    def charged(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(charge.c.task_no == failure.task_no, *conditions)

    work_followed = or_(failure.resumed_at.is_not(None), charged(charge.c.step != 0, charge.c.at > failure.at))
    no_overlap = or_(failure.idle_until.is_(None), failure.at >= failure.idle_until)
    paid_since = charged(charge.c.wasted.is_(False), charge.c.at >= failure.failed_before, charge.c.at < failure.at)
    work_lost = or_(failure.kind == INTERRUPTED, failure.failed_before.is_(None), paid_since)
    restarts = case((and_(work_followed, no_overlap, work_lost), 1), else_=0)
    return select(*failure, restarts.label("restarts")).cte("restarting")


def failures(restarting: CTE) -> Select[Any]:
    """Every failure, and whether it is a restart."""
    failure = restarting.c
    return select(
        failure.task_no,
        failure.number,
        failure.tenant,
        failure.stage,
        failure.kind,
        failure.cause,
        failure.restarts,
    )


def spend(restarting: CTE) -> Select[Any]:
    """For each failure and price: the usage of its task's model calls that were not wasted, before the failure and in
    total, and the number of charges without a quantity."""
    failure, quantity = restarting.c, CHARGES.c.consumed_quantity
    before = case((_paid_before(restarting), quantity), else_=0)
    return (
        select(
            failure.task_no,
            failure.number,
            CHARGES.c.price_no,
            func.coalesce(func.sum(before), 0).label("before"),
            func.coalesce(func.sum(quantity), 0).label("clean"),
            func.sum(case((quantity.is_(None), _COUNTS), else_=0)).label("unreported"),
        )
        .select_from(restarting)
        .join(CHARGES, and_(CHARGES.c.task_no == failure.task_no, CHARGES.c.wasted.is_(False), _MODEL))
        .join(_DONE, _completed_attempt(), isouter=True)
        .group_by(failure.task_no, failure.number, CHARGES.c.price_no)
    )


def wasted_spend(restarting: CTE) -> Select[Any]:
    """The usage of wasted model calls in steps that failed, by task, stage and price."""
    failure = restarting.c
    steps = select(failure.task_no, failure.step, failure.tenant, failure.stage).distinct().subquery()
    key = (steps.c.task_no, steps.c.tenant, steps.c.stage, CHARGES.c.price_no)
    same_step = and_(CHARGES.c.task_no == steps.c.task_no, CHARGES.c.step == steps.c.step)
    return (
        select(*key, func.sum(CHARGES.c.consumed_quantity).label("consumed_quantity"))
        .select_from(steps)
        .join(CHARGES, and_(same_step, CHARGES.c.wasted, _MODEL, CHARGES.c.consumed_quantity.is_not(None)))
        .group_by(*key)
    )


def prevented_spend(restarting: CTE) -> Select[Any]:
    """The charges that restarts would have repeated, by the failed step's stage, the failure's kind, and what prevented
    the repetition."""
    failure = restarting.c
    its_step = and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step)
    answered_by = select(STEPS.c.answered_by).where(its_step).correlate(CHARGES).scalar_subquery()
    role = case(
        (_completed_before(restarting), SpendRole.REPLAY.value),
        (answered_by == AnsweredBy.JOURNAL.value, SpendRole.JOURNAL.value),
        else_=SpendRole.UNDER_WAY.value,
    ).label("role")
    key = (failure.tenant, failure.stage, failure.kind, role, CHARGES.c.price_no, CHARGES.c.usage_basis)
    return (
        select(*key, _QUANTITY, _TIMES)
        .select_from(restarting)
        .join(CHARGES, and_(CHARGES.c.task_no == failure.task_no, CHARGES.c.wasted.is_(False)))
        .join(_DONE, _completed_attempt(), isouter=True)
        .where(failure.restarts == 1, _paid_before(restarting))
        .group_by(*key)
    )


def _completed_attempt() -> ColumnElement[bool]:
    same = and_(_DONE.c.task_no == CHARGES.c.task_no, _DONE.c.step == CHARGES.c.step)
    return and_(same, _DONE.c.outcome == AttemptOutcome.COMPLETED.value)


def _completed_before(restarting: CTE) -> ColumnElement[bool]:
    """Whether a charge's step was completed before the failure."""
    return and_(CHARGES.c.step != restarting.c.step, _DONE.c.ended_at <= restarting.c.at)


def _paid_before(restarting: CTE) -> ColumnElement[bool]:
    """Whether a charge that is not wasted was paid before the failure. A lost worker may have worked for a moment after
    its last heartbeat; so the failed step's calls count as before the failure if they started before it was resumed."""
    failure = restarting.c
    limit = case((CHARGES.c.step == failure.step, func.coalesce(failure.resumed_at, failure.at)), else_=failure.at)
    return or_(_completed_before(restarting), and_(_MODEL, CHARGES.c.at < limit))


_TOKENS = (PRICES.c.meter.in_([line.value for line in TOKEN_METERS]), PRICES.c.contracted_unit_price != "")
_PRICES_OF_TOKENS = select(PRICES.c.price_no, PRICES.c.currency, PRICES.c.contracted_unit_price).where(*_TOKENS)
_FailureKey = tuple[int, int]  # the task's number and the failure's


class _Place(NamedTuple):
    """What the charges of one sum have in common."""

    tenant: str
    stage: str
    price_no: int
    usage_basis: str
    wasted: bool


def facts(
    engine: Engine, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
) -> Facts:
    """The facts of the tasks that ended from day `since` to before day `until` (UTC). `tenants` None: all."""
    with _snapshot(engine) as connection:
        reader = _Reader(connection, EndedPeriod(since, until, tenants), Prices(engine))
        return Facts(
            ended={row.tenant: row.tasks for row in reader.rows(ended_tasks(reader.period))},
            failures=tuple(reader.failures()),
            wasted_spend=tuple(reader.wasted_spend()),
            sums=(*reader.charges(), *reader.prevented_spend()),
        )


class _Reader:
    """Runs the queries for the tasks of one period."""

    def __init__(self, connection: Connection, period: EndedPeriod, prices: Prices) -> None:
        self.period = period
        self._connection = connection
        self._prices = prices
        self._restarts = restarts(period)
        token_prices = {number: (currency, Decimal(price)) for number, currency, price in self.rows(_PRICES_OF_TOKENS)}
        self._weights = weights(token_prices)

    def rows(self, query: Select[Any]) -> Any:
        """All rows of a query; fetching them together is faster than one by one."""
        return self._connection.execute(query).all()

    def failures(self) -> Iterator[FailureFact]:
        """Each failure, with its task's spend."""
        spend_by_failure, incomplete = self._spend()
        for task, number, tenant, stage, kind, cause, restarts in self.rows(failures(self._restarts)):
            key = (task, number)
            sums = sorted(spend_by_failure.get(key, {}).items())
            spent = tuple(Spent(currency, before, clean) for currency, (before, clean) in sums if clean)
            progress = progress_of(spent, whole=key not in incomplete) if restarts else None
            yield FailureFact(task, tenant, stage, kind, cause, bool(restarts), progress, spent)

    def wasted_spend(self) -> Iterator[WastedSpend]:
        """The tasks' wasted model spend."""
        spent: Counter[tuple[int, str, str, str]] = Counter()
        for task, tenant, stage, price_no, quantity in self.rows(wasted_spend(self._restarts)):
            if price_no in self._weights:
                currency, weight = self._weights[price_no]
                spent[task, tenant, stage, currency] += int(quantity) * weight
        return (WastedSpend(*key, weight) for key, weight in spent.items() if weight)

    def charges(self) -> Iterator[Sum]:
        """All charges of the tasks, wasted or not."""
        for place, (quantity, times) in self._charges().items():
            if quantity or times:
                role = SpendRole.WASTED if place.wasted else SpendRole.CLEAN
                yield self._sum(role, place, quantity, times)

    def prevented_spend(self) -> Iterator[Sum]:
        """The charges that restarts would have repeated."""
        query = prevented_spend(self._restarts)
        for tenant, stage, kind, role, price_no, known, quantity, times in self.rows(query):
            if quantity or times:
                place = _Place(tenant, stage, price_no, known, False)
                yield self._sum(SpendRole(role), place, int(quantity), int(times), crash=kind == INTERRUPTED)

    def _spend(self) -> tuple[Mapping[_FailureKey, Mapping[str, list[int]]], set[_FailureKey]]:
        """By failure and currency, the spend before the failure and in total, in weights; and the failures whose spend
        is incomplete, because a usage or a price is not known."""
        spend_by_failure: defaultdict[_FailureKey, dict[str, list[int]]] = defaultdict(dict)
        incomplete: set[_FailureKey] = set()
        for task, number, price_no, before, clean, unreported in self.rows(spend(self._restarts)):
            if unreported or (clean and price_no not in self._weights):
                incomplete.add((task, number))
            if price_no in self._weights:
                currency, weight = self._weights[price_no]
                sums = spend_by_failure[task, number].setdefault(currency, [0, 0])
                sums[0] += int(before) * weight
                sums[1] += int(clean) * weight
        return spend_by_failure, incomplete

    def _charges(self) -> Mapping[_Place, tuple[int, int]]:
        """Quantity and number of the tasks' charges: those of the period's days, minus those of other tasks, plus the
        tasks' charges on other days."""
        sums_by_place: defaultdict[_Place, list[int]] = defaultdict(lambda: [0, 0])
        queries = [(charges_by_day(self.period), 1), (charges_of_other_tasks(self.period), -1)]
        if self.period.at_edges():
            queries.append((charges_outside(self.period), 1))
        for query, sign in queries:
            for tenant, stage, price_no, known, wasted, quantity, times in self.rows(query):
                sums = sums_by_place[_Place(tenant, stage, price_no, known, bool(wasted))]
                sums[0] += sign * int(quantity)
                sums[1] += sign * int(times)
        return {place: (quantity, times) for place, (quantity, times) in sums_by_place.items()}

    def _sum(self, role: SpendRole, place: _Place, quantity: int, times: int, *, crash: bool = False) -> Sum:
        # The role already says that a sum is wasted; `rollup` would keep wasted charges apart once more.
        values = place._asdict() | {"wasted": False, "consumed_quantity": quantity}
        return Sum(
            role,
            crash,
            charge_of(values, self._prices.row(place.price_no, self._connection), day_of(0)),
            times,
        )


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection whose queries all see the same state of the database, whatever is written meanwhile."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("BEGIN")
        yield connection
