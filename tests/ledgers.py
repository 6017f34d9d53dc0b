"""A ledger in memory with the real one's methods: the records that a test gives it, and what can go wrong."""

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
    """The ledger for readers. `failure` is raised by every method while set."""

    def __init__(self, *records: TaskRecord) -> None:
        self.records = {record.task_id: record for record in records}
        self.failure: Exception | None = None
        self.unattributed: tuple[UnattributedRetries, ...] = ()

    def record(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound."""
        self._check()
        if task_id not in self.records:
            raise TaskNotFound(f"task {task_id} has no record in the ledger; the ledger's own words")
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
        """The charges of those days."""
        self._check()
        for charge in (charge for record in self.records.values() for charge in record.charges):
            day, seen = charge.at.date(), tenants is None or charge.tenant in tenants
            if seen and (since is None or day >= since) and (until is None or day < until):
                yield charge

    def calls(
        self, since: datetime | None = None, until: datetime | None = None, tenants: frozenset[str] | None = None
    ) -> tuple[CallRecord, ...]:
        """The model calls of that time."""
        self._check()
        found = sorted(
            (call for record in self.records.values() for call in record.calls), key=lambda call: call.started_at
        )
        return tuple(
            call
            for call in found
            if (since is None or call.started_at >= since)
            and (until is None or call.started_at < until)
            and (tenants is None or call.tenant in tenants)
        )

    def failures(
        self, since: date | None = None, until: date | None = None, tenants: frozenset[str] | None = None
    ) -> Facts:
        """What is known of the failures of the tasks that ended on these days."""
        self._check()
        return facts_of(self.records.values(), since, until, tenants)

    def tasks_charged(
        self,
        by: Sequence[Dimension],
        since: date | None = None,
        until: date | None = None,
        tenants: frozenset[str] | None = None,
    ) -> dict[tuple[str, ...], int]:
        """How many tasks have charges on those days."""
        names = [Dimension.TASK, *(each for each in by if each is not Dimension.TASK)]
        keys = [dict(zip(names, group.key, strict=True)) for group in self.report(names, since, until, tenants).groups]
        return Counter(tuple(key[name] for name in by) for key in keys)

    def work(
        self, task_ids: Collection[str], since: date | None = None, until: date | None = None
    ) -> dict[str, WorkCounts]:
        """What was done for the tasks, whenever that was."""
        vain = (CallState.FAILED, CallState.INTERRUPTED)
        return {
            task_id: WorkCounts(
                calls=len(record.calls),
                wasted_calls=sum(call.state in vain for call in record.calls),
                step_retries=sum(len(step.attempts) - 1 for step in record.steps if step.attempts),
            )
            for task_id, record in self.records.items()
            if task_id in task_ids
        }

    def unattributed_retries(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[UnattributedRetries, ...]:
        """What the sidecars repeated in that time."""
        return tuple(
            each
            for each in self.unattributed
            if (since is None or each.until >= since) and (until is None or each.since < until)
        )

    def tenants(self) -> frozenset[str]:
        """The tenants of all its tasks."""
        return frozenset(record.tenant for record in self.records.values())

    def models_in_use(self) -> frozenset[tuple[str, str]]:
        """Provider and model of every call that was answered."""
        return frozenset((call.provider, call.model) for call in self.calls() if call.model)

    def providers_of_nameless(self) -> frozenset[str]:
        """Providers with charges of calls that failed before anybody said which model it was."""
        unpriced = (charge for charge in self.charges() if charge.contracted_cost is None and not charge.model)
        return frozenset(charge.provider for charge in unpriced if charge.provider)

    def compare(self, bill: Bill) -> Reconciliation:
        """All its calls against a bill."""
        return reconcile(self.calls(), bill)

    def metrics(self) -> bytes:
        """What Prometheus would read."""
        self._check()
        return f"refund_agent_tasks_total {len(self.records)}\n".encode()

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
