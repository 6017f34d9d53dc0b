"""The table of the API: it registers the routes and it is the OpenAPI document, so they cannot drift.

Add a route here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.domain.models import TaskPage, TaskView, Ticket, TicketView
from app.finance.failures.failure_schemas import FailureCostView
from app.finance.reconciliation.reconciliation_schemas import ReconciliationView
from app.finance.report_schemas import ReportView
from app.ledger.reading.record_schemas import RecordView
from app.tasks.access import Role
from app.web.api import handlers
from app.web.api.handlers import Call, HandlerAnswer
from app.web.api.messages import (
    Approval,
    CostQuery,
    Health,
    Index,
    Nothing,
    PeriodQuery,
    Problem,
    Rejection,
    TaskQuery,
    Termination,
)
from app.web.api.problems import CONTENT_TYPE as PROBLEM_TYPE

JSON = "application/json"
# The text format of Prometheus, as its client library writes it.
METRICS = "text/plain; version=0.0.4; charset=utf-8"
CSV = "text/csv"
MAX_BILL_BYTES = 16 * 1024 * 1024
OPENAPI_SCHEMA = {"type": "object", "required": ["openapi", "info", "paths", "components"]}


@dataclass(frozen=True)
class Route:
    """One method at one path.

    `role` None means that no token is asked for. `body_required` False lets an empty body stand for `{}`.
    `answers` are the good statuses, `headers` what their answers carry; `refusals` are the problem statuses
    that come from the task itself. Those of the edge follow from the other fields (see `problems`).
    `content_type` is that of the good answers. `uploads` are the content types of a body that is taken as it is, up to
    `max_bytes`. `decides` is the verdict of a person's decision: who lacks the role for it has tried, which is noted.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[[Call], HandlerAnswer]
    answers: dict[int, type[BaseModel] | dict[str, Any]]
    role: Role | None = None
    body: type[BaseModel] | None = None
    body_required: bool = False
    query: type[BaseModel] | None = None
    refusals: frozenset[int] = frozenset()
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON
    uploads: tuple[str, ...] = ()
    max_bytes: int | None = None
    decides: Literal["approve", "reject"] | None = None

    @property
    def on_task(self) -> bool:
        """Whether the path names a task."""
        return "{task_id}" in self.path

    @property
    def problems(self) -> tuple[int, ...]:
        """Every problem status that this route can answer, in order."""
        found = set(self.refusals) | {500}
        if self.role is not None:
            found |= {401, 403, 503}
        if self.on_task:
            found |= {404}
        if self.body is not None or self.uploads:
            found |= {400, 413, 415, 422}
        if self.query is not None:
            found |= {422}
        return tuple(sorted(found))


def _on_task(verb: str, summary: str, role: Role, handler: Callable[[Call], HandlerAnswer], **more: Any) -> Route:
    return Route(
        method="POST",
        path=f"/tasks/{{task_id}}/{verb}",
        name=f"{verb}_task",
        summary=summary,
        handler=handler,
        role=role,
        refusals=frozenset({409}),
        **{"body": Nothing, "answers": {200: TaskView}, **more},
    )


def _decision(
    verdict: Literal["approve", "reject"], summary: str, handler: Callable[[Call], HandlerAnswer], body: type[BaseModel]
) -> Route:
    return _on_task(
        verdict,
        f"{summary}. 202 when the task has not said yet what became of it",
        Role.APPROVE,
        handler,
        body=body,
        answers={200: TaskView, 202: TaskView},
        decides=verdict,
    )


_NOT_READY = frozenset({503})

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", "index", "What this is; a browser is led to the pages", handlers.index, {200: Index}),
    Route("GET", "/healthz", "health", "Is the web process up?", handlers.health, {200: Health}),
    Route("GET", "/livez", "live", "Does the worker move?", handlers.live, {200: Health}, refusals=_NOT_READY),
    Route("GET", "/readyz", "ready", "Can work be done here now?", handlers.ready, {200: Health}, refusals=_NOT_READY),
    Route("GET", "/openapi.json", "openapi", "This document", handlers.openapi, {200: OPENAPI_SCHEMA}),
    Route(
        "POST",
        "/tasks",
        "submit",
        "Take a ticket in. The same ticket again is the same task. 202: it is kept, and its task is started later",
        handlers.submit,
        {201: TaskView, 200: TaskView, 202: TaskView},
        role=Role.SUBMIT,
        body=Ticket,
        body_required=True,
        refusals=frozenset({409}),
        headers={"Location": "The task's own address"},
    ),
    Route(
        "GET",
        "/tasks",
        "list_tasks",
        "List tasks, oldest first",
        handlers.list_tasks,
        {200: TaskPage},
        role=Role.READ,
        query=TaskQuery,
    ),
    Route(
        "GET",
        "/tasks/{task_id}",
        "show_task",
        "Show a task",
        handlers.show_task,
        {200: TaskView},
        role=Role.READ,
    ),
    Route(
        "GET",
        "/tasks/{task_id}/ticket",
        "show_ticket",
        "Show the ticket of a task: what the customer wrote, redacted",
        handlers.show_ticket,
        {200: TicketView},
        role=Role.READ,
    ),
    Route(
        "GET",
        "/tasks/{task_id}/record",
        "show_record",
        "Show the record of a task: steps, model calls, tokens, money",
        handlers.show_record,
        {200: RecordView},
        role=Role.READ,
    ),
    Route(
        "GET",
        "/cost/report",
        "report_costs",
        "Sum what was charged, by any dimensions; a token bound to tenants sees these",
        handlers.report_costs,
        {200: ReportView},
        role=Role.READ,
        query=CostQuery,
    ),
    Route(
        "GET",
        "/cost/failures",
        "failure_costs",
        "What failures cost, and what they would have cost a runner that starts again from zero",
        handlers.failure_costs,
        {200: FailureCostView},
        role=Role.READ,
        query=PeriodQuery,
    ),
    Route(
        "POST",
        "/cost/reconcile",
        "reconcile_bill",
        "Compare the record with a provider's bill, for a token of all tenants",
        handlers.reconcile_bill,
        {200: ReconciliationView},
        role=Role.ADMIN,
        uploads=(JSON, CSV),
        max_bytes=MAX_BILL_BYTES,
    ),
    Route(
        "GET",
        "/metrics",
        "show_metrics",
        "Metrics for Prometheus, for a token of all tenants",
        handlers.show_metrics,
        {200: {"type": "string"}},
        role=Role.READ,
        content_type=METRICS,
    ),
    _on_task("pause", "Hold a running task", Role.ADMIN, handlers.pause_task),
    _on_task("resume", "Let a paused or parked task go on", Role.ADMIN, handlers.resume_task),
    _on_task(
        "rerun",
        "Begin a task again from its ticket that the workflow engine has lost, or that failed or was terminated",
        Role.ADMIN,
        handlers.rerun_task,
    ),
    _decision("approve", "Approve what waits", handlers.approve_task, Approval),
    _decision("reject", "Reject what waits", handlers.reject_task, Rejection),
    _on_task(
        "terminate",
        "End a task for good",
        Role.ADMIN,
        handlers.terminate_task,
        body=Termination,
        body_required=True,
    ),
)


