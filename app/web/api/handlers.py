"""The functions behind the routes: each takes a `Call` and returns a `HandlerAnswer`, independent of Flask."""

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
    """The task service, as the API uses it."""

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """The ticket's task, and whether it is new, known or started later. Raises Conflict if the id is taken by a
        different ticket."""

    def get(self, task_id: str) -> TaskView:
        """The task as it is now. Raises TaskNotFound."""

    def ticket(self, task_id: str) -> TicketView:
        """The customer's text, redacted. Raises TaskNotFound."""

    def list(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int, after: str | None
    ) -> TaskPage:
        """A page of tasks, oldest first; `tenants` None means all tenants."""

    def pause(self, task_id: str) -> TaskView:
        """Pauses a running task. Raises TaskNotFound, NotWaiting."""

    def resume(self, task_id: str) -> TaskView:
        """Continues a paused or parked task. Raises TaskNotFound, NotWaiting."""

    def decide(self, task_id: str, decision: Decision, note: str) -> tuple[TaskView, bool]:
        """Sends a decision to the task; False if the task has not answered yet. Raises TaskNotFound, NotWaiting,
        DecisionRefused."""

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Notes an attempt by a caller who may not decide. Raises TaskNotFound."""

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Ends a task for good. Raises TaskNotFound, NotWaiting."""

    def rerun(self, task_id: str) -> TaskView:
        """Restarts a lost, failed or terminated task. Raises TaskNotFound, NotWaiting."""


class RecordsApi(Protocol):
    """The ledger's queries, as the API uses them."""

    def record(self, task_id: str) -> TaskRecord:
        """The record of a task. Raises TaskNotFound."""

    def report(
        self, by: Sequence[Dimension], since: date | None, until: date | None, tenants: frozenset[str] | None
    ) -> Rollup:
        """Sums of charges; `until` is exclusive, `tenants` None means all tenants."""

    def failures(self, since: date | None, until: date | None, tenants: frozenset[str] | None) -> Facts:
        """The failure figures of the tasks that ended in the period; `until` is exclusive."""


@dataclass(frozen=True)
class LedgerApi:
    """The sources of figures: the ledger's queries, the comparison with a provider's bill, the Prometheus metrics."""

    records: RecordsApi
    compare: Callable[[Bill], Reconciliation]
    metrics: Callable[[], bytes]


class Probes(Protocol):
    """The health of this process. Neither method blocks."""

    def alive(self) -> None:
        """Raises NotReady if the process must be restarted."""

    def ready(self) -> None:
        """Raises NotReady if this process cannot do work now."""


@dataclass(frozen=True)
class Call:
    """One authorized and parsed request."""

    service: TasksApi
    document: dict[str, Any]  # the OpenAPI document
    version: str
    principal: Principal | None  # None on a route without a token
    task_id: str
    body: BaseModel | None
    query: BaseModel | None
    text: str  # the body of an upload
    ledger: LedgerApi | None
    vitals: Probes | None

    @property
    def caller(self) -> Principal:
        """The caller. Raises RuntimeError on a route without a token."""
        if self.principal is None:
            raise RuntimeError("this route is served without a token, so it has no caller")
        return self.principal

    @property
    def figures(self) -> LedgerApi:
        """The ledger's figures. Raises RuntimeError if the app was created without a ledger."""
        if self.ledger is None:
            raise RuntimeError("the app was created without a ledger, so it has no figures")
        return self.ledger

    @property
    def process(self) -> Probes:
        """The health of the process. Raises RuntimeError if the app was created without vitals."""
        if self.vitals is None:
            raise RuntimeError("the app was created without vitals, so it cannot be probed")
        return self.vitals


@dataclass(frozen=True)
class HandlerAnswer:
    """A handler's answer; `status` must be one of the route's `answers`."""

    status: int
    body: BaseModel | dict[str, Any] | bytes
    headers: dict[str, str] = field(default_factory=dict)


def _as(value: BaseModel | None, model: type[M]) -> M:
    if not isinstance(value, model):
        raise TypeError(f"the route table gives {type(value).__name__}, but the handler expects {model.__name__}")
    return value


