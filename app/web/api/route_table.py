"""The route table, from which both the Flask routes and the OpenAPI document are made. Add a route only here."""

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
# The text format that prometheus_client writes.
METRICS = "text/plain; version=0.0.4; charset=utf-8"
CSV = "text/csv"
MAX_BILL_BYTES = 16 * 1024 * 1024
OPENAPI_SCHEMA = {"type": "object", "required": ["openapi", "info", "paths", "components"]}


@dataclass(frozen=True)
class Route:
    """One method at one path.

    `role` None: no token is needed. `body_required` False: an empty body means `{}`. `answers` maps each status of
    success to its model or schema, `headers` describes their headers, `content_type` is their content type.
    `refusals` are the problem statuses that the handler itself may cause; `problems` adds those that follow from the
    other fields. `uploads` are the content types of a body that is passed on as text, up to `max_bytes`. `decides` is
    the verdict of a route that decides about a refund: an attempt without the role is noted at the task.
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
        """All problem statuses of this route, in order."""
        statuses = set(self.refusals) | {500}
        if self.role is not None:
            statuses |= {401, 403, 503}
        if self.on_task:
            statuses |= {404}
        if self.body is not None or self.uploads:
            statuses |= {400, 413, 415, 422}
        if self.query is not None:
            statuses |= {422}
        return tuple(sorted(statuses))


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
        f"{summary}. 202: the decision was sent, but the task has not answered yet",
        Role.APPROVE,
        handler,
        body=body,
        answers={200: TaskView, 202: TaskView},
        decides=verdict,
    )


_NOT_READY = frozenset({503})

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", "index", "Entry point; browsers are redirected to the pages", handlers.index, {200: Index}),
    Route("GET", "/healthz", "health", "Check that the web process answers", handlers.health, {200: Health}),
    Route(
        "GET",
        "/livez",
        "live",
        "Check that the worker's event loop runs",
        handlers.live,
        {200: Health},
        refusals=_NOT_READY,
    ),
    Route(
        "GET",
        "/readyz",
        "ready",
        "Check that this process can do work now",
        handlers.ready,
        {200: Health},
        refusals=_NOT_READY,
    ),
    Route("GET", "/openapi.json", "openapi", "This document", handlers.openapi, {200: OPENAPI_SCHEMA}),
    Route(
        "POST",
        "/tasks",
        "submit",
        "Submit a ticket. The same ticket again gives the same task. 202: it is stored, and its task starts later",
        handlers.submit,
        {201: TaskView, 200: TaskView, 202: TaskView},
        role=Role.SUBMIT,
        body=Ticket,
        body_required=True,
        refusals=frozenset({409}),
        headers={"Location": "The task's address"},
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
        "Show the ticket of a task: the customer's text, redacted",
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
        "Sum the charges by any dimensions; a token that is bound to tenants sees only theirs",
        handlers.report_costs,
        {200: ReportView},
        role=Role.READ,
        query=CostQuery,
    ),
    Route(
        "GET",
        "/cost/failures",
        "failure_costs",
        "Show what failures cost, and what restarting each task from zero would have cost",
        handlers.failure_costs,
        {200: FailureCostView},
        role=Role.READ,
        query=PeriodQuery,
    ),
    Route(
        "POST",
        "/cost/reconcile",
        "reconcile_bill",
        "Compare the record with a provider's bill; needs a token of all tenants",
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
        "Metrics for Prometheus; needs a token of all tenants",
        handlers.show_metrics,
        {200: {"type": "string"}},
        role=Role.READ,
        content_type=METRICS,
    ),
    _on_task("pause", "Pause a running task", Role.ADMIN, handlers.pause_task),
    _on_task("resume", "Continue a paused or parked task", Role.ADMIN, handlers.resume_task),
    _on_task(
        "rerun",
        "Restart a task from its ticket, after it failed, was terminated or was lost by the workflow engine",
        Role.ADMIN,
        handlers.rerun_task,
    ),
    _decision("approve", "Approve a refund for a waiting task", handlers.approve_task, Approval),
    _decision("reject", "Reject a refund for a waiting task", handlers.reject_task, Rejection),
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
    "Works on support tickets as durable tasks. Every error is application/problem+json (RFC 9457), also for a "
    "path or a method that is not listed here. A token that is bound to tenants gets 404 for tasks of other tenants. "
    "Money is a decimal string, time is ISO 8601 in UTC."
)
PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "How to authenticate"},
    503: {"Retry-After": "Seconds after which the same request may succeed"},
}


def build_document(routes: Sequence[Route], version: str, prefix: str = "") -> JsonObject:
    """The OpenAPI document; equal arguments give equal documents. `prefix` is the path that a reverse proxy adds."""
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
    parameters: list[JsonObject] = []
    if route.on_task:
        parameters.append({"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}})
    if route.query:
        model = components[route.query.__name__]
        required = model.get("required", [])
        for name, schema in model["properties"].items():
            schema = _without_null(schema)
            parameters.append({"name": name, "in": "query", "required": name in required, "schema": schema})
    return parameters


def _without_null(schema: JsonObject) -> JsonObject:
    """A parameter's schema without null: an optional parameter is omitted, never null."""
    result = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    types = [option for option in result.get("anyOf", []) if option != {"type": "null"}]
    if len(types) == 1:
        del result["anyOf"]
        result |= types[0]
    return result


def _responses(route: Route, schemas: Schemas) -> JsonObject:
    responses: JsonObject = {}
    for status, model in route.answers.items():
        schema = schemas[model, WRITE] if isinstance(model, type) else model
        responses[str(status)] = _response(status, route.content_type, schema, route.headers)
    for status in route.problems:
        headers = PROBLEM_HEADERS.get(status, {})
        responses[str(status)] = _response(status, PROBLEM_TYPE, schemas[Problem, WRITE], headers)
    return responses


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
