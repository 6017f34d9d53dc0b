"""What each route does: a call in, an answer out, not a word of Flask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from app.domain.errors import AccessDenied
from app.domain.models import Decision, Intake, TaskPage, TaskStatus, TaskView, Ticket, TicketView
from app.finance.failures.failure_figures import Facts
from app.finance.failures.failure_schemas import failures_view
from app.finance.reconciliation.parsing import Bill, parse_bill
from app.finance.reconciliation.reconciliation_schemas import reconciliation_view
from app.finance.reconciliation.reconciliation_types import Reconciliation
from app.finance.report_schemas import Selection, report_view
from app.finance.rollup import Dimension, Rollup
from app.ledger.reading.record_schemas import record_view
from app.ledger.store.task_record import TaskRecord
from app.tasks.access import Principal, Role
from app.web.api.messages import Approval, CostQuery, Health, Index, PeriodQuery, Rejection, TaskQuery, Termination

M = TypeVar("M", bound=BaseModel)


class TasksApi(Protocol):
    """What the API needs of the task service."""

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """The ticket's task, and what became of the ticket. Raises Conflict for another body under the same id."""

    def get(self, task_id: str) -> TaskView:
        """Raises TaskNotFound."""

    def ticket(self, task_id: str) -> TicketView:
        """What the customer wrote, redacted. Raises TaskNotFound."""

    def list(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int, after: str | None
    ) -> TaskPage:
        """A page, oldest first. `tenants` None means all of them."""

    def pause(self, task_id: str) -> TaskView:
        """Raises TaskNotFound, NotWaiting."""

    def resume(self, task_id: str) -> TaskView:
        """Lets a paused or parked task go on. Raises TaskNotFound, NotWaiting."""

    def decide(self, task_id: str, decision: Decision, note: str) -> tuple[TaskView, bool]:
        """Hands a decision over; True when the task has accepted it, False when nobody knows yet. Raises TaskNotFound,
        NotWaiting, DecisionRefused."""

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Notes an attempt of somebody who may not decide. Raises TaskNotFound."""

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Raises TaskNotFound, NotWaiting."""

    def rerun(self, task_id: str) -> TaskView:
        """Begins a lost, failed or terminated task again. Raises TaskNotFound, NotWaiting."""


class RecordsApi(Protocol):
    """What the API needs of the ledger."""

    def record(self, task_id: str) -> TaskRecord:
        """Raises TaskNotFound."""

    def report(
        self, by: Sequence[Dimension], since: date | None, until: date | None, tenants: frozenset[str] | None
    ) -> Rollup:
        """Sums of charges; `until` is not among the days, `tenants` None means all of them."""

    def failures(self, since: date | None, until: date | None, tenants: frozenset[str] | None) -> Facts:
        """What is known of the failures of the tasks that ended on these days."""


@dataclass(frozen=True)
class LedgerApi:
    """Where figures come from: the ledger, its comparison with a provider's bill, and the metrics for Prometheus."""

    records: RecordsApi
    compare: Callable[[Bill], Reconciliation]
    metrics: Callable[[], bytes]


class Probes(Protocol):
    """What probes ask of this process; both answer at once."""

    def alive(self) -> None:
        """Raises NotReady when only a new process helps."""

    def ready(self) -> None:
        """Raises NotReady when no work can be done here now."""


@dataclass(frozen=True)
class Call:
    """One request, already let in and read."""

    service: TasksApi
    document: dict[str, Any]  # the OpenAPI document
    version: str
    principal: Principal | None  # None only on routes that need no token
    task_id: str
    body: BaseModel | None
    query: BaseModel | None
    text: str  # a body that is taken as it is
    ledger: LedgerApi | None
    vitals: Probes | None

    @property
    def caller(self) -> Principal:
        """Who calls. Raises RuntimeError on a route that needs no token."""
        if self.principal is None:
            raise RuntimeError("this route is served without a token, so it has no caller")
        return self.principal

    @property
    def figures(self) -> LedgerApi:
        """The books. Raises RuntimeError in an app that was made without them."""
        if self.ledger is None:
            raise RuntimeError("this app was made without books, so it has no figures to tell")
        return self.ledger

    @property
    def process(self) -> Probes:
        """The vitals. Raises RuntimeError in an app that was made without them."""
        if self.vitals is None:
            raise RuntimeError("this app was made without vitals, so it cannot be probed")
        return self.vitals


@dataclass(frozen=True)
class HandlerAnswer:
    """What goes back: the status must be one that the route's table names."""

    status: int
    body: BaseModel | dict[str, Any] | bytes
    headers: dict[str, str] = field(default_factory=dict)


def _as(value: BaseModel | None, model: type[M]) -> M:
    if not isinstance(value, model):
        raise TypeError(f"the route's table gives {type(value).__name__}, the handler reads {model.__name__}")
    return value


def health(call: Call) -> HandlerAnswer:
    """The web process answers."""
    return HandlerAnswer(200, Health(status="ok", version=call.version))


def live(call: Call) -> HandlerAnswer:
    """The worker's event loop moves."""
    call.process.alive()
    return health(call)


def ready(call: Call) -> HandlerAnswer:
    """Work can be done here."""
    call.process.ready()
    return health(call)