def health(call: Call) -> HandlerAnswer:
    """Reports that the web process answers."""
    return HandlerAnswer(200, Health(status="ok", version=call.version))


def live(call: Call) -> HandlerAnswer:
    """Reports that the worker's event loop runs."""
    call.process.alive()
    return health(call)


def ready(call: Call) -> HandlerAnswer:
    """Reports that this process can do work."""
    call.process.ready()
    return health(call)


def index(call: Call) -> HandlerAnswer:
    """The API's entry point: name, version, links."""
    return HandlerAnswer(200, Index(version=call.version))


def openapi(call: Call) -> HandlerAnswer:
    """The OpenAPI document."""
    return HandlerAnswer(200, call.document)


_INTAKE = {Intake.NEW: 201, Intake.KNOWN: 200, Intake.LATER: 202}


def submit(call: Call) -> HandlerAnswer:
    """Accepts a ticket. 201: a new task; 200: the ticket was known; 202: it is stored, and its task starts later."""
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
    """A task as it is now."""
    return HandlerAnswer(200, call.service.get(call.task_id))


def show_ticket(call: Call) -> HandlerAnswer:
    """A task's ticket: the customer's text, redacted."""
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
    """The query's tenant, otherwise the caller's tenants; None means all. Raises AccessDenied."""
    if query.tenant is None:
        return call.caller.tenants
    call.caller.require(Role.READ, query.tenant)
    return frozenset({query.tenant})


def _selection(query: PeriodQuery, tenants: frozenset[str] | None) -> Selection:
    names = None if tenants is None else tuple(sorted(tenants))
    return Selection(since=query.since, until=query.until, tenants=names)


def reconcile_bill(call: Call) -> HandlerAnswer:
    """Compares the record with a provider's bill, which covers all tenants."""
    _require_all_tenants(call)
    return HandlerAnswer(200, reconciliation_view(call.figures.compare(parse_bill("in the request", call.text))))


def show_metrics(call: Call) -> HandlerAnswer:
    """The agent's metrics, which cover all tenants."""
    _require_all_tenants(call)
    return HandlerAnswer(200, call.figures.metrics())


def _require_all_tenants(call: Call) -> None:
    if call.caller.tenants is not None:
        raise AccessDenied(
            f"token {call.caller.name!r} is bound to tenants, and this answer covers all tenants; use a token of all "
            "tenants"
        )


def pause_task(call: Call) -> HandlerAnswer:
    """Pauses a running task."""
    return HandlerAnswer(200, call.service.pause(call.task_id))


def resume_task(call: Call) -> HandlerAnswer:
    """Continues a paused or parked task."""
    return HandlerAnswer(200, call.service.resume(call.task_id))


def approve_task(call: Call) -> HandlerAnswer:
    """Approves a refund for a waiting task. The decision names the token as its author."""
    approval = _as(call.body, Approval)
    decision = Decision(verdict="approve", by=call.caller.name, refund=approval.refund, question=approval.question)
    return _decide(call, decision, approval.note)


def reject_task(call: Call) -> HandlerAnswer:
    """Rejects a refund for a waiting task. The decision names the token as its author."""
    rejection = _as(call.body, Rejection)
    decision = Decision(verdict="reject", by=call.caller.name, question=rejection.question)
    return _decide(call, decision, rejection.note)


def _decide(call: Call, decision: Decision, note: str) -> HandlerAnswer:
    """200 if the task has accepted the decision; 202 if it was sent, but the task has not answered yet."""
    view, accepted = call.service.decide(call.task_id, decision, note)
    return HandlerAnswer(200 if accepted else 202, view)


def terminate_task(call: Call) -> HandlerAnswer:
    """Ends a task for good."""
    return HandlerAnswer(200, call.service.terminate(call.task_id, _as(call.body, Termination).reason))


def rerun_task(call: Call) -> HandlerAnswer:
    """Restarts a task from its ticket."""
    return HandlerAnswer(200, call.service.rerun(call.task_id))
