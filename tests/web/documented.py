"""A client that checks every answer against the served OpenAPI document."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.ledgers import FakeRecords
from tests.web.fakes import FakeTaskService, secret

JsonObject = dict[str, Any]


class DocumentedClient:
    """Sends requests with a token and checks each answer. `seen` collects the operations and statuses that occurred."""

    def __init__(self, app: Flask, service: FakeTaskService, records: FakeRecords) -> None:
        self.service = service
        self.records = records
        self.seen: set[tuple[str, int]] = set()
        self._client: FlaskClient = app.test_client()
        self.document: JsonObject = json.loads(self._client.get("/openapi.json").data)

    def use(self, app: Flask) -> None:
        """Sends further requests to another app, and checks them against the first app's document."""
        self._client = app.test_client()

    def call(
        self, method: str, path: str, *, who: str | None = "root", body: Any = None, **options: Any
    ) -> TestResponse:
        """Sends one request with the token named `who`, None for none. `body` is sent as JSON."""
        headers = dict(options.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {secret(who)}"
        if body is not None:
            options["json"] = body
        answer = self._client.open(path, method=method, headers=headers, **options)
        self._check(method, path, answer)
        return answer

    def _check(self, method: str, path: str, answer: TestResponse) -> None:
        operation = self._operation(method, path.partition("?")[0])
        if operation is None:
            assert answer.status_code in (404, 405), f"{method} {path} is served but not documented"
            self.validate({"$ref": "#/components/schemas/Problem"}, json.loads(answer.data))
            return
        name, responses = operation["operationId"], operation["responses"]
        assert str(answer.status_code) in responses, f"{name} answered {answer.status_code}, not documented"
        documented = responses[str(answer.status_code)]
        assert [answer.content_type] == list(documented["content"])
        body = answer.text if answer.mimetype == "text/plain" else json.loads(answer.data)
        self.validate(documented["content"][answer.content_type]["schema"], body)
        assert set(documented.get("headers", {})) <= set(answer.headers.keys())
        self.seen.add((name, answer.status_code))

    def _operation(self, method: str, path: str) -> JsonObject | None:
        for template, methods in self.document["paths"].items():
            pattern = re.sub(r"\{\w+\}", "[^/]+", template)
            if re.fullmatch(pattern, path) and method.lower() in methods:
                operation: JsonObject = methods[method.lower()]
                return operation
        return None

    def validate(self, schema: JsonObject, value: Any) -> None:
        """Raises jsonschema's ValidationError if `value` does not match `schema` of the document."""
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)


def ticket_body(ticket_id: str = "T-1", tenant: str = "acme", **changes: Any) -> JsonObject:
    """The JSON of a valid ticket."""
    return {"tenant": tenant, "ticket_id": ticket_id, "customer_id": "C-1", "text": "it broke"} | changes