# The OpenAPI 3.1 document, made from the route table and the pydantic models.

JsonObject = dict[str, Any]
Schemas = dict[tuple[type[BaseModel], JsonSchemaMode], JsonObject]

READ: Literal["validation"] = "validation"
WRITE: Literal["serialization"] = "serialization"

DESCRIPTION = (
    "Works support tickets as durable tasks. Every error is application/problem+json (RFC 9457), also for an "
    "address or a method that is not listed here. A task of a tenant that the token is not bound to does not "
    "exist for it: 404. Money is a decimal string, time is ISO 8601 in UTC."
)
PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate"},
    503: {"Retry-After": "Seconds after which the same request may succeed"},
}


def build_document(routes: Sequence[Route], version: str, prefix: str = "") -> JsonObject:
    """The whole document; the same routes and version give the same document. `prefix` stands before every path, where
    a reverse proxy has put one."""
    schemas, components = _schemas(routes)
    paths: JsonObject = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    queries = {route.query.__name__ for route in routes if route.query}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Refund agent", "version": version, "description": DESCRIPTION},
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[Schemas, JsonObject]:
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, WRITE)]
    for route in routes:
        pairs += [(model, READ) for model in (route.body, route.query) if model]
        pairs += [(model, WRITE) for model in route.answers.values() if isinstance(model, type)]
    unique = list(dict.fromkeys(pairs))
    references, definitions = models_json_schema(unique, ref_template="#/components/schemas/{model}")
    return {key: references[key] for key in unique}, definitions.get("$defs", {})


def _operation(route: Route, schemas: Schemas, components: JsonObject) -> JsonObject:
    operation: JsonObject = {
        "operationId": route.name,
        "summary": route.summary,
        "security": [{"token": []}] if route.role else [],
        "responses": _responses(route, schemas),
    }
    if route.role:
        operation["description"] = f"Needs the role `{route.role.value}` (or `admin`)."
    if parameters := _parameters(route, components):
        operation["parameters"] = parameters
    if route.uploads:
        content = {upload: {"schema": {} if upload == JSON else {"type": "string"}} for upload in route.uploads}
        operation["requestBody"] = {"required": True, "content": content}
    if route.body:
        content = {"application/json": {"schema": schemas[route.body, READ]}}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    return operation


def _parameters(route: Route, components: JsonObject) -> list[JsonObject]:
    found: list[JsonObject] = []
    if route.on_task:
        found.append({"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}})
    if route.query:
        model = components[route.query.__name__]
        needed = model.get("required", [])
        for name, schema in model["properties"].items():
            found.append({"name": name, "in": "query", "required": name in needed, "schema": _bare(schema)})
    return found


def _bare(schema: JsonObject) -> JsonObject:
    """A parameter's schema: it is left out, never null."""
    bare = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    kinds = [kind for kind in bare.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del bare["anyOf"]
        bare |= kinds[0]
    return bare


def _responses(route: Route, schemas: Schemas) -> JsonObject:
    found = {
        str(status): _response(status, route.content_type, _answer_schema(model, schemas), route.headers)
        for status, model in route.answers.items()
    }
    for status in route.problems:
        headers = PROBLEM_HEADERS.get(status, {})
        found[str(status)] = _response(status, PROBLEM_TYPE, schemas[Problem, WRITE], headers)
    return found


def _answer_schema(model: type[BaseModel] | JsonObject, schemas: Schemas) -> JsonObject:
    return schemas[model, WRITE] if isinstance(model, type) else model


def _response(status: int, content_type: str, schema: JsonObject, headers: dict[str, str]) -> JsonObject:
    response: JsonObject = {
        "description": HTTPStatus(status).phrase,
        "content": {content_type: {"schema": schema}},
    }
    if headers:
        response["headers"] = {
            name: {"description": text, "required": True, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return response
