"""Read-only queries of the ledger: task records, sums, charges, model calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, FromClause, Select, and_, bindparam, func, or_, select

from app.domain.errors import TaskNotFound
from app.finance.failures.failure_figures import Facts
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.rollup import Dimension, Rollup, rollup_sums
from app.ledger.reading import counting, failure_facts
from app.ledger.reading.summing import charged_by_day
from app.ledger.recording.projection import with_usages
from app.ledger.store import decision_log
from app.ledger.store.call_rows import call_records, oldest_first
from app.ledger.store.charge_rows import Prices, charge_of, day_number, day_of
from app.ledger.store.record_rows import failures_of, steps_of, task_of
from app.ledger.store.tables import (
    ATTEMPTS,
    CHARGES,
    DAILY_COSTS,
    EXECUTIONS,
    FAILURES,
    MODEL_CALLS,
    PAUSES,
    PRICES,
    SIDECAR_RETRIES,
    STEPS,
    TASKS,
)
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CallRecord, Charge

# The dimensions that are columns of the daily sums. Only charges have the task; the other dimensions follow from the
# price.
_COLUMNS = {
    Dimension.TENANT: "tenant",
    Dimension.AGENT: "agent",
    Dimension.WORKFLOW: "workflow",
    Dimension.TASK: "task_id",
    Dimension.OUTCOME: "outcome",
    Dimension.STAGE: "stage",
    Dimension.STEP: "step",
    Dimension.TOOL: "tool",
    Dimension.DAY: "day",
}
_PRICED = ("price_no", "usage_basis", "wasted")
_CHARGES = (
    select(
        CHARGES,
        TASKS.c.task_id,
        TASKS.c.tenant,
        TASKS.c.agent,
        TASKS.c.workflow,
        TASKS.c.outcome,
        STEPS.c.stage,
        STEPS.c.name.label("step_name"),
        STEPS.c.tool,
        STEPS.c.execution_id,
    )
    .join(TASKS, TASKS.c.task_no == CHARGES.c.task_no)
    .join(STEPS, and_(STEPS.c.task_no == CHARGES.c.task_no, STEPS.c.step == CHARGES.c.step), isouter=True)
)
_TASKS = select(TASKS).where(TASKS.c.task_id.in_(bindparam("ids", expanding=True)))
_OF_TASKS = {
    table: select(table)
    .where(table.c.task_no.in_(bindparam("numbers", expanding=True)))
    .order_by(*table.primary_key.columns)
    for table in (STEPS, ATTEMPTS, FAILURES, PAUSES)
}
_EXECUTIONS = (
    select(EXECUTIONS)
    .where(EXECUTIONS.c.task_id.in_(bindparam("ids", expanding=True)))
    .order_by(*EXECUTIONS.primary_key.columns)
)
_IN_ORDER = tuple(CHARGES.primary_key.columns)
_BATCH = 10_000
_DAY = timedelta(days=1)

Tenants = frozenset[str] | None


class LedgerQueries:
    """The ledger's queries. Thread-safe. Days are UTC days from `since` to before `until`; `tenants` None: all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._prices = Prices(engine)

    def record(self, task_id: str) -> TaskRecord:
        """The record of one task. Raises TaskNotFound if the ledger has none."""
        record = self.records([task_id]).get(task_id)
        if record is None:
            raise TaskNotFound(
                f"task {task_id} has no record in the ledger: a record is made when a task first waits or ends; look "
                f"with `task show {task_id}`, or check tenant and ticket id"
            )
        return record

    def records(self, task_ids: Sequence[str]) -> Mapping[str, TaskRecord]:
        """The records of those of these tasks that are in the ledger, by task id."""
        with self._engine.connect() as connection:
            tasks = connection.execute(_TASKS, {"ids": list(task_ids)}).mappings().all()
            numbers = {"numbers": [row["task_no"] for row in tasks]}
            rows = {table: _by(connection, query, numbers, "task_no") for table, query in _OF_TASKS.items()}
            executions = _by(connection, _EXECUTIONS, {"ids": list(task_ids)}, "task_id")
            calls: defaultdict[str, list[CallRecord]] = defaultdict(list)
            for call in _calls(connection, MODEL_CALLS.c.task_id.in_(task_ids)):
                calls[call.task_id].append(call)
            decisions = {row["task_id"]: decision_log.read(connection, row["task_id"]) for row in tasks}
        charges: defaultdict[str, list[Charge]] = defaultdict(list)
        for charge in self._charges(CHARGES.c.task_no.in_(numbers["numbers"])):
            charges[charge.task_id].append(charge)
        records = {}
        for row in tasks:
            task_id, number = row["task_id"], row["task_no"]
            failures = failures_of(rows[FAILURES][number])
            steps = steps_of(rows[STEPS][number], rows[ATTEMPTS][number], executions[task_id], failures)
            records[task_id] = task_of(
                row, steps, failures, rows[PAUSES][number], calls[task_id], charges[task_id], decisions[task_id]
            )
        return records

    def report(
        self,
        by: Sequence[Dimension] = (),
        since: date | None = None,
        until: date | None = None,
        tenants: Tenants = None,
    ) -> Rollup:
        """Sums of the charges of these days, by the dimensions."""
        sums: FromClause = DAILY_COSTS
        if Dimension.TASK in by:
            sums = charged_by_day(TASKS.c.task_id).where(*_charged_in(since, until)).subquery()
        names = [_COLUMNS[dimension] for dimension in by if dimension in _COLUMNS]
        columns = [sums.c[name] for name in (*names, *_PRICED)]
        query = select(*columns, func.sum(sums.c.consumed_quantity), func.sum(sums.c.charges)).group_by(*columns)
        if since is not None:
            query = query.where(sums.c.day >= day_number(since))
        if until is not None:
            query = query.where(sums.c.day < day_number(until))
        if tenants is not None:
            query = query.where(sums.c.tenant.in_(sorted(tenants)))
        return rollup_sums(self._sums(query, names), by)

    def charges(
        self, since: date | None = None, until: date | None = None, tenants: Tenants = None
    ) -> Iterator[Charge]:
        """Every charge of these days, corrections included."""
        conditions = list(_charged_in(since, until))
        if tenants is not None:
            conditions.append(TASKS.c.tenant.in_(sorted(tenants)))
        return self._charges(*conditions)

    def calls(
        self, since: datetime | None = None, until: datetime | None = None, tenants: Tenants = None
    ) -> tuple[CallRecord, ...]:
        """Every model call that started in that time, oldest first, with its reported or estimated usage."""
        conditions: list[Any] = []
        if since is not None:
            conditions.append(MODEL_CALLS.c.started_at >= since)
        if until is not None:
            conditions.append(MODEL_CALLS.c.started_at < until)
        if tenants is not None:
            conditions.append(MODEL_CALLS.c.tenant.in_(sorted(tenants)))
        # A failed call's usage is estimated from other calls of its task, and those may lie outside this time.
        same_task = MODEL_CALLS.c.task_id.in_(select(MODEL_CALLS.c.task_id).where(*conditions))
        with self._engine.connect() as connection:
            calls = _calls(connection, *([same_task] if conditions else []))
        return tuple(
            call
            for call in calls
            if (since is None or call.started_at >= since) and (until is None or call.started_at < until)
        )

    def failures(self, since: date | None = None, until: date | None = None, tenants: Tenants = None) -> Facts:
        """The facts from which the failure cost of the tasks that ended on these days is computed."""
        return failure_facts.facts(self._engine, since, until, tenants)

    def tasks_charged(
        self, by: Sequence[Dimension], since: date | None = None, until: date | None = None, tenants: Tenants = None
    ) -> dict[tuple[str, ...], int]:
        """The number of tasks charged on these days, by dimensions of `counting.COUNTABLE`."""
        return counting.task_counts(self._engine, by, counting.CountedPeriod(since, until), tenants)

    def work(
        self, task_ids: Collection[str], since: date | None = None, until: date | None = None
    ) -> dict[str, counting.WorkCounts]:
        """The work done for these tasks on these days, by task id."""
        return counting.work_counts(self._engine, task_ids, counting.CountedPeriod(since, until))

    def unattributed_retries(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[UnattributedRetries, ...]:
        """The retries that sidecars made by themselves, in periods that overlap this one, oldest first."""
        table, count = SIDECAR_RETRIES.c, SIDECAR_RETRIES.c["count"]
        query = select(table.component, table.from_at, table.to_at, count).where(or_(count.is_(None), count > 0))
        if since is not None:
            query = query.where(table.to_at >= since)
        if until is not None:
            query = query.where(table.from_at < until)
        with self._engine.connect() as connection:
            return tuple(UnattributedRetries(*row) for row in connection.execute(query.order_by(table.from_at)))

    def tenants(self) -> frozenset[str]:
        """The tenants with any charge."""
        with self._engine.connect() as connection:
            return frozenset(connection.execute(select(DAILY_COSTS.c.tenant).distinct()).scalars())

    def models_in_use(self, since: datetime | None = None) -> frozenset[tuple[str, str]]:
        """Provider (component type) and model of all answered calls, or of those that started at `since` or later."""
        query = select(MODEL_CALLS.c.provider, MODEL_CALLS.c.model).where(MODEL_CALLS.c.model.is_not(None)).distinct()
        if since is not None:
            query = query.where(MODEL_CALLS.c.started_at >= since)
        with self._engine.connect() as connection:
            return frozenset((row.provider, row.model) for row in connection.execute(query))

    def providers_of_nameless(self) -> frozenset[str]:
        """Providers (component types) with charges for calls that failed before their model was known."""
        nameless = select(PRICES.c.provider).where(
            PRICES.c.price_id == "", PRICES.c.model == "", PRICES.c.provider != ""
        )
        with self._engine.connect() as connection:
            return frozenset(connection.execute(nameless.distinct()).scalars())

    def _sums(self, query: Select[Any], names: Sequence[str]) -> Iterator[tuple[Charge, int]]:
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                *key, price_no, known, wasted, quantity, times = row
                values = dict(zip(names, key, strict=True))
                at = day_of(values.pop("day", 0))
                values |= {
                    "step_name": values.get("step"),
                    "usage_basis": known,
                    "wasted": wasted,
                    "consumed_quantity": int(quantity),
                }
                if times or quantity:
                    yield charge_of(values, self._prices.row(price_no, connection), at), int(times)

    def _charges(self, *conditions: Any) -> Iterator[Charge]:
        query = _CHARGES.where(*conditions).order_by(*_IN_ORDER).execution_options(yield_per=_BATCH)
        with self._engine.connect() as connection:
            for row in connection.execute(query).mappings():
                yield charge_of(row, self._prices.row(row["price_no"], connection), row["at"])


def _by(connection: Connection, query: Select[Any], values: dict[str, Any], key: str) -> defaultdict[Any, list[Any]]:
    """The query's rows, grouped by the column `key`; each group keeps the query's order."""
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for row in connection.execute(query, values).mappings():
        groups[row[key]].append(row)
    return groups


def _calls(connection: Connection, *conditions: Any) -> tuple[CallRecord, ...]:
    by_task: dict[str, list[CallRecord]] = {}
    for call in call_records(connection.execute(select(MODEL_CALLS).where(*conditions)).mappings()):
        by_task.setdefault(call.task_id, []).append(call)
    return oldest_first(call for calls in by_task.values() for call in with_usages(calls))


def _charged_in(since: date | None, until: date | None) -> Iterator[Any]:
    """Conditions for the charges of these days. Those on the tasks let the database use their index; they allow a day
    more on both sides, because a worker's clock may differ from its sidecar's."""
    if since is not None:
        yield CHARGES.c.at >= _midnight(since)
        yield or_(TASKS.c.ended_at.is_(None), TASKS.c.ended_at >= _midnight(since) - _DAY)
    if until is not None:
        yield CHARGES.c.at < _midnight(until)
        yield TASKS.c.started_at < _midnight(until) + _DAY


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
