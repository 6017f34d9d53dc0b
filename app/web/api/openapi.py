"""The OpenAPI 3.1 document, made from the route table and the pydantic models. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from app.web.api.messages import Problem
from app.web.api.problems import CONTENT_TYPE as PROBLEM_TYPE
from app.web.api.route_table import JSON, Route

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
        content = {each: {"schema": {} if each == JSON else {"type": "string"}} for each in route.uploads}
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
