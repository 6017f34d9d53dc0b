"""The inbox and the decision forms: what users see, who may decide, and how outcomes are shown."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.domain.errors import TooLate
from app.domain.models import Decision, DecisionState, DecisionView, Question, Refund, Retrying, TaskView
from tests.web.fakes import make_ticket
from tests.web.pages.visitor import HERE, NOW, PagesTaskService, Tags, sign_in, text

WAITING = "acme:T-2"
LETTER = "It broke. <b>Please</b> write to [e-mail]."


def iso(hours: float) -> str:
    """The time `hours` after NOW."""
    return (NOW + timedelta(hours=hours)).isoformat()


def make_asked_question(hours: float = -3, **changes: Any) -> Question:
    """A question with all its figures; asked three hours ago by default."""
    values: dict[str, Any] = {
        "number": 4,
        "asked_at": iso(hours),
        "expires_at": iso(hours + 72),
        "limit": "50.00",
        "order": {
            "order_id": "O-1",
            "currency": "EUR",
            "charged": "1129.00",
            "refunded": "10.00",
            "refundable": "1119.00",
        },
        "account": {"tier": "gold", "risk": "low", "since_days": 1400, "refunds_90d": 1},
    }
    return Question.model_validate(values | changes)


@pytest.fixture
def waiting(service: PagesTaskService) -> TaskView:
    service._tickets[WAITING] = make_ticket("T-2", subject="Broken", text=LETTER, order_id="O-1")
    service.wait_for_a_person(WAITING, "1234.50")
    return service.put(WAITING, question=make_asked_question())


def send(browser: FlaskClient, task_id: str = WAITING, origin: str | None = HERE, **form: str) -> TestResponse:
    """Sends a decision form."""
    headers = {"Origin": origin} if origin else {}
    return browser.post(f"/pages/tasks/{task_id}/decision", data={"question": "4"} | form, headers=headers)


@pytest.mark.parametrize("path", ["/pages/inbox", f"/pages/tasks/{WAITING}"])
def test_a_person_sees_what_is_needed_to_decide(browser: FlaskClient, waiting: TaskView, path: str) -> None:
    sign_in(browser)
    answer = browser.get(path)
    seen = text(answer)
    for expected in (
        "Waiting because the refund plus what the customer received in 90 days is above the limit for refunds",
        "Proposed 1,234.50 EUR for order O-1",
        "No approval needed up to 50.00 EUR",
        "Order O-1 1,129.00 EUR paid",
        "Refunded before 10.00 EUR",
        "Left to refund 1,119.00 EUR",
        "Account C-1 gold, risk low, customer for 1,400 days, 1 refund in 90 days",
        "Asked 3 h 0 min ago, 2026-01-02 09:00:00 UTC",
        "Time 2 d 21 h left, until 2026-01-05 09:00:00 UTC",
        "Broken",
        LETTER,
        "Approve 1,234.50 EUR",
    ):
        assert expected in seen, expected
    assert "<b>Please</b>" not in answer.text, "a letter is text"


def test_a_task_without_a_proposal_can_be_given_one(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView
) -> None:
    service.put(
        WAITING, proposed_refund=None, waiting_for="no_draft", question=make_asked_question(limit=None, account=None)
    )
    sign_in(browser)
    answer = browser.get("/pages/inbox")
    assert "Proposed no refund" in text(answer)
    assert 'value="approve"' not in answer.text
    assert re.search(r'name="order_id"[^>]* value="O-1"', answer.text), "the order of the question"


def test_a_question_of_an_older_version_is_shown(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView
) -> None:
    service.put(WAITING, question=None)
    sign_in(browser)
    assert "Proposed 1,234.50 EUR for order O-1 Waiting since" in text(browser.get("/pages/inbox"))


def test_the_inbox_is_filtered_and_counted(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    for number in range(45):
        service.submit(make_ticket(f"W-{number}"))
        service.wait_for_a_person(f"acme:W-{number}")
        service.put(
            f"acme:W-{number}", waiting_for="low_confidence", question=make_asked_question(-50 if number % 2 else -1)
        )
    service.wait_for_a_person("globex:T-1")
    sign_in(browser)
    everything = text(browser.get("/pages/inbox"))
    assert "47 tasks wait; 20 of them on this page." in everything
    assert "acme (46) globex (1)" in everything
    assert "the model is not sure enough of its draft (45)" in everything
    for query, count in (
        ("reason=low_confidence", 45),
        ("reason=low_confidence&age=2d", 22),
        ("tenant=globex", 1),
        ("tenant=globex&reason=low_confidence", 0),
        ("age=4h&tenant=acme", 22),
        ("age=nonsense", 47),
    ):
        seen = text(browser.get(f"/pages/inbox?{query}"))
        assert f"{count} task{'s' * (count != 1)} wait{'s' * (count == 1)}" in seen, query
    task_ids: list[str] = []
    path: str | None = "/pages/inbox?reason=low_confidence"
    while path:
        page = browser.get(path).text
        task_ids += re.findall(r'<h2 id="[^"]+"><a href="/pages/tasks/([^"]+)"', page)
        more = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(more[1]) if more else None
    assert task_ids == [f"acme:W-{number}" for number in range(45)]


def test_a_tenant_sees_only_its_own_tasks(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    service.wait_for_a_person("globex:T-1")
    sign_in(browser, "acme-read")
    for path in ("/pages/inbox", "/pages/inbox?tenant=globex"):
        assert "globex" not in browser.get(path).text.replace(path, "")
    assert send(browser, "globex:T-1", verdict="approve").status_code == 404


@pytest.mark.parametrize(
    ("who", "reads", "decides"), [("acme-read", True, False), ("acme-approve", False, True), ("acme-admin", True, True)]
)
def test_each_role_sees_its_part(browser: FlaskClient, waiting: TaskView, who: str, reads: bool, decides: bool) -> None:
    sign_in(browser, who)
    answer = browser.get("/pages/inbox")
    assert ("It broke" in text(answer)) is reads
    assert ("C-1" in text(answer)) is reads
    assert ("<textarea" in answer.text) is decides
    assert ("may not decide" in text(answer)) is not decides


def test_a_token_without_read_and_approve_sees_no_inbox(browser: FlaskClient, waiting: TaskView) -> None:
    sign_in(browser, "acme-submit")
    assert browser.get("/pages/inbox").status_code == 403


def test_an_approval_shows_its_result(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    sign_in(browser, "acme-approve")
    answer = send(browser, verdict="approve", back="/pages/inbox?tenant=acme&age=4h")
    assert (answer.status_code, "Approved" in text(answer)) == (200, True)
    assert service.decisions == [Decision(verdict="approve", by="acme-approve", question=4)]
    assert 'href="/pages/inbox?tenant=acme&amp;age=4h"' in answer.text


def test_another_amount_is_approved(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    sign_in(browser)
    form = {"verdict": "approve_other", "order_id": "O-1", "amount": " 9.50 ", "currency": "eur", "note": "half"}
    assert send(browser, **form).status_code == 200
    refund = Refund.model_validate({"order_id": "O-1", "amount": "9.50", "currency": "EUR"})
    assert service.decisions == [Decision(verdict="approve", by="root", refund=refund, question=4)]
    assert service.notes == ["half"]


def test_a_rejection_has_its_note(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    sign_in(browser)
    answer = send(browser, verdict="reject", note="twice in a month")
    assert "Rejected No money moves, and the customer is informed. The task is completed." in text(answer)
    assert (service.decisions[0].verdict, service.notes) == ("reject", ["twice in a month"])


def test_a_refusal_shows_its_reason_and_the_form(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView
) -> None:
    sign_in(browser)
    form = {"verdict": "approve_other", "order_id": "O-1", "amount": "5000.00", "currency": "EUR"}
    answer = send(browser, **form)
    assert answer.status_code == 422
    assert "Decision refused Order O-1 cannot bear that." in text(answer)
    assert "Left to refund 1,119.00 EUR" in text(answer), "the question is still shown"
    assert "<details open><summary>Another amount" in answer.text
    assert re.search(r'name="amount"[^>]* value="5000.00"', answer.text), "the input is kept"


def test_a_second_decision_is_too_late(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> None:
        raise TooLate("task acme:T-2: too late: the question had been answered before")

    monkeypatch.setattr(service, "decide", late)
    sign_in(browser)
    answer = send(browser, verdict="approve")
    assert (answer.status_code, "too late" in text(answer)) == (409, True)


def test_an_unknown_outcome_is_not_shown_as_approved(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView
) -> None:
    service.slow = True
    sign_in(browser)
    answer = send(browser, verdict="approve")
    assert (answer.status_code, "Handed over" in text(answer)) == (202, True)
    assert "Approved" not in text(answer)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_a_decision_from_another_origin_is_refused(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView, origin: str | None
) -> None:
    sign_in(browser)
    assert send(browser, origin=origin, verdict="approve").status_code == 403
    assert service.decisions == []


def test_without_a_session_nothing_is_decided(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView
) -> None:
    assert send(browser, verdict="approve").status_code == 303
    assert service.decisions == []


def test_a_denied_decision_is_noted(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    sign_in(browser, "acme-read")
    answer = send(browser, verdict="reject")
    assert (answer.status_code, service.decisions) == (403, [])
    assert "has no role 'approve'" in text(answer)
    assert service.attempts == [(WAITING, "reject", "acme-read")]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "59,90", "currency": "EUR"}, "decimal point"),
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "-1", "currency": "EUR"}, "decimal point"),
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "0", "currency": "EUR"}, "above zero"),
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "NaN", "currency": "EUR"}, "decimal point"),
        (
            {"verdict": "approve_other", "order_id": "O-1", "amount": "\uff11\uff12", "currency": "EUR"},
            "with a decimal point",
        ),
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "1_000", "currency": "EUR"}, "decimal point"),
        ({"verdict": "approve_other", "order_id": "O-1", "amount": "1.00", "currency": "euro"}, "three letters"),
        ({"verdict": "approve_other", "order_id": "O 1", "amount": "1.00", "currency": "EUR"}, "The order's id"),
        ({"verdict": "approve_other"}, "The order's id"),
        ({"verdict": "reject", "note": "n" * 501}, "The note has 501 characters"),
        ({"verdict": "pay"}, "not a form of this agent"),
        ({"verdict": "approve", "question": "x"}, "not a form of this agent"),
        ({}, "not a form of this agent"),
    ],
)
def test_a_wrong_form_is_shown_again_with_the_remedy(
    browser: FlaskClient, service: PagesTaskService, waiting: TaskView, form: dict[str, str], said: str
) -> None:
    sign_in(browser)
    answer = send(browser, **form)
    assert (answer.status_code, said in text(answer)) == (422, True)
    assert service.decisions == []
    for value in map(html.escape, typed_values(form)):
        assert f"{value}<" in answer.text or f'"{value}"' in answer.text, "the input is kept"


def typed_values(form: dict[str, str]) -> list[str]:
    """The texts that the user typed into the form."""
    return [form[name] for name in ("order_id", "amount", "note") if name in form]


@pytest.mark.parametrize("back", ["https://evil.example", "//evil.example", "/pages/inbox?x=<script>", "/signout", ""])
def test_the_back_link_leads_only_to_the_inbox(browser: FlaskClient, waiting: TaskView, back: str) -> None:
    sign_in(browser)
    assert 'href="/pages/inbox">Back' in send(browser, verdict="approve", back=back).text


def test_every_field_has_a_label_and_enter_approves_nothing_by_accident(
    browser: FlaskClient, waiting: TaskView
) -> None:
    sign_in(browser)
    for path in ("/pages/inbox", f"/pages/tasks/{WAITING}"):
        tags = Tags()
        tags.feed(browser.get(path).text)
        labels = {attributes["for"] for tag, attributes in tags.found if tag == "label"}
        fields = [a for tag, a in tags.found if tag in ("input", "select", "textarea") and a.get("type") != "hidden"]
        assert fields
        assert {field["id"] for field in fields} <= labels
    forms = re.findall(r"<form.*?</form>", browser.get("/pages/inbox").text, flags=re.DOTALL)
    for form in forms:
        if 'value="approve"' in form:
            assert "<input id" not in form, "a field in it would approve the proposal when Enter is pressed"


def test_the_trail_of_a_task_is_on_its_page(browser: FlaskClient, service: PagesTaskService, waiting: TaskView) -> None:
    decision = DecisionView(
        decision_id="d-1",
        at=iso(-1),
        by="kim",
        verdict="approve",
        refund=Refund.model_validate({"order_id": "O-1", "amount": "9999.00", "currency": "CHF"}),
        note="why not",
        state=DecisionState.REFUSED,
        words="order O-1 was paid in EUR, not in CHF",
        reason="low_confidence",
    )
    service.put(WAITING, decisions=(decision,))
    sign_in(browser)
    line = "2026-01-02 11:00:00 the model is not sure enough of its draft "
    line += "kim approve 9,999.00 CHF for order O-1 why not order O-1 was paid in EUR, not in CHF"
    assert line in text(browser.get(f"/pages/tasks/{WAITING}"))


def test_a_stuck_task_names_its_step(browser: FlaskClient, service: PagesTaskService) -> None:
    stuck = Retrying(step="classify", attempt=3, attempts=30, error="llm: status 503", next_at=iso(1))
    service.put(WAITING, retrying=stuck)
    sign_in(browser)
    said = "Stuck classify: attempt 3 of 30 failed, next at 2026-01-02 13:00:00 UTC: llm: status 503"
    assert said in text(browser.get(f"/pages/tasks/{WAITING}"))


def test_the_list_is_filtered_by_status(browser: FlaskClient, waiting: TaskView) -> None:
    sign_in(browser)
    task_ids = re.findall(r'<a href="/pages/tasks/([^"]+:[^"]+)"', browser.get("/pages/tasks?status=waiting").text)
    assert task_ids == [WAITING]
    assert "1 of 1 waiting" in text(browser.get("/pages/tasks?status=waiting"))
    assert "3 of 3" in text(browser.get("/pages/tasks?status=nonsense"))
    assert "There is no task with the status parked" in text(browser.get("/pages/tasks?status=parked"))


def test_a_page_reloads_itself_on_request(browser: FlaskClient, waiting: TaskView) -> None:
    sign_in(browser)
    for path in ("/pages/tasks", f"/pages/tasks/{WAITING}"):
        assert 'http-equiv="refresh"' not in browser.get(path).text
        assert '<meta http-equiv="refresh" content="10">' in browser.get(f"{path}?refresh=10").text
        assert 'http-equiv="refresh"' not in browser.get(f"{path}?refresh=0").text
