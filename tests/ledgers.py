"""An in-memory ledger with the methods of the real one, filled with the records of a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime

from app.domain.errors import TaskNotFound
from app.domain.models import CallState
from app.finance.failures.failure_figures import Facts
from app.finance.reconciliation.bill import Bill
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.reconciliation_types import Reconciliation
from app.finance.rollup import Dimension, Rollup, rollup
from app.ledger.reading.counting import WorkCounts
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import CallRecord, Charge
from tests.finance.failures.plain import facts_of


class FakeRecords:
    """The ledger's queries over given records. Every method raises `failure` while it is set."""

    def __init__(self, *records: TaskRecord) -> None:
        self.records = {record.task_id: record for record in records}
        self.failure: Exception | None = None
        self.unattributed: tuple[UnattributedRetries, ...] = ()

    def record(self, task_id: str) -> TaskRecord:
        """The record of a task. Raises TaskNotFound."""
        self._check()
        if task_id not in self.records:
            raise TaskNotFound(f"task {task_id} has no record in the ledger; text of the ledger")
        return self.records[task_id]

    def report(
        self,
        by: Sequence[Dimension] = (),
        since: date | None = None,
        until: date | None = None,
        tenants: frozenset[str] | None = None,
    ) -> Rollup:
        """The sums of the charges."""
        return rollup(self.charges(since, until, tenants), by)

    def charges(
        self, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
    ) -> Iterator[Charge]:
        """The charges of the period; `until` is exclusive."""
        self._check()
        for charge in (charge for record in self.records.values() for charge in record.charges):
            day, seen = charge.at.date(), tenants is None or charge.tenant in tenants
            if seen and (since is None or day >= since) and (until is None or day < until):
                yield charge

    def calls(
        self, since: datetime | None = None, until: datetime | None = None, tenants: frozenset[str] | None = None
    ) -> tuple[CallRecord, ...]:
        """The model calls of the period; `until` is exclusive."""
        self._check()
        ordered = sorted(
            (call for record in self.records.values() for call in record.calls), key=lambda call: call.started_at
        )
        return tuple(
            call
            for call in ordered
            if (since is None or call.started_at >= since)
            and (until is None or call.started_at < until)
            and (tenants is None or call.tenant in tenants)
        )

    def failures(
        self, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
    ) -> Facts:
        """The failure figures of the tasks that ended in the period."""
        self._check()
        return facts_of(self.records.values(), since, until, tenants)

    def tasks_charged(
        self,
        by: Sequence[Dimension],
        since: date | None = None,
        until: date | None = None,
        tenants: frozenset[str] | None = None,
    ) -> dict[tuple[str, ...], int]:
        """The number of tasks with charges in the period, by dimensions."""
        names = [Dimension.TASK, *(dimension for dimension in by if dimension is not Dimension.TASK)]
        keys = [dict(zip(names, group.key, strict=True)) for group in self.report(names, since, until, tenants).groups]
        return Counter(tuple(key[name] for name in by) for key in keys)

    def work(
        self, task_ids: Collection[str], since: date | None = None, until: date | None = None
    ) -> dict[str, WorkCounts]:
        """The calls and retries of the tasks, independent of the period."""
        wasted = (CallState.FAILED, CallState.INTERRUPTED)
        return {
            task_id: WorkCounts(
                calls=len(record.calls),
                wasted_calls=sum(call.state in wasted for call in record.calls),
                step_retries=sum(len(step.attempts) - 1 for step in record.steps if step.attempts),
            )
            for task_id, record in self.records.items()
            if task_id in task_ids
        }

    def unattributed_retries(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[UnattributedRetries, ...]:
        """The sidecars' retries in the period."""
        return tuple(
            retries
            for retries in self.unattributed
            if (since is None or retries.until >= since) and (until is None or retries.since < until)
        )

    def tenants(self) -> frozenset[str]:
        """The tenants of all tasks."""
        return frozenset(record.tenant for record in self.records.values())

    def models_in_use(self, since: datetime | None = None) -> frozenset[tuple[str, str]]:
        """Provider and model of every call of that time with a known model."""
        return frozenset((call.provider, call.model) for call in self.calls(since) if call.model)

    def providers_of_nameless(self) -> frozenset[str]:
        """Providers with unpriced charges of calls whose model is unknown."""
        unpriced = (charge for charge in self.charges() if charge.contracted_cost is None and not charge.model)
        return frozenset(charge.provider for charge in unpriced if charge.provider)

    def compare(self, bill: Bill) -> Reconciliation:
        """The comparison of all calls with a bill."""
        return reconcile(self.calls(), bill)

    def metrics(self) -> bytes:
        """A metric with the number of tasks, as Prometheus reads it."""
        self._check()
        return f"refund_agent_tasks_total {len(self.records)}\n".encode()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