def index(call: Call) -> HandlerAnswer:
    """What this is, and where to go on."""
    return HandlerAnswer(200, Index(version=call.version))


def openapi(call: Call) -> HandlerAnswer:
    """The description of this API."""
    return HandlerAnswer(200, call.document)


_INTAKE = {Intake.NEW: 201, Intake.KNOWN: 200, Intake.LATER: 202}


def submit(call: Call) -> HandlerAnswer:
    """Takes a ticket in; the same ticket again is the same task. 202: it is kept, and its task is started later."""
    ticket = _as(call.body, Ticket)
    call.caller.require(Role.SUBMIT, ticket.tenant)
    view, intake = call.service.submit(ticket)
    return HandlerAnswer(_INTAKE[intake], view, {"Location": f"/tasks/{quote(view.task_id, safe=':')}"})


def list_tasks(call: Call) -> HandlerAnswer:
    """Lists the tasks of the caller's tenants."""
    query = _as(call.query, TaskQuery)
    tenants = call.caller.tenants
    if query.tenant is not None:
        call.caller.require(Role.READ, query.tenant)
        tenants = frozenset({query.tenant})
    return HandlerAnswer(200, call.service.list(tenants, query.status, query.limit, query.after))


def show_task(call: Call) -> HandlerAnswer:
    """One task."""
    return HandlerAnswer(200, call.service.get(call.task_id))


def show_ticket(call: Call) -> HandlerAnswer:
    """The ticket of a task: what the customer wrote, redacted."""
    return HandlerAnswer(200, call.service.ticket(call.task_id))


def show_record(call: Call) -> HandlerAnswer:
    """The record of a task."""
    return HandlerAnswer(200, record_view(call.figures.records.record(call.task_id)))


def report_costs(call: Call) -> HandlerAnswer:
    """Sums what the caller's tenants were charged."""
    query = _as(call.query, CostQuery)
    tenants = _tenants(call, query)
    rollup = call.figures.records.report(query.dimensions, query.since, query.until, tenants)
    return HandlerAnswer(200, report_view(rollup, _selection(query, tenants)))


def failure_costs(call: Call) -> HandlerAnswer:
    """What failures cost the caller's tenants."""
    query = _as(call.query, PeriodQuery)
    tenants = _tenants(call, query)
    facts = call.figures.records.failures(query.since, query.until, tenants)
    return HandlerAnswer(200, failures_view(facts, _selection(query, tenants)))


def _tenants(call: Call, query: PeriodQuery) -> frozenset[str] | None:
    """The tenant that is asked for, else the caller's; None is all. Raises AccessDenied."""
    if query.tenant is None:
        return call.caller.tenants
    call.caller.require(Role.READ, query.tenant)
    return frozenset({query.tenant})


def _selection(query: PeriodQuery, tenants: frozenset[str] | None) -> Selection:
    named = None if tenants is None else tuple(sorted(tenants))
    return Selection(since=query.since, until=query.until, tenants=named)


def reconcile_bill(call: Call) -> HandlerAnswer:
    """Compares the record with a provider's bill, which is of all tenants."""
    _of_all_tenants(call)
    return HandlerAnswer(200, reconciliation_view(call.figures.compare(parse_bill("in the request", call.text))))


def show_metrics(call: Call) -> HandlerAnswer:
    """The agent's metrics, which are of all tenants."""
    _of_all_tenants(call)
    return HandlerAnswer(200, call.figures.metrics())


def _of_all_tenants(call: Call) -> None:
    if call.caller.tenants is not None:
        raise AccessDenied(
            f"token {call.caller.name!r} is bound to tenants, and this is of all of them; use a token of all tenants"
        )


def pause_task(call: Call) -> HandlerAnswer:
    """Holds a running task."""
    return HandlerAnswer(200, call.service.pause(call.task_id))


def resume_task(call: Call) -> HandlerAnswer:
    """Lets a paused or parked task go on."""
    return HandlerAnswer(200, call.service.resume(call.task_id))


def approve_task(call: Call) -> HandlerAnswer:
    """Approves the refund that waits; the decision carries the token's name."""
    approval = _as(call.body, Approval)
    said = Decision(verdict="approve", by=call.caller.name, refund=approval.refund, question=approval.question)
    return _decide(call, said, approval.note)


def reject_task(call: Call) -> HandlerAnswer:
    """Rejects the refund that waits; the decision carries the token's name."""
    rejection = _as(call.body, Rejection)
    said = Decision(verdict="reject", by=call.caller.name, question=rejection.question)
    return _decide(call, said, rejection.note)


def _decide(call: Call, decision: Decision, note: str) -> HandlerAnswer:
    """202 for a decision that was handed over, and of which the task has said nothing yet."""
    view, accepted = call.service.decide(call.task_id, decision, note)
    return HandlerAnswer(200 if accepted else 202, view)


def terminate_task(call: Call) -> HandlerAnswer:
    """Ends a task for good."""
    return HandlerAnswer(200, call.service.terminate(call.task_id, _as(call.body, Termination).reason))


def rerun_task(call: Call) -> HandlerAnswer:
    """Begins a task again from its ticket."""
    return HandlerAnswer(200, call.service.rerun(call.task_id))
