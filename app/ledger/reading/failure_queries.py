"""The questions that the tax of failures is read with; `tax.py` puts them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, and_, case, exists, func, not_, or_, select

from app.dapr.history.history_values import AttemptOutcome
from app.domain.models import AnsweredBy
from app.finance.failures.facts import INTERRUPTED, Role
from app.ledger.store.daily import day_number
from app.ledger.store.record_tables import ATTEMPTS, CHARGES, DAILY_COSTS, FAILURES, STEPS, TASKS
from app.pricing.charge_kinds import TOKEN_LINES

# Clocks of workers and sidecars differ by less: Dapr's certificates allow a quarter of that.
_CLOCKS = timedelta(hours=1)
_MODEL = CHARGES.c.line.in_([line.value for line in TOKEN_LINES])
_COUNTS = case((CHARGES.c.correction % 2 == 1, -1), else_=1)
_QUANTITY, _TIMES = func.coalesce(func.sum(CHARGES.c.quantity), 0).label("quantity"), func.sum(_COUNTS).label("times")
_STAGE = func.coalesce(STEPS.c.stage, "").label("stage")
_DONE = ATTEMPTS.alias("done")  # how a charged step was completed, if it was


@dataclass(frozen=True)
class Period:
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


def ended(period: Period) -> Select[Any]:
    """How many tasks, by tenant."""
    return select(TASKS.c.tenant, func.count().label("tasks")).where(*period.tasks()).group_by(TASKS.c.tenant)


def by_day(period: Period) -> Select[Any]:
    """What was charged on the period's days, whenever the task ended."""
    table = DAILY_COSTS.c
    key = (table.tenant, table.stage, table.price_no, table.known, table.rerun)
    query = select(*key, func.sum(table.quantity).label("quantity"), func.sum(table.charges).label("times"))
    if period.since is not None:
        query = query.where(table.day >= day_number(period.since))
    if period.until is not None:
        query = query.where(table.day < day_number(period.until))
    if period.tenants is not None:
        query = query.where(table.tenant.in_(sorted(period.tenants)))
    return query.group_by(*key)


def outside(period: Period) -> Select[Any]:
    """What the tasks were charged on other days."""
    return _charges_of(and_(*period.tasks(), or_(*period.at_edges()))).where(not_(and_(*period.charged())))


def by_others(period: Period) -> Select[Any]:
    """What other tasks were charged on the period's days."""
    return _charges_of(and_(period.others(), *period.theirs())).where(*period.charged())


def _charges_of(tasks: ColumnElement[bool]) -> Select[Any]:
    key = (TASKS.c.tenant, _STAGE, CHARGES.c.price_no, CHARGES.c.known, CHARGES.c.rerun)
    return (
        select(*key, _QUANTITY, _TIMES)
        .select_from(TASKS)
        .join(CHARGES, CHARGES.c.task_no == TASKS.c.task_no)
        .join(STEPS, and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step), isouter=True)
        .where(tasks)
        .group_by(*key)
    )


def restarts(period: Period) -> CTE:
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
    stands = _any(here, told, here.c.rerun.is_(False), here.c.at >= told.failed_before, here.c.at < told.at)
    anew = or_(told.kind == INTERRUPTED, told.failed_before.is_(None), stands)
    return select(*told, case((and_(went_on, apart, anew), 1), else_=0).label("restarts")).cte("restarting")


def _any(here: Any, told: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(here.c.task_no == told.task_no, *conditions)


def failures(restarting: CTE) -> Select[Any]:
    """Every failure."""
    told = restarting.c
    return select(told.task_no, told.number, told.tenant, told.stage, told.kind, told.cause, told.restarts)


def spent(restarting: CTE) -> Select[Any]:
    """What the model calls of each failure's task used that were no reruns, by price: before it, and in all; and how
    many charges have no quantity."""
    told, quantity = restarting.c, CHARGES.c.quantity
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
        .join(CHARGES, and_(CHARGES.c.task_no == told.task_no, CHARGES.c.rerun.is_(False), _MODEL))
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
        select(*key, func.sum(CHARGES.c.quantity).label("quantity"))
        .select_from(steps)
        .join(CHARGES, and_(same_step, CHARGES.c.rerun, _MODEL, CHARGES.c.quantity.is_not(None)))
        .group_by(*key)
    )


def prevented(restarting: CTE) -> Select[Any]:
    """What restarts would have paid again, by the failed step's stage, the kind, and what prevented it."""
    told = restarting.c
    its_step = and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step)
    answered_by = select(STEPS.c.answered_by).where(its_step).correlate(CHARGES).scalar_subquery()
    role = case(
        (_done(restarting), Role.REPLAY.value),
        (answered_by == AnsweredBy.JOURNAL.value, Role.JOURNAL.value),
        else_=Role.UNDER_WAY.value,
    ).label("role")
    key = (told.tenant, told.stage, told.kind, role, CHARGES.c.price_no, CHARGES.c.known)
    return (
        select(*key, _QUANTITY, _TIMES)
        .select_from(restarting)
        .join(CHARGES, and_(CHARGES.c.task_no == told.task_no, CHARGES.c.rerun.is_(False)))
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
    """Whether a charge that is no rerun was paid before the failure. A worker that was lost may have worked on for a
    moment after its last sign of life: what the failed step asked before it was taken up again was asked before."""
    told = restarting.c
    begun_by = case((CHARGES.c.step == told.step, func.coalesce(told.resumed_at, told.at)), else_=told.at)
    return or_(_done(restarting), and_(_MODEL, CHARGES.c.at < begun_by))
