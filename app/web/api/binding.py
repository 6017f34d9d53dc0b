"""Binds the route table to Flask: authenticates the caller, parses body and query, calls the handler, responds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Request, Response, request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.domain.errors import AccessDenied, TaskNotFound
from app.domain.models import Decision
from app.domain.texts import storable_json
from app.tasks.access import Access, Principal
from app.web.api.handlers import Call, HandlerAnswer, LedgerApi, Probes, TasksApi
from app.web.api.messages import FieldProblem
from app.web.api.problems import NotJson, NotText, WrongFields, WrongMediaType
from app.web.api.route_table import ROUTES, Route, build_document
from app.web.front import Front

MAX_FIELD_PROBLEMS = 20
MAX_KEY_CHARACTERS = 40

M = TypeVar("M", bound=BaseModel)


def read_body(request: Request, model: type[M], *, required: bool) -> M:
    """The JSON body as `model`. If it is not `required`, an empty body means `{}`.

    Raises BadRequest: 415 for another content type, 400 for malformed JSON, 422 for wrong fields; and Werkzeug's 413
    for a body above the app's limit. Its messages name fields and rules, never values.
    """
    raw = request.get_data(cache=False)
    if not raw and not required:
        return model()
    if request.mimetype != "application/json":
        raise WrongMediaType("the body must be JSON; send it with `Content-Type: application/json`")
    _refuse_repeated_keys(raw)
    try:
        return model.model_validate_json(storable_json(raw))
    except ValidationError as error:
        raise _bad_request(error, "body") from None


def read_text(request: Request, content_types: Sequence[str]) -> str:
    """The body as text. Raises BadRequest: 415 for another content type, 400 if it is not UTF-8; and Werkzeug's 413."""
    raw = request.get_data(cache=False)
    if request.mimetype not in content_types:
        headers = " or ".join(f"`Content-Type: {content_type}`" for content_type in content_types)
        raise WrongMediaType(f"the body must be sent with {headers}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotText("the body is not UTF-8 text; send it as UTF-8") from None


def _refuse_repeated_keys(raw: bytes) -> None:
    """Refuses an object with the same key twice, because parsers differ in which of the values they use."""

    def check(pairs: list[tuple[str, object]]) -> None:
        if len({key for key, _ in pairs}) < len(pairs):
            raise _not_json("an object has the same key twice")

    try:
        json.loads(raw, object_pairs_hook=check)
    except (ValueError, RecursionError):
        raise _not_json("it cannot be parsed as UTF-8 JSON") from None


def _not_json(reason: str) -> NotJson:
    return NotJson(f"the body is not usable JSON: {reason}")


def read_query(request: Request, model: type[M]) -> M:
    """The query string as `model`. Raises BadRequest (422), also for a repeated parameter."""
    parameters = request.args.to_dict(flat=False)
    repeated = [key for key, values in parameters.items() if len(values) > 1]
    if repeated:
        detail = "is given more than once"
        raise _wrong_fields(
            [FieldProblem(field=_safe_key(key), detail=detail, code="repeated") for key in repeated], "query"
        )
    try:
        return model.model_validate_strings({key: values[0] for key, values in parameters.items()})
    except ValidationError as error:
        raise _bad_request(error, "query") from None


def _bad_request(error: ValidationError, part: str) -> NotJson | WrongFields:
    details = error.errors(include_input=False, include_url=False, include_context=False)
    if any(detail["type"] == "json_invalid" for detail in details):
        return _not_json("it cannot be parsed as UTF-8 JSON")
    return _wrong_fields([field_problem(detail) for detail in details], part)


def _wrong_fields(problems: Iterable[FieldProblem], part: str) -> WrongFields:
    problems = tuple(problems)[:MAX_FIELD_PROBLEMS]
    names = ", ".join(dict.fromkeys(problem.field for problem in problems))
    return WrongFields(
        f"the {part} has fields that cannot be accepted: {names}; correct them and send it again", problems
    )


def field_problem(detail: ErrorDetails) -> FieldProblem:
    """One of pydantic's error details as the API reports it: dotted field, message, code."""
    field = ".".join(_safe_key(str(part)) for part in detail["loc"])
    return FieldProblem(field=field or "(whole)", detail=detail["msg"], code=detail["type"])


def _safe_key(key: str) -> str:
    """`key` if it looks like a field's name. Anything else may be a customer's text, and is not repeated."""
    plain = key.isascii() and (key.isidentifier() or key.isdigit())
    return key if plain and len(key) <= MAX_KEY_CHARACTERS else "(unknown key)"


# TenantId and TicketId of app.domain.models, joined by a colon, which a tenant's id cannot contain.
TASK_ID = re.compile(r"(?P<tenant>[a-z0-9][a-z0-9-]{0,30}):[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ApiEdge:
    """The objects that all routes share."""

    service: TasksApi
    access: Access
    ledger: LedgerApi | None
    vitals: Probes | None
    document: dict[str, Any]
    version: str
    front: Front


def make_blueprint(
    service: TasksApi,
    access: Access,
    ledger: LedgerApi | None,
    version: str,
    front: Front,
    vitals: Probes | None = None,
    routes: Sequence[Route] = ROUTES,
) -> Blueprint:
    """The API as a blueprint at `/`."""
    blueprint = Blueprint("api", __name__)
    edge = ApiEdge(service, access, ledger, vitals, build_document(routes, version, front.prefix), version, front)
    for route in routes:
        blueprint.add_url_rule(
            route.path.replace("{task_id}", "<task_id>"),
            endpoint=route.name,
            view_func=_view(route, edge),
            methods=[route.method],
            provide_automatic_options=False,  # no CORS, and no method that the document omits
        )
    return blueprint


def _view(route: Route, edge: ApiEdge) -> Callable[..., Response]:
    def view(task_id: str = "") -> Response:
        principal = _authorize(route, edge, task_id)
        if route.max_bytes is not None:
            request.max_content_length = route.max_bytes
        call = Call(
            service=edge.service,
            document=edge.document,
            version=edge.version,
            principal=principal,
            task_id=task_id,
            body=read_body(request, route.body, required=route.body_required) if route.body else None,
            query=read_query(request, route.query) if route.query else None,
            text=read_text(request, route.uploads) if route.uploads else "",
            ledger=edge.ledger,
            vitals=edge.vitals,
        )
        return _respond(route, route.handler(call), edge.front)

    return view


def _authorize(route: Route, edge: ApiEdge, task_id: str) -> Principal | None:
    """The caller; None on a route without a token.

    Raises AccessDenied; TaskNotFound, also for a task of a tenant that the caller may not see. A decision by a caller
    without the role is noted at the task.
    """
    if route.role is None:
        return None
    principal = edge.access.authenticate(request.headers.get("Authorization"))
    if route.on_task:
        match = TASK_ID.fullmatch(task_id)
        if not match or not principal.sees(match["tenant"]):
            raise TaskNotFound(f"no task {task_id!r} for token {principal.name!r}; list the tasks to see which exist")
    try:
        principal.require(route.role)
    except AccessDenied:
        if route.decides:
            with suppress(TaskNotFound):
                edge.service.note_denied(task_id, Decision(verdict=route.decides, by=principal.name))
        raise
    return principal


def _respond(route: Route, answer: HandlerAnswer, front: Front) -> Response:
    if answer.status not in route.answers:
        raise RuntimeError(f"route {route.name} answered {answer.status}, which the route table does not list")
    headers = {name: front.path(value) if name == "Location" else value for name, value in answer.headers.items()}
    body = answer.body
    if not isinstance(body, bytes):
        body = (body.model_dump_json() if isinstance(body, BaseModel) else json.dumps(body)).encode()
    return Response(body, status=answer.status, headers=headers, content_type=route.content_type)
