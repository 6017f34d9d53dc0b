"""Binds the route table to Flask: who calls, for which tenant, with what; then handler and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request
from pydantic import BaseModel

from app.domain.errors import AccessDenied, TaskNotFound
from app.domain.models import Decision
from app.tasks.access import Access, Principal
from app.web.api.handlers import Answer, Books, Call, Desk, Vitals
from app.web.api.openapi import build_document
from app.web.api.request_reading import read_body, read_query, read_text
from app.web.api.route_table import ROUTES, Route
from app.web.front import Front

# The forms of TenantId and TicketId in app.domain.models, joined by the colon that no tenant holds.
TASK_ID = re.compile(r"(?P<tenant>[a-z0-9][a-z0-9-]{0,30}):[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Edge:
    """What every route shares."""

    desk: Desk
    access: Access
    books: Books | None
    vitals: Vitals | None
    document: dict[str, Any]
    version: str
    front: Front


def make_blueprint(
    desk: Desk,
    access: Access,
    books: Books | None,
    version: str,
    front: Front,
    vitals: Vitals | None = None,
    routes: Sequence[Route] = ROUTES,
) -> Blueprint:
    """The API as a blueprint for `/`."""
    blueprint = Blueprint("api", __name__)
    edge = Edge(desk, access, books, vitals, build_document(routes, version, front.prefix), version, front)
    for route in routes:
        blueprint.add_url_rule(
            route.path.replace("{task_id}", "<task_id>"),
            endpoint=route.name,
            view_func=_view(route, edge),
            methods=[route.method],
            provide_automatic_options=False,  # no CORS, and nothing that the document does not name
        )
    return blueprint


def _view(route: Route, edge: Edge) -> Callable[..., Response]:
    def view(task_id: str = "") -> Response:
        principal = _let_in(route, edge, task_id)
        if route.max_bytes is not None:
            request.max_content_length = route.max_bytes
        call = Call(
            desk=edge.desk,
            document=edge.document,
            version=edge.version,
            principal=principal,
            task_id=task_id,
            body=read_body(request, route.body, required=route.body_required) if route.body else None,
            query=read_query(request, route.query) if route.query else None,
            text=read_text(request, route.uploads) if route.uploads else "",
            books=edge.books,
            vitals=edge.vitals,
        )
        return _respond(route, route.handler(call), edge.front)

    return view


def _let_in(route: Route, edge: Edge, task_id: str) -> Principal | None:
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
                edge.desk.denied(task_id, Decision(verdict=route.decides, by=principal.name))
        raise
    return principal


def _respond(route: Route, answer: Answer, front: Front) -> Response:
    if answer.status not in route.answers:
        raise RuntimeError(f"route {route.name} answered {answer.status}, which its table does not name")
    headers = {name: front.path(value) if name == "Location" else value for name, value in answer.headers.items()}
    return Response(_bytes(answer.body), status=answer.status, headers=headers, content_type=route.content_type)


def _bytes(body: BaseModel | dict[str, Any] | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body.model_dump_json() if isinstance(body, BaseModel) else json.dumps(body)).encode()
