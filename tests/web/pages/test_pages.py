"""The task list and the task page: access, and what they show."""

from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient

from app.domain import formatting
from app.domain.errors import TaskNotFound, Unreachable
from app.domain.models import TaskStatus
from tests.ledgers import FakeRecords
from tests.records import call_record, calls, task_record, unreported_call
from tests.web.fakes import make_ticket
from tests.web.pages.visitor import TASK, PagesTaskService, Tags, sign_in, text


def test_a_task_of_another_tenant_does_not_exist(browser: FlaskClient) -> None:
    sign_in(browser, "acme-read")
    other, missing = browser.get("/pages/tasks/globex:T-1"), browser.get("/pages/tasks/acme:T-99")
    assert other.status_code == missing.status_code == 404
    assert text(other) == text(missing)
    assert other.content_type == "text/html; charset=utf-8"
    assert "globex" not in browser.get("/pages/tasks").text


@pytest.mark.parametrize("path", ["/pages/tasks", f"/pages/tasks/{TASK}"])
def test_a_token_without_the_role_is_refused(browser: FlaskClient, path: str) -> None:
    sign_in(browser, "acme-submit")
    answer = browser.get(path)
    assert answer.status_code == 403
    assert "has no role 'read'" in text(answer)
    assert 'href="/signout"' in answer.text
    assert browser.get("/signout").status_code == 200


def test_the_api_does_not_take_the_cookie(browser: FlaskClient) -> None:
    sign_in(browser)
    assert browser.get("/tasks").status_code == 401


def test_the_list_has_the_newest_first_with_status_outcome_and_cost(browser: FlaskClient) -> None:
    sign_in(browser)
    answer = browser.get("/pages/tasks")
    assert re.findall(r'href="/pages/tasks/([^"]+)"', answer.text) == ["globex:T-1", "acme:T-2", "acme:T-1"]
    seen = text(answer)
    assert "acme:T-1 2026-01-01 00:00:00 completed refunded 49.90 EUR ~0.003701 USD" in seen
    assert "acme:T-2 2026-01-01 00:00:01 running not recorded yet" in seen


def test_the_list_has_pages(browser: FlaskClient, service: PagesTaskService) -> None:
    for number in range(60):
        service.submit(make_ticket(f"M-{number}"))
    sign_in(browser)
    seen: list[str] = []
    path: str | None = "/pages/tasks"
    while path:
        page = browser.get(path).text
        seen += re.findall(r'href="/pages/tasks/([^"]+)"', page)
        more = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(more[1]) if more else None
    assert len(seen) == len(set(seen)) == 63
    assert (seen[0], seen[-1]) == ("acme:M-59", "acme:T-1")


@pytest.mark.parametrize("before", ["x", "-1", "1' OR 1=1", "9" * 30])
def test_a_malformed_cursor_shows_the_newest(browser: FlaskClient, before: str) -> None:
    sign_in(browser)
    assert "globex:T-1" in browser.get("/pages/tasks", query_string={"before": before}).text


def test_an_empty_list_names_the_command(service: PagesTaskService, browser: FlaskClient) -> None:
    service._views.clear()
    sign_in(browser)
    assert "There is no task yet." in text(browser.get("/pages/tasks"))


def test_the_record_has_money_tokens_time_and_a_lane_a_step(browser: FlaskClient, records: FakeRecords) -> None:
    records.records[TASK] = task_record(calls=(*calls(), unreported_call()))
    sign_in(browser)
    answer = browser.get(f"/pages/tasks/{TASK}")
    seen = text(answer)
    assert answer.status_code == 200
    assert "Status completed Outcome refunded Refund 49.90 EUR for order AC-10442, refund R-1 Decided by ann" in seen
    assert "~0.003701 USD + ?" in seen
    assert "wasted: work without a result 0.002200 USD" in seen
    assert "input ~4,200" in seen
    assert "waiting for a person 1 min 0 s" in seen
    assert len(re.findall('class="lane-name"', answer.text)) == 7
    assert len(re.findall('fill="url\\(#hatch\\)"', answer.text)) == 2  # the interrupted call, and the legend
    assert '<title id="timeline-title">Time line of task acme:T-1</title>' in answer.text


def test_the_table_has_the_same_content_as_the_drawing(browser: FlaskClient) -> None:
    sign_in(browser)
    page = browser.get(f"/pages/tasks/{TASK}").text
    tags = Tags()
    tags.feed(page)
    classes = [(tag, set((attributes.get("class") or "").split()), attributes) for tag, attributes in tags.found]
    for kind, count in (("attempt", 7), ("call", 4)):
        rects = [rect for tag, names, rect in classes if tag == "rect" and kind in names]
        bars = [rect for rect in rects if "%" in (rect["width"] or "")]  # the legend's are in pixels
        lines = [names for tag, names, _ in classes if tag == "tr" and kind in names and "why" not in names]
        assert len(bars) == len(lines) == count


def test_a_task_without_a_record_shows_its_state(browser: FlaskClient, service: PagesTaskService) -> None:
    service.wait_for_a_person("acme:T-2")
    sign_in(browser)
    answer = browser.get("/pages/tasks/acme:T-2")
    assert answer.status_code == 200
    assert "Status waiting Proposed refund 12.30 EUR for order O-1 Waiting because the refund" in text(answer)
    assert "This task has no record yet." in text(answer)
    assert "<svg" not in answer.text


def test_a_task_that_has_not_ended_shows_the_records_time(
    browser: FlaskClient, service: PagesTaskService, records: FakeRecords
) -> None:
    running = task_record(task_id="acme:T-2", ended_at=None, status=TaskStatus.RUNNING, outcome=None, refund=None)
    records.records["acme:T-2"] = running
    sign_in(browser)
    seen = text(browser.get("/pages/tasks/acme:T-2"))
    assert "This task has not ended: the record is as of 2026-11-22 12:01:10 UTC" in seen
    assert "~0.003701 USD so far" in text(browser.get("/pages/tasks"))
    service.put("acme:T-2", status=TaskStatus.COMPLETED)
    assert "This task has ended since its record was made: the record is as of" in text(
        browser.get("/pages/tasks/acme:T-2")
    )


@pytest.mark.parametrize("failure", [Unreachable("the Dapr sidecar does not answer"), TaskNotFound("no ticket")])
def test_the_record_is_shown_if_the_engine_does_not_know_the_task(
    browser: FlaskClient, service: PagesTaskService, failure: Exception
) -> None:
    sign_in(browser)
    service.failure = failure
    answer = browser.get(f"/pages/tasks/{TASK}")
    assert answer.status_code == 200
    assert "The current state of the task is not available" in text(answer)
    assert "Status completed Outcome refunded" in text(answer)


def test_texts_of_a_record_are_escaped(browser: FlaskClient, records: FakeRecords) -> None:
    evil = "<script>alert(1)</script>"
    call = call_record(model=evil, error=f'"{evil}')
    records.records[TASK] = task_record(version=evil, calls=(call,))
    sign_in(browser)
    page = browser.get(f"/pages/tasks/{TASK}").text
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3


def test_marks_are_explained_where_they_are_used(browser: FlaskClient) -> None:
    sign_in(browser)
    for path in ("/pages/tasks", f"/pages/tasks/{TASK}"):
        seen = text(browser.get(path))
        assert f"{formatting.ESTIMATED} estimated" in seen
        assert f"{formatting.UNKNOWN} unknown, not zero" in seen
