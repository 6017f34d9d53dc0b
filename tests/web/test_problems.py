"""Errors are problem documents without customers' texts and internals."""

from __future__ import annotations

import json
import logging

import pytest

from app.domain.errors import ConfigurationError, SystemUnavailable
from app.web.api.problems import CONTENT_TYPE, problem_type
from tests.web.documented import DocumentedClient, ticket_body
from tests.web.fakes import FakeTaskService, make_ticket

PRIVATE = "my card is 4111 1111 1111 1111, I am a@example.org"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/tasks/", 404),
        ("GET", "/tasks//acme:T-1", 404),
        ("GET", "/tasks/acme:T-1/explode", 404),
        ("GET", "/static/x", 404),
        ("DELETE", "/tasks", 405),
        ("OPTIONS", "/tasks", 405),
        ("PUT", "/tasks/acme:T-1", 405),
        ("GET", "/tasks/acme:T-1/pause", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_unknown_addresses_and_methods_are_problems(
    client: DocumentedClient, method: str, path: str, status: int
) -> None:
    answer = client.call(method, path)
    assert (answer.status_code, answer.content_type) == (status, CONTENT_TYPE)
    assert ("Allow" in answer.headers) == (status == 405)


def test_the_allow_header_is_right(client: DocumentedClient) -> None:
    assert client.call("DELETE", "/tasks").headers["Allow"] == "GET, HEAD, POST"


def test_a_problem_has_type_title_status_detail_and_instance(client: DocumentedClient) -> None:
    assert client.call("GET", "/tasks/acme:T-9").json == {
        "type": "urn:refund-agent:problem:task-not-found",
        "code": "task_not_found",
        "title": "Task not found",
        "status": 404,
        "detail": "there is no task 'acme:T-9' for this token; `GET /tasks` lists the tasks that it may see",
        "instance": "/tasks/acme:T-9",
    }


def test_a_problems_type_follows_from_its_code() -> None:
    assert problem_type("not_waiting") == "urn:refund-agent:problem:not-waiting"


def test_without_a_token_the_challenge_is_plain(client: DocumentedClient) -> None:
    answer = client.call("GET", "/tasks", who=None)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="refund-agent"'


def test_a_wrong_token_is_refused_and_not_repeated(client: DocumentedClient) -> None:
    answer = client.call("GET", "/tasks", who="nobody")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="refund-agent", error="invalid_token"'
    assert "nobody-" not in answer.text


def test_an_unreachable_system_gives_retry_after(client: DocumentedClient, service: FakeTaskService) -> None:
    service.failure = SystemUnavailable("orders does not answer; try again")
    answer = client.call("GET", "/tasks")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "orders does not answer" in answer.text


@pytest.mark.parametrize("failure", [RuntimeError(PRIVATE), ConfigurationError(PRIVATE), KeyError(PRIVATE)])
def test_an_unexpected_error_is_logged_with_the_id_of_the_answer(
    client: DocumentedClient, service: FakeTaskService, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    caplog.set_level(logging.DEBUG)
    service.failure = failure
    answer = client.call("POST", "/tasks", body=ticket_body(text=PRIVATE))
    problem = json.loads(answer.data)
    assert problem["status"] == 500
    assert problem["error_id"] in problem["detail"]
    records = [record.getMessage() for record in caplog.records if problem["error_id"] in record.getMessage()]
    assert len(records) == 1
    assert type(failure).__name__ in records[0]
    assert "fakes.py" in records[0]  # the place is in the log...
    assert "fakes.py" not in answer.text  # ...and not in the answer
    assert "4111" not in caplog.text + answer.text
    assert "example.org" not in caplog.text + answer.text


def test_no_refusal_repeats_a_tickets_text(
    client: DocumentedClient, service: FakeTaskService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.submit(make_ticket())
    answers = [
        client.call("POST", "/tasks", body=ticket_body(text=PRIVATE)),
        client.call("POST", "/tasks", body=ticket_body(subject=PRIVATE, tenant=PRIVATE)),
        client.call("POST", "/tasks", body=ticket_body(**{PRIVATE: PRIVATE})),
        client.call("POST", "/tasks", body=[PRIVATE]),
        client.call("POST", "/tasks", body=PRIVATE),
        client.call("POST", "/tasks", data=f'{{"text": "{PRIVATE}'.encode(), content_type="application/json"),
        client.call("POST", "/tasks", data=PRIVATE.encode(), content_type="text/plain"),
    ]
    assert [answer.status_code for answer in answers] == [409, 422, 422, 422, 422, 400, 415]
    everything = caplog.text + "".join(answer.text for answer in answers)
    assert "4111" not in everything
    assert "example.org" not in everything


def test_a_long_address_is_shortened_in_the_answer(client: DocumentedClient) -> None:
    answer = client.call("GET", "/" + "x" * 5000)
    assert len(answer.data) < 600
