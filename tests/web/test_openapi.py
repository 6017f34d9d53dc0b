"""The OpenAPI document is valid and complete, and every documented answer occurs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import jsonschema
import pytest
from flask import Flask

from app.domain.errors import SystemUnavailable
from app.web.api.route_table import ROUTES, Route, build_document
from app.web.factory import MAX_BODY_BYTES, create_app
from tests.records import task_record
from tests.web.documented import DocumentedClient, ticket_body
from tests.web.fakes import FakeVitals, make_access, make_ledger, make_ticket

DOCUMENT = build_document(ROUTES, "1.2.3")
BY_NAME = {route.name: route for route in ROUTES}
TASK = "acme:T-1"
# The body with which a route with required fields succeeds.
BODIES: dict[str, dict[str, Any]] = {
    "submit": ticket_body(),
    "terminate_task": {"reason": "duplicate"},
    "reconcile_bill": {"rows": []},
}
NEEDED_STATE: dict[str, str] = {
    "resume_task": "paused",
    "rerun_task": "ended",
    "approve_task": "waiting",
    "reject_task": "waiting",
}

# The rules of OpenAPI 3.1 for the parts that this document has.
META: dict[str, Any] = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components"],
    "additionalProperties": False,
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {k: {"type": "string"} for k in ("title", "version", "description")},
            "additionalProperties": False,
        },
        "paths": {
            "type": "object",
            "patternProperties": {
                "^/": {"additionalProperties": False, "patternProperties": {"^(get|post)$": {"$ref": "#/$defs/op"}}}
            },
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "schemas": {"propertyNames": {"pattern": r"^[a-zA-Z0-9._-]+$"}},
                "securitySchemes": {
                    "additionalProperties": {
                        "required": ["type", "scheme"],
                        "properties": {"type": {"const": "http"}, "scheme": {"const": "bearer"}},
                    }
                },
            },
        },
    },
    "$defs": {
        "op": {
            "type": "object",
            "required": ["operationId", "responses", "security", "summary"],
            "additionalProperties": False,
            "properties": {
                "operationId": {"type": "string", "pattern": "^[a-z_]+$"},
                "summary": {"type": "string"},
                "description": {"type": "string"},
                "security": {"type": "array", "items": {"type": "object"}},
                "parameters": {"type": "array", "items": {"$ref": "#/$defs/parameter"}},
                "requestBody": {
                    "type": "object",
                    "required": ["content", "required"],
                    "properties": {"content": {"$ref": "#/$defs/content"}, "required": {"type": "boolean"}},
                    "additionalProperties": False,
                },
                "responses": {
                    "type": "object",
                    "minProperties": 1,
                    "patternProperties": {"^[1-5][0-9]{2}$": {"$ref": "#/$defs/response"}},
                    "additionalProperties": False,
                },
            },
        },
        "parameter": {
            "type": "object",
            "required": ["name", "in", "required", "schema"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string"},
                "in": {"enum": ["path", "query"]},
                "required": {"type": "boolean"},
                "schema": {"type": "object"},
            },
            "if": {"properties": {"in": {"const": "path"}}},
            "then": {"properties": {"required": {"const": True}}},
        },
        "content": {
            "type": "object",
            "additionalProperties": {"type": "object", "required": ["schema"], "additionalProperties": True},
        },
        "response": {
            "type": "object",
            "required": ["description", "content"],
            "additionalProperties": False,
            "properties": {
                "description": {"type": "string", "minLength": 1},
                "content": {"$ref": "#/$defs/content"},
                "headers": {"type": "object", "additionalProperties": {"required": ["schema"]}},
            },
        },
    },
}


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from nodes(part)


def test_the_document_has_the_form_of_openapi_3_1() -> None:
    jsonschema.Draft202012Validator.check_schema(META)
    jsonschema.Draft202012Validator(META).validate(DOCUMENT)
    names = [op["operationId"] for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len(set(names)) == len(names)


def test_every_schema_is_valid_and_every_reference_resolves() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    used = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    assert used == {f"#/components/schemas/{name}" for name in schemas}
    for node in [*schemas.values(), *(n["schema"] for n in nodes(DOCUMENT["paths"]) if "schema" in n)]:
        jsonschema.Draft202012Validator.check_schema(node)


def test_flask_serves_exactly_the_documented_routes(flask_app: Flask) -> None:
    served = {
        (rule.rule.replace("<task_id>", "{task_id}"), method)
        for rule in flask_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
    }
    documented = {(path, m.upper()) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert served == documented


def test_the_served_document_is_the_built_one(client: DocumentedClient) -> None:
    assert client.document == DOCUMENT
    assert client.call("GET", "/openapi.json", who=None).json == DOCUMENT


def succeed(client: DocumentedClient, route: Route, status: int) -> None:
    """Calls the route with an existing task in the state that the route needs."""
    if route.on_task or status == 200:
        client.service.submit(make_ticket(subject="", text="it broke"))
        client.records.records[TASK] = task_record()
    state = NEEDED_STATE.get(route.name)
    if state == "paused":
        client.service.pause(TASK)
    if state == "waiting":
        client.service.wait_for_a_person(TASK)
    if state == "ended":
        client.service.terminate(TASK, "so that it can be restarted")
    send(client, route)


def outcome_unknown(client: DocumentedClient, route: Route, status: int) -> None:
    client.service.slow = True
    succeed(client, route, status)


def no_token(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route, who=None)


def wrong_role(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route, who="acme-read" if route.method == "POST" else "acme-submit")


def no_task(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route)


def wrong_state(client: DocumentedClient, route: Route, _: int) -> None:
    if route.on_task:
        client.service.submit(make_ticket())
        if route.name != "rerun_task":  # it restarts ended tasks
            client.service.terminate(TASK, "so that nothing is left to do")
    else:
        client.service.submit(make_ticket(text="another text"))
    send(client, route)


def bad_json(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route, data=b"\xff" if route.uploads else b"{", content_type="application/json")


def too_large(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route, data=b" " * ((route.max_bytes or MAX_BODY_BYTES) + 1), content_type="application/json")


def wrong_type(client: DocumentedClient, route: Route, _: int) -> None:
    send(client, route, data=b"reason=x", content_type="application/x-www-form-urlencoded")


def bad_fields(client: DocumentedClient, route: Route, _: int) -> None:
    if route.query:
        client.call("GET", f"{route.path}?limit=0")
    else:
        send(client, route, body={"by": "somebody else"})


def broken(client: DocumentedClient, route: Route, _: int) -> None:
    records = client.records
    client.service.failure = records.failure = RuntimeError("broken on purpose")
    # A route without a token does not use the service; a version that is not a string breaks it.
    no_text = cast(Any, object())
    client.use(create_app(client.service, make_access(), version=no_text, ledger=make_ledger(records)))
    send(client, route)


def unreachable(client: DocumentedClient, route: Route, _: int) -> None:
    if route.role is None:
        vitals = FakeVitals()
        vitals.stalled = "the loop has not moved"
        client.use(create_app(client.service, make_access(), version="1", vitals=vitals))
    client.service.failure = client.records.failure = SystemUnavailable("Dapr does not answer; start it")
    send(client, route)


def send(client: DocumentedClient, route: Route, **options: Any) -> None:
    options = {"who": "root" if route.role else None, **options}
    if route.name in BODIES and "data" not in options:
        options.setdefault("body", BODIES[route.name])
    client.call(route.method, route.path.replace("{task_id}", TASK), **options)


WAYS: dict[int, Callable[[DocumentedClient, Route, int], None]] = {
    200: succeed,
    201: succeed,
    202: outcome_unknown,
    400: bad_json,
    401: no_token,
    403: wrong_role,
    404: no_task,
    409: wrong_state,
    413: too_large,
    415: wrong_type,
    422: bad_fields,
    500: broken,
    503: unreachable,
}
DOCUMENTED = [
    (operation["operationId"], int(status))
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
    for status in operation["responses"]
]


@pytest.mark.parametrize(("name", "status"), DOCUMENTED)
def test_every_documented_answer_occurs(client: DocumentedClient, name: str, status: int) -> None:
    client.seen.clear()
    WAYS[status](client, BY_NAME[name], status)
    assert client.seen == {(name, status)}
