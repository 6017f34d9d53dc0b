"""The API's tasks: submission, reading, separation of tenants, roles, decisions, bad input."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.models import Decision, Intake, Refund, TaskStatus, TaskView
from app.web.factory import MAX_BODY_BYTES, SECURITY_HEADERS
from tests.web.documented import DocumentedClient, ticket_body
from tests.web.fakes import FakeTaskService, FakeVitals, make_ticket

TASK = "acme:T-1"
VERBS = ["pause", "resume", "rerun", "approve", "reject", "terminate"]


def test_a_ticket_becomes_a_task_once(client: DocumentedClient, service: FakeTaskService) -> None:
    first = client.call("POST", "/tasks", who="acme-submit", body=ticket_body())
    again = client.call("POST", "/tasks", who="acme-submit", body=ticket_body())
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.headers["Location"] == again.headers["Location"] == "/tasks/acme:T-1"
    assert first.json == again.json
    assert TaskView.model_validate_json(first.data) == service.get(TASK)
    assert client.call("GET", first.headers["Location"], who="acme-read").json == first.json


def test_another_body_under_the_same_id_is_a_conflict(client: DocumentedClient, service: FakeTaskService) -> None:
    client.call("POST", "/tasks", body=ticket_body())
    answer = client.call("POST", "/tasks", body=ticket_body(text="another"))
    assert answer.status_code == 409
    assert answer.json is not None
    assert answer.json["type"] == "urn:refund-agent:problem:ticket-conflict"
    assert service.submit(make_ticket(subject="", text="it broke"))[1] is Intake.KNOWN


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"tenant": "ACME"}, "tenant", "string_pattern_mismatch"),
        ({"ticket_id": ""}, "ticket_id", "string_pattern_mismatch"),
        ({"customer_id": None}, "customer_id", "string_type"),
        ({"order_id": 7.5}, "order_id", "string_type"),
        ({"subject": "s" * 501}, "subject", "string_too_long"),
        ({"text": "t" * 64_001}, "text", "string_too_long"),
        ({"priority": "high"}, "priority", "extra_forbidden"),
        ({"my mail is a@example.org": 1}, "(unknown key)", "extra_forbidden"),
        ({"k" * 41: 1}, "(unknown key)", "extra_forbidden"),
    ],
)
def test_a_bad_ticket_names_the_field(client: DocumentedClient, changes: dict[str, Any], field: str, code: str) -> None:
    answer = client.call("POST", "/tasks", body=ticket_body(**changes))
    assert answer.status_code == 422
    assert answer.json is not None
    assert [(error["field"], error["code"]) for error in answer.json["errors"]] == [(field, code)]
    assert "example.org" not in answer.text


def test_every_bad_field_is_named_at_once(client: DocumentedClient) -> None:
    answer = client.call("POST", "/tasks", body={"tenant": "A", "text": 5, "colour": "red"})
    assert answer.json is not None
    fields = {error["field"] for error in answer.json["errors"]}
    assert fields == {"tenant", "ticket_id", "customer_id", "text", "colour"}


@pytest.mark.parametrize(
    ("raw", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"tenant": "acme", "tenant": "globex"}', "application/json", 400),
        (b'{"text": "\xff"}', "application/json", 400),
        (b'{"text": "\\ud800"}', "application/json", 422),  # the text is taken; the rest is missing
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b" " * (MAX_BODY_BYTES + 1), "application/json", 413),
        (b"{" + b" " * (MAX_BODY_BYTES - 2) + b"}", "application/json", 422),
        (b"{}", "application/json; charset=utf-8", 422),
    ],
)
def test_a_body_that_is_not_a_ticket_is_refused(
    client: DocumentedClient, raw: bytes, content_type: str, status: int
) -> None:
    answer = client.call("POST", "/tasks", data=raw, content_type=content_type)
    assert answer.status_code == status


def test_the_longest_ticket_fits(client: DocumentedClient) -> None:
    # 64 000 characters of four bytes each: the body limit must not cut what the model allows.
    raw = make_ticket(text="\U0001f4a5" * 64_000).model_dump_json().encode()
    answer = client.call("POST", "/tasks", data=raw, content_type="application/json")
    assert answer.status_code == 201


def test_a_tenant_sees_only_its_own(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket("T-1", "acme"))
    service.submit(make_ticket("T-2", "globex"))

    def ids(who: str, query: str = "") -> list[str]:
        answer = client.call("GET", f"/tasks{query}", who=who)
        assert answer.json is not None
        return [task["task_id"] for task in answer.json["tasks"]]

    assert ids("acme-read") == ["acme:T-1"]
    assert ids("globex-admin") == ["globex:T-2"]
    assert ids("root") == ["acme:T-1", "globex:T-2"]
    assert ids("root", "?tenant=globex") == ["globex:T-2"]
    assert client.call("GET", "/tasks?tenant=globex", who="acme-read").status_code == 403


@pytest.mark.parametrize("who", ["globex-admin"])
@pytest.mark.parametrize("verb", ["", *VERBS])
def test_another_tenants_task_is_answered_like_a_missing_one(
    client: DocumentedClient, service: FakeTaskService, verb: str, who: str
) -> None:
    service.submit(make_ticket())
    before = service.get(TASK)
    method, body = ("POST", {"reason": "r"} if verb == "terminate" else {}) if verb else ("GET", None)

    def ask(task_id: str, caller: str) -> tuple[int, str]:
        answer = client.call(method, f"/tasks/{task_id}" + (f"/{verb}" if verb else ""), who=caller, body=body)
        return answer.status_code, answer.text.replace(task_id, "TASK")

    assert ask(TASK, who) == ask("acme:T-9", who) == ask("globex:T-9", who) == ask("acme:T-9", "root")
    assert ask(TASK, who)[0] == 404
    assert service.get(TASK) == before


def test_a_tenants_token_cannot_submit_into_another(client: DocumentedClient, service: FakeTaskService) -> None:
    answer = client.call("POST", "/tasks", who="acme-submit", body=ticket_body(tenant="globex"))
    assert answer.status_code == 403
    assert service.submissions == 0


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("acme-submit", {"POST /tasks"}),
        ("acme-read", {"GET /tasks", "GET /tasks/x"}),
        ("acme-approve", {"approve", "reject"}),
        ("acme-admin", {"POST /tasks", "GET /tasks", "GET /tasks/x", *VERBS}),
    ],
)
def test_a_role_allows_its_own_requests_only(client: DocumentedClient, who: str, allowed: set[str]) -> None:
    requests: dict[str, tuple[str, str, Any]] = {
        "POST /tasks": ("POST", "/tasks", ticket_body("T-9")),
        "GET /tasks": ("GET", "/tasks", None),
        "GET /tasks/x": ("GET", f"/tasks/{TASK}", None),
        **{verb: ("POST", f"/tasks/{TASK}/{verb}", None) for verb in VERBS},
    }
    allowed_requests = set()
    for name, (method, path, body) in requests.items():
        answer = client.call(method, path, who=who, body=body)
        assert answer.status_code != 401
        if answer.status_code != 403:
            allowed_requests.add(name)
    assert allowed_requests == allowed


def test_a_decision_carries_the_tokens_name(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    refund = {"order_id": "O-1", "amount": "9.99", "currency": "EUR"}
    answer = client.call("POST", f"/tasks/{TASK}/approve", who="acme-approve", body={"refund": refund})
    assert answer.json is not None
    assert answer.json["result"]["refund"] == refund
    expected = Refund.model_validate(refund)
    assert service.decisions == [Decision(verdict="approve", by="acme-approve", refund=expected)]


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_body_cannot_name_the_decider(client: DocumentedClient, service: FakeTaskService, verb: str) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    answer = client.call("POST", f"/tasks/{TASK}/{verb}", who="acme-approve", body={"by": "the boss"})
    assert answer.status_code == 422
    assert service.decisions == []
    assert service.get(TASK).status is TaskStatus.WAITING
    assert client.call("POST", f"/tasks/{TASK}/{verb}", who="acme-approve").status_code == 200
    assert [decision.by for decision in service.decisions] == ["acme-approve"]


def test_a_refusal_by_the_refund_system_is_reported(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    refund = {"order_id": "O-1", "amount": "5000.00", "currency": "EUR"}
    answer = client.call("POST", f"/tasks/{TASK}/approve", body={"refund": refund})
    assert answer.status_code == 422
    assert "cannot bear that" in answer.text
    assert service.get(TASK).status is TaskStatus.WAITING


def test_a_refusal_carries_its_code(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    refund = {"order_id": "O-1", "amount": "5000.00", "currency": "EUR"}
    answer = client.call("POST", f"/tasks/{TASK}/approve", body={"refund": refund})
    assert answer.json is not None
    assert (answer.json["code"], answer.json["reason"]) == ("decision_refused", "above_refundable")
    assert answer.json["type"] == "urn:refund-agent:problem:decision-refused"


def test_a_decision_that_the_task_has_not_answered_yet_is_202(
    client: DocumentedClient, service: FakeTaskService
) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    service.slow = True
    assert client.call("POST", f"/tasks/{TASK}/reject", body={"note": "why"}).status_code == 202


def test_a_decision_has_its_note(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    too_long = client.call("POST", f"/tasks/{TASK}/reject", body={"note": "n" * 501})
    assert too_long.status_code == 422
    assert client.call("POST", f"/tasks/{TASK}/reject", body={"note": "twice a month"}).status_code == 200
    assert service.notes == ["twice a month"]


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_denied_decision_is_noted(client: DocumentedClient, service: FakeTaskService, verb: str) -> None:
    service.submit(make_ticket())
    for who in ("acme-read", "acme-submit"):
        assert client.call("POST", f"/tasks/{TASK}/{verb}", who=who).status_code == 403
        assert client.call("POST", "/tasks/acme:T-9/approve", who=who).status_code == 403
    assert client.call("POST", f"/tasks/{TASK}/{verb}", who="globex-admin").status_code == 404
    assert service.attempts == [(TASK, verb, "acme-read"), (TASK, verb, "acme-submit")]


@pytest.mark.parametrize("amount", ["-1.00", "1.234", "NaN", "Infinity", "1e999", "", None])
def test_a_malformed_amount_is_refused(client: DocumentedClient, service: FakeTaskService, amount: Any) -> None:
    service.submit(make_ticket())
    service.wait_for_a_person(TASK)
    refund = {"order_id": "O-1", "amount": amount, "currency": "EUR"}
    answer = client.call("POST", f"/tasks/{TASK}/approve", body={"refund": refund})
    assert answer.status_code == 422
    assert answer.json is not None
    assert answer.json["errors"][0]["field"] == "refund.amount"
    assert service.decisions == []


def test_a_task_is_paused_resumed_and_terminated(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    statuses = []
    for verb, body in [("pause", None), ("resume", {}), ("terminate", {"reason": "sent twice"})]:
        answer = client.call("POST", f"/tasks/{TASK}/{verb}", who="acme-admin", body=body)
        assert answer.json is not None
        statuses.append(answer.json["status"])
    assert statuses == ["paused", "running", "terminated"]
    assert service.reasons == ["sent twice"]
    assert client.call("POST", f"/tasks/{TASK}/pause").status_code == 409
    again = client.call("POST", f"/tasks/{TASK}/rerun", who="acme-admin")
    assert (again.status_code, (again.json or {})["status"]) == (200, "running")


def test_the_pages_of_a_list_have_each_task_once(client: DocumentedClient, service: FakeTaskService) -> None:
    for number in range(7):
        service.submit(make_ticket(f"T-{number}"))
    seen, after = [], ""
    while True:
        answer = client.call("GET", f"/tasks?limit=3{after}")
        assert answer.json is not None
        seen += [task["ticket_id"] for task in answer.json["tasks"]]
        if not answer.json["next_after"]:
            break
        after = f"&after={answer.json['next_after']}"
    assert seen == [f"T-{number}" for number in range(7)]


def test_tasks_are_listed_by_status(client: DocumentedClient, service: FakeTaskService) -> None:
    service.submit(make_ticket("T-1"))
    service.submit(make_ticket("T-2"))
    service.wait_for_a_person("acme:T-2")
    answer = client.call("GET", "/tasks?status=waiting")
    assert answer.json is not None
    assert [task["task_id"] for task in answer.json["tasks"]] == ["acme:T-2"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("status=done", "status"),
        ("tenant=A%20B", "tenant"),
        ("after=", "after"),
        ("after=acme:T-1", "after"),
        ("colour=red", "colour"),
        ("limit=1&limit=2", "limit"),
        ("a@example.org=1&a@example.org=2", "(unknown key)"),
    ],
)
def test_a_bad_query_names_the_parameter(client: DocumentedClient, query: str, field: str) -> None:
    answer = client.call("GET", f"/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json is not None
    assert [error["field"] for error in answer.json["errors"]] == [field]


@pytest.mark.parametrize("task_id", ["T-1", "acme", ":T-1", "acme:", "acme:T-1:x", "acme:%20", "acme:%F0%9F"])
def test_a_malformed_task_id_is_404(client: DocumentedClient, task_id: str) -> None:
    assert client.call("GET", f"/tasks/{task_id}").status_code == 404


def test_probes_need_no_token_and_say_what_is_missing(client: DocumentedClient, vitals: FakeVitals) -> None:
    def probe() -> tuple[int, int]:
        live, ready = (client.call("GET", path, who=None) for path in ("/livez", "/readyz"))
        return live.status_code, ready.status_code

    assert probe() == (200, 200)
    vitals.missing = "the worker has no stream"
    assert probe() == (200, 503)
    assert (client.call("GET", "/readyz", who=None).json or {})["detail"] == "the worker has no stream"
    vitals.stalled = "the loop has not moved"
    assert probe() == (503, 503)


def test_health_check_and_document_need_no_token(client: DocumentedClient) -> None:
    assert client.call("GET", "/healthz", who=None).json == {"status": "ok", "version": "1.2.3"}
    assert client.call("GET", "/openapi.json", who=None).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/healthz"), ("GET", "/tasks"), ("GET", "/nothing"), ("POST", "/tasks")]
)
def test_every_answer_is_closed_to_pages_of_others(client: DocumentedClient, method: str, path: str) -> None:
    answer = client.call(method, path, headers={"Origin": "https://evil.example"})
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]
