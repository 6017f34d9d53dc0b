"""In-memory stand-ins for the task service and the probes, and the access tokens of the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.errors import Conflict, DecisionRefused, NotReady, NotWaiting, TaskNotFound
from app.domain.models import (
    Decision,
    Intake,
    Outcome,
    Refund,
    TaskPage,
    TaskResult,
    TaskStatus,
    TaskView,
    Ticket,
    TicketView,
)
from app.tasks.access import ALL_TENANTS, Access, Role, Token, digest_of
from app.web.api.handlers import LedgerApi
from tests.ledgers import FakeRecords

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.TERMINATED}
Settle = Callable[[Ticket], dict[str, Any] | None]


def secret(name: str) -> str:
    """The bearer token of the test token `name`."""
    return f"{name}-".ljust(40, "x")


def token(name: str, *roles: Role, tenants: frozenset[str] | None = None) -> Token:
    """A token record whose secret is `secret(name)`."""
    bound: Any = ALL_TENANTS if tenants is None else tenants
    return Token(name=name, sha256=digest_of(secret(name)), roles=frozenset(roles), tenants=bound)


def make_access() -> Access:
    """One token for each role in the tenant acme, an admin of globex, and an admin of all tenants."""
    acme = frozenset({"acme"})
    roles = [token(f"acme-{role.value}", role, tenants=acme) for role in Role]
    globex = token("globex-admin", Role.ADMIN, tenants=frozenset({"globex"}))
    return Access([*roles, globex, token("root", Role.ADMIN)])


def make_ledger(records: FakeRecords) -> LedgerApi:
    """A LedgerApi over an in-memory ledger."""
    return LedgerApi(records, records.compare, records.metrics)


class FakeVitals:
    """A healthy process, until a test sets `stalled` or `missing` to the reason of a failing probe."""

    def __init__(self) -> None:
        self.stalled = self.missing = ""

    def alive(self) -> None:
        if self.stalled:
            raise NotReady(self.stalled)

    def ready(self) -> None:
        self.alive()
        if self.missing:
            raise NotReady(self.missing)


def make_ticket(ticket_id: str = "T-1", tenant: str = "acme", **changes: Any) -> Ticket:
    """A valid ticket."""
    given = {"tenant": tenant, "ticket_id": ticket_id, "customer_id": "C-1", "subject": "Broken", "text": "x"}
    return Ticket.model_validate(given | changes)


class FakeTaskService:
    """The task service. At each reading, `settle` returns the changes of a running task, None for no change. While
    `slow`, submissions and decisions are answered before their outcome is known."""

    def __init__(self, settle: Settle | None = None) -> None:
        self.settle = settle
        self.failure: Exception | None = None  # raised by every method while set
        self.slow = False
        self.decisions: list[Decision] = []
        self.notes: list[str] = []
        self.attempts: list[tuple[str, str, str]] = []
        self.reasons: list[str] = []
        self.submissions = 0
        self._lock = threading.RLock()
        self._tickets: dict[str, Ticket] = {}
        self._views: dict[str, TaskView] = {}

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """The ticket's task; Conflict for another ticket with the same id."""
        with self._lock:
            self._check()
            self.submissions += 1
            known = self._tickets.setdefault(ticket.task_id, ticket)
            if known != ticket:
                raise Conflict(f"task {ticket.task_id!r} has another body; use a new ticket id")
            created = ticket.task_id not in self._views
            if created:
                self._views[ticket.task_id] = self._new(ticket)
            intake = Intake.LATER if created and self.slow else Intake.NEW if created else Intake.KNOWN
            return self._views[ticket.task_id], intake

    def _new(self, ticket: Ticket) -> TaskView:
        created = START + timedelta(seconds=len(self._views))
        return TaskView(
            task_id=ticket.task_id,
            tenant=ticket.tenant,
            ticket_id=ticket.ticket_id,
            status=TaskStatus.RUNNING,
            created_at=created.isoformat(),
        )

    def get(self, task_id: str) -> TaskView:
        """The task as it is now."""
        with self._lock:
            self._check()
            if task_id not in self._views:
                raise TaskNotFound(f"no task {task_id!r}; text of the service")
            view = self._views[task_id]
            changes = self.settle(self._tickets[task_id]) if self.settle else None
            return self.put(task_id, **changes) if changes and view.status is TaskStatus.RUNNING else view

    def ticket(self, task_id: str) -> TicketView:
        """The customer's text."""
        self.get(task_id)
        ticket = self._tickets[task_id]
        kept = ticket.model_dump(include={"customer_id", "order_id", "subject", "text"})
        return TicketView(task_id=task_id, received_at=START.isoformat(), **kept)

    def list(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int, after: str | None
    ) -> TaskPage:
        """In the order of submission; the cursor is the number of the last task."""
        with self._lock:
            self._check()
            numbered = list(enumerate(self._views.values(), start=1))[int(after or 0) :]
            visible = [(n, view) for n, view in numbered if tenants is None or view.tenant in tenants]
            matching = [(n, view) for n, view in visible if status is None or view.status is status]
            page = matching[:limit]
            more = str(page[-1][0]) if len(matching) > limit else None
            return TaskPage(tasks=tuple(view for _, view in page), next_after=more)

    def pause(self, task_id: str) -> TaskView:
        """Pauses a running task."""
        return self._move(task_id, {TaskStatus.RUNNING}, status=TaskStatus.PAUSED)

    def resume(self, task_id: str) -> TaskView:
        """Continues a paused or parked task."""
        return self._move(task_id, {TaskStatus.PAUSED, TaskStatus.PARKED}, status=TaskStatus.RUNNING)

    def decide(self, task_id: str, decision: Decision, note: str = "") -> tuple[TaskView, bool]:
        """Decides about a waiting task; refuses amounts above 1000. While `slow`, the outcome is not known yet."""
        if decision.refund and decision.refund.amount > 1000:
            raise DecisionRefused(f"order {decision.refund.order_id} cannot bear that", reason="above_refundable")
        approved = decision.verdict == "approve"
        view = self.get(task_id)
        result = TaskResult(
            outcome=Outcome.REFUNDED if approved else Outcome.REJECTED,
            category=None,
            refund=(decision.refund or view.proposed_refund) if approved else None,
            decided_by=decision.by,
        )
        if self.slow:
            return view, False
        moved = self._move(task_id, {TaskStatus.WAITING}, status=TaskStatus.COMPLETED, result=result)
        self.decisions.append(decision)
        self.notes.append(note)
        return moved, True

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Notes the attempt."""
        self.get(task_id)
        self.attempts.append((task_id, decision.verdict, decision.by))

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Terminates a task that has not ended."""
        moved = self._move(task_id, set(TaskStatus) - ENDED, status=TaskStatus.TERMINATED)
        self.reasons.append(reason)
        return moved

    def rerun(self, task_id: str) -> TaskView:
        """Restarts a task that failed or was terminated."""
        return self._move(task_id, {TaskStatus.FAILED, TaskStatus.TERMINATED}, status=TaskStatus.RUNNING)

    def put(self, task_id: str, **changes: Any) -> TaskView:
        """Changes the view of a task."""
        with self._lock:
            self._views[task_id] = self._views[task_id].model_copy(update=changes)
            return self._views[task_id]

    def wait_for_a_person(self, task_id: str, amount: str = "12.30") -> TaskView:
        """Makes the task wait with a proposed refund of `amount`."""
        refund = Refund.model_validate({"order_id": "O-1", "amount": amount, "currency": "EUR"})
        waiting = TaskStatus.WAITING
        return self.put(task_id, status=waiting, waiting_for="above_limit", proposed_refund=refund)

    def _move(self, task_id: str, allowed: set[TaskStatus], **changes: Any) -> TaskView:
        with self._lock:
            view = self.get(task_id)
            if view.status not in allowed:
                raise NotWaiting(f"task {task_id!r} is {view.status.value}; nothing was changed")
            return self.put(task_id, **changes)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
