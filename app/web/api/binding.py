"""Binds the route table to Flask: who calls, for which tenant, with what; then handler and answer."""

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

# Request bodies and queries into models. A fault names the field and the rule, never the value.

MAX_FIELD_PROBLEMS = 20
MAX_KEY_CHARACTERS = 40

M = TypeVar("M", bound=BaseModel)


def read_body(request: Request, model: type[M], *, required: bool) -> M:
    """The body as `model`. An empty body is `{}` where it is not required.

    Raises BadRequest: 415 for another content type, 400 for what is no JSON, 422 for wrong fields; and
    Werkzeug's 413 for a body above the app's limit.
    """
    raw = request.get_data(cache=False)
    if not raw and not required:
        return model()
    if request.mimetype != "application/json":
        raise WrongMediaType("the body must be JSON; send it with `Content-Type: application/json`")
    _refuse_twins(raw)
    try:
        return model.model_validate_json(storable_json(raw))
    except ValidationError as error:
        raise _refusal(error, "body") from None


def read_text(request: Request, content_types: Sequence[str]) -> str:
    """The body as it is. Raises BadRequest: 415 for another content type, 400 for no UTF-8; and Werkzeug's 413."""
    raw = request.get_data(cache=False)
    if request.mimetype not in content_types:
        named = " or ".join(f"`Content-Type: {content_type}`" for content_type in content_types)
        raise WrongMediaType(f"the body must be sent with {named}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotText("the body is no UTF-8 text; send it as UTF-8") from None


def _refuse_twins(raw: bytes) -> None:
    """Two values under one key: readers differ in which one they take, so neither is taken."""

    def check(pairs: list[tuple[str, object]]) -> None:
        if len({key for key, _ in pairs}) < len(pairs):
            raise _not_json("a key stands twice in one object")

    try:
        json.loads(raw, object_pairs_hook=check)
    except (ValueError, RecursionError):
        raise _not_json("it cannot be parsed as UTF-8 JSON") from None


def _not_json(reason: str) -> NotJson:
    return NotJson(f"the body is not usable JSON: {reason}")


def read_query(request: Request, model: type[M]) -> M:
    """The query string as `model`. Raises BadRequest (422), also for a parameter that is given twice."""
    given = request.args.to_dict(flat=False)
    twins = [key for key, values in given.items() if len(values) > 1]
    if twins:
        raise _unacceptable([_twin(key) for key in twins], "query")
    try:
        return model.model_validate_strings({key: values[0] for key, values in given.items()})
    except ValidationError as error:
        raise _refusal(error, "query") from None


def _twin(key: str) -> FieldProblem:
    return FieldProblem(field=_known_shape(key), detail="is given more than once", code="repeated")


def _refusal(error: ValidationError, part: str) -> NotJson | WrongFields:
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    if any(fault["type"] == "json_invalid" for fault in faults):
        return _not_json("it cannot be parsed as UTF-8 JSON")
    return _unacceptable([field_problem(fault) for fault in faults], part)


def _unacceptable(problems: Iterable[FieldProblem], part: str) -> WrongFields:
    listed = tuple(problems)[:MAX_FIELD_PROBLEMS]
    names = ", ".join(dict.fromkeys(problem.field for problem in listed))
    return WrongFields(
        f"the {part} has fields that cannot be accepted: {names}; correct them and send it again", listed
    )


def field_problem(fault: ErrorDetails) -> FieldProblem:
    """One of pydantic's faults for a reader: dotted field, rule, code."""
    field = ".".join(_known_shape(str(part)) for part in fault["loc"])
    return FieldProblem(field=field or "(whole)", detail=fault["msg"], code=fault["type"])


def _known_shape(key: str) -> str:
    """A key as it was sent, unless it could be text: then it is not repeated."""
    plain = key.isascii() and (key.isidentifier() or key.isdigit())
    return key if plain and len(key) <= MAX_KEY_CHARACTERS else "(unknown key)"


# The forms of TenantId and TicketId in app.domain.models, joined by the colon that no tenant holds.
TASK_ID = re.compile(r"(?P<tenant>[a-z0-9][a-z0-9-]{0,30}):[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ApiEdge:
    """What every route shares."""

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
    """The API as a blueprint for `/`."""
    blueprint = Blueprint("api", __name__)
    edge = ApiEdge(service, access, ledger, vitals, build_document(routes, version, front.prefix), version, front)
    for route in routes:
        blueprint.add_url_rule(
            route.path.replace("{task_id}", "<task_id>"),
            endpoint=route.name,
            view_func=_view(route, edge),
            methods=[route.method],
            provide_automatic_options=False,  # no CORS, and nothing that the document does not name
        )
    return blueprint


def _view(route: Route, edge: ApiEdge) -> Callable[..., Response]:
    def view(task_id: str = "") -> Response:
        principal = _let_in(route, edge, task_id)
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


def _let_in(route: Route, edge: ApiEdge, task_id: str) -> Principal | None:
    """The caller. A task of another tenant does not exist for it, whatever its roles are."""
    if route.role is None:
        return None
    principal = edge.access.authenticate(request.headers.get("Authorization"))
    if route.on_task:
        known = TASK_ID.fullmatch(task_id)
        if not known or not principal.sees(known["tenant"]):
            raise TaskNotFound(f"no task {task_id!r} for token {principal.name!r}; list the tasks there are")
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
        raise RuntimeError(f"route {route.name} answered {answer.status}, which its table does not name")
    headers = {name: front.path(value) if name == "Location" else value for name, value in answer.headers.items()}
    return Response(_bytes(answer.body), status=answer.status, headers=headers, content_type=route.content_type)


def _bytes(body: BaseModel | dict[str, Any] | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body.model_dump_json() if isinstance(body, BaseModel) else json.dumps(body)).encode()
