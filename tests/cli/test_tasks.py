"""The `task` commands: tables for people, stable JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from app.domain.decision_texts import explain
from app.domain.models import (
    Category,
    DecisionState,
    DecisionView,
    Outcome,
    Question,
    Refund,
    Retrying,
    TaskPage,
    TaskResult,
    TaskStatus,
    TaskView,
)
from tests.cli.conftest import CommandLine
from tests.web.fakes import FakeTaskService, make_ticket

TASK = "acme:T-1"
WORDS = explain("above_limit").words
REFUND = Refund.model_validate({"order_id": "O-1", "amount": "12.30", "currency": "EUR"})


@pytest.fixture
def waiting(service: FakeTaskService) -> TaskView:
    service.submit(make_ticket())
    return service.wait_for_a_person(TASK)


def finish(service: FakeTaskService) -> TaskView:
    service.submit(make_ticket())
    result = TaskResult(
        outcome=Outcome.REFUNDED, category=Category.DAMAGED, refund=REFUND, refund_id="RF-7", decided_by="root"
    )
    known: dict[str, Any] = {"category": Category.DAMAGED, "updated_at": "2026-01-02T03:04:05+00:00"}
    return service.put(TASK, status=TaskStatus.COMPLETED, result=result, **known)


def test_the_list_for_people(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    service.submit(make_ticket("T-2", "globex"))
    result = run("task", "list")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines == [
        ["task", "status", "received", "(UTC)", "refund", "outcome", "or", "reason"],
        [TASK, "waiting", "2026-01-01", "00:00", "12.30", "EUR", *WORDS.split()],
        ["globex:T-2", "running", "2026-01-01", "00:00"],
    ]


def test_the_list_for_programs_is_the_apis_page(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    page = TaskPage.model_validate_json(run("task", "list", "--json").stdout)
    assert page == TaskPage(tasks=(waiting,))
    keys = list(json.loads(run("task", "show", TASK, "--json").stdout))
    assert keys == list(TaskView.model_fields)


def test_the_list_is_narrowed_and_paged(run: CommandLine, service: FakeTaskService) -> None:
    for number in range(1, 6):
        service.submit(make_ticket(f"T-{number}", "acme" if number % 2 else "globex"))
    service.wait_for_a_person("acme:T-3")
    first = run("task", "list", "--tenant", "acme", "--limit", "2")
    assert [line.split()[0] for line in first.stdout.splitlines()[1:]] == ["acme:T-1", "acme:T-3"]
    assert first.stderr == "for the next page: --after 3\n"
    rest = run("task", "list", "--tenant", "acme", "--limit", "2", "--after", "3")
    assert [line.split()[0] for line in rest.stdout.splitlines()[1:]] == ["acme:T-5"]
    assert rest.stderr == ""
    only = json.loads(run("task", "list", "--status", "waiting", "--json").stdout)
    assert [task["task_id"] for task in only["tasks"]] == ["acme:T-3"]


def test_a_finished_task_is_shown_whole(run: CommandLine, service: FakeTaskService) -> None:
    view = finish(service)
    shown = run("task", "show", TASK).stdout
    for fact in ("refunded", "damaged", "12.30 EUR for order O-1, booked as RF-7", "root", "2026-01-02 03:04:05"):
        assert fact in shown
    assert "proposed" not in shown
    assert TaskView.model_validate_json(run("task", "show", TASK, "--json").stdout) == view


def test_what_a_task_says_cannot_steer_the_terminal(run: CommandLine, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.put(TASK, status=TaskStatus.FAILED, error="bad \x1b[31m\x07[bold]thing[/bold]")
    for words in (("task", "show", TASK), ("task", "list")):
        shown = run(*words).stdout
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "[bold]thing[/bold]" in shown


def test_a_task_is_paused_resumed_and_terminated(run: CommandLine, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    assert run("task", "pause", TASK).stdout == "acme:T-1 is paused\n"
    assert run("task", "resume", TASK).stdout == "acme:T-1 is running\n"
    ended = run("task", "terminate", TASK, "--reason", "sent twice", "--json")
    assert json.loads(ended.stdout)["status"] == "terminated"
    assert service.reasons == ["sent twice"]
    again = run("task", "pause", TASK)
    assert (again.exit_code, again.stderr) == (1, "error: task 'acme:T-1' is terminated; nothing was changed\n")
    assert run("task", "rerun", TASK).stdout == "acme:T-1 is running\n"


def test_a_waiting_task_is_approved_as_proposed(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    assert run("task", "approve", TASK, who="acme-approve").stdout == "acme:T-1 approved; it is completed\n"
    assert [(d.verdict, d.by, d.refund) for d in service.decisions] == [("approve", "acme-approve", None)]


def test_a_waiting_task_is_approved_with_another_refund(
    run: CommandLine, service: FakeTaskService, waiting: TaskView
) -> None:
    own = ("--order", "O-2", "--amount", "9.99", "--currency", "GBP")
    assert run("task", "approve", TASK, *own).exit_code == 0
    assert service.decisions[0].refund == Refund.model_validate(
        {"order_id": "O-2", "amount": "9.99", "currency": "GBP"}
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--amount", "9.99"), "--order"),
        (("--order", "O-2", "--amount", "9.999", "--currency", "EUR"), "--amount"),
        (("--order", "O-2", "--amount", "9.99", "--currency", "euro"), "--currency"),
        (("--order", "O-2", "--amount", "0.00", "--currency", "EUR"), "--amount must be an amount above zero"),
    ],
)
def test_an_incomplete_refund_is_a_usage_error(
    run: CommandLine, service: FakeTaskService, waiting: TaskView, options: tuple[str, ...], named: str
) -> None:
    result = run("task", "approve", TASK, *options)
    assert result.exit_code == 2
    assert named in result.stderr
    assert service.decisions == []


def test_a_waiting_task_is_rejected(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    assert run("task", "reject", TASK, "--note", "twice in a month").exit_code == 0
    assert [(d.verdict, d.by) for d in service.decisions] == [("reject", "root")]
    assert service.notes == ["twice in a month"]


def test_a_refused_decision_ends_with_exit_code_1(
    run: CommandLine, service: FakeTaskService, waiting: TaskView
) -> None:
    own = ("--order", "O-2", "--amount", "9999.00", "--currency", "CHF")
    result = run("task", "approve", TASK, *own)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "order O-2 cannot bear that" in result.stderr


def test_a_decision_without_an_answer_is_not_called_accepted(
    run: CommandLine, service: FakeTaskService, waiting: TaskView
) -> None:
    service.slow = True
    assert "handed over, but the task has not accepted it yet; check with" in run("task", "approve", TASK).stdout


def test_a_task_shows_who_decided_what(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    greedy = Refund.model_validate({"order_id": "O-1", "amount": "9999.00", "currency": "CHF"})
    made = DecisionView(
        decision_id="d-1",
        at="2026-01-02T03:04:05.000+00:00",
        by="kim",
        verdict="approve",
        refund=greedy,
        note="why not",
        state=DecisionState.REFUSED,
        words="order O-1 was paid in EUR, not in CHF",
    )
    service.put(TASK, decisions=(made,))
    line = (
        "2026-01-02 03:04:05 kim: approve 9,999.00 CHF for order O-1 (why not): order O-1 was paid in EUR, not in CHF"
    )
    assert line in run("task", "show", TASK).stdout


@pytest.mark.parametrize("task_id", ["acme:T-9", "nonsense", "../healthz", "acme:T-1/../T-2", "a b"])
def test_a_missing_task_is_reported_in_one_line(run: CommandLine, task_id: str) -> None:
    result = run("task", "show", task_id)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no")
    assert "GET /" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--limit", "0"),
        ("list", "--limit", "201"),
        ("list", "--status", "done"),
        ("show",),
        ("terminate", TASK),
        ("explode", TASK),
    ],
)
def test_wrong_usage_is_exit_code_2(run: CommandLine, words: tuple[str, ...]) -> None:
    assert run("task", *words).exit_code == 2


def test_an_invalid_tenant_is_never_sent(run: CommandLine) -> None:
    result = run("task", "list", "--tenant", "ACME")
    assert result.exit_code == 2
    assert "'ACME' is not a tenant's id, which has small letters, digits and -, such as acme" in result.stderr


def test_an_empty_list_says_so_and_names_no_next_page(run: CommandLine, service: FakeTaskService) -> None:
    assert run("task", "list").stdout == "there is no task yet; `refund-agent submit FILE` creates some\n"
    service.submit(make_ticket())
    result = run("task", "list", "--status", "waiting")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "no task is waiting\n", "")


def test_empty_pages_are_skipped(
    run: CommandLine, service: FakeTaskService, waiting: TaskView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pages(tenants: Any, status: Any, limit: int, after: str | None) -> TaskPage:
        """Like a service that returns an empty page after looking through many tasks in other states."""
        asked.append(after)
        return TaskPage(tasks=(waiting,)) if after == "1000" else TaskPage(tasks=(), next_after=f"{len(asked)}000")

    monkeypatch.setattr(service, "list", pages)
    result = run("task", "list", "--status", "waiting")
    assert (result.stdout.splitlines()[1].split()[0], result.stderr) == (TASK, "")
    assert asked == [None, "1000"]


def test_an_unknown_tenant_is_an_error(run: CommandLine, waiting: TaskView) -> None:
    assert "acme:T-1" in run("task", "list", "--tenant", "acme").stdout
    result = run("task", "list", "--tenant", "acne")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no task of tenant acne; `refund-agent task list` shows all tasks\n"
    assert run("task", "list", "--tenant", "acme", "--status", "parked").stdout == "no task is parked\n"


def test_the_list_for_spreadsheets(run: CommandLine, service: FakeTaskService, waiting: TaskView) -> None:
    service.submit(make_ticket("T-2", "globex"))
    rows = list(csv.DictReader(io.StringIO(run("task", "list", "--csv").stdout)))
    assert [row["task"] for row in rows] == [TASK, "globex:T-2"]
    assert (rows[0]["amount"], rows[0]["currency"], rows[0]["waiting_for"]) == ("12.30", "EUR", "above_limit")
    assert rows[0]["reason"] == WORDS
    assert run("task", "list", "--csv", "--json").exit_code == 2


def test_a_waiting_task_shows_what_there_is_to_know_for_the_decision(
    run: CommandLine, service: FakeTaskService
) -> None:
    service.submit(make_ticket(text="It broke.\nPlease \x1b[31m help."))
    service.wait_for_a_person(TASK)
    order = {"order_id": "O-1", "currency": "EUR", "charged": "99.00", "refunded": "9.00", "refundable": "90.00"}
    account = {"tier": "gold", "risk": "high", "since_days": 12, "refunds_90d": 3}
    times = {"asked_at": "2026-01-02T03:04:05.000+00:00", "expires_at": "2026-01-05T03:04:05.000+00:00"}
    question = {"number": 1, "limit": "50.00", "order": order, "account": account, **times}
    service.put(TASK, question=Question.model_validate(question))
    shown = run("task", "show", TASK).stdout
    for fact in (
        "50.00 EUR",
        "99.00 EUR charged, 9.00 refunded, 90.00 left",
        "gold, risk high, customer for 12 days, 3 refunds in the last 90",
        "2026-01-05 03:04:05",
        "C-1",
        "It broke. Please",
    ):
        assert fact in shown, fact
    assert "\x1b" not in shown
    assert "text" not in json.loads(run("task", "show", TASK, "--json").stdout)


def question() -> Question:
    return Question.model_validate(
        {
            "number": 1,
            "asked_at": "2026-01-01T00:00:00+00:00",
            "expires_at": "2026-01-04T00:00:00+00:00",
            "limit": "50.00",
            "order": {
                "order_id": "O-1",
                "currency": "EUR",
                "charged": "1234.50",
                "refunded": "10.00",
                "refundable": "1224.50",
            },
            "account": {"tier": "gold", "risk": "low", "since_days": 400, "refunds_90d": 2},
        }
    )


def test_a_waiting_task_says_why_and_how_it_is_decided(
    run: CommandLine, service: FakeTaskService, waiting: TaskView
) -> None:
    service.put(TASK, question=question())
    shown = run("task", "show", TASK).stdout
    for fact in (
        f"waits because    {WORDS} (above_limit)",
        "limit            50.00 EUR",
        "proposed refund  12.30 EUR for order O-1",
        "order            O-1: 1,234.50 EUR charged, 10.00 refunded, 1,224.50 left",
        "account          gold, risk low, customer for 400 days, 2 refunds in the last 90",
        "decide by (UTC)  2026-01-04 00:00:00",
    ):
        assert f"{fact}\n" in shown
    *_, first, approve, other, reject = shown.splitlines()
    assert first == f"next: {explain('above_limit').advice}"
    assert other == f"{approve} --order O-1 --amount AMOUNT --currency EUR"
    assert reject == f"  refund-agent task reject {TASK}"
    # The recommended command works.
    words = approve.split()
    assert words[0] == "refund-agent"
    assert run(*words[1:]).exit_code == 0
    assert service.decisions[-1].verdict == "approve"


def test_a_task_without_a_proposal_names_what_an_approval_needs(run: CommandLine, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    service.put(TASK, status=TaskStatus.WAITING, waiting_for="order_unknown")
    lines = run("task", "show", TASK).stdout.splitlines()
    assert lines[-2:] == [
        f"  refund-agent task approve {TASK} --order ORDER --amount AMOUNT --currency CURRENCY",
        f"  refund-agent task reject {TASK}",
    ]


@pytest.mark.parametrize("status", [TaskStatus.PARKED, TaskStatus.PAUSED])
def test_a_paused_or_parked_task_shows_how_to_continue_it(
    run: CommandLine, service: FakeTaskService, status: TaskStatus
) -> None:
    service.submit(make_ticket())
    service.put(TASK, status=status, waiting_for="classify: ModelRefused: status 401" if status == "parked" else None)
    shown = run("task", "show", TASK).stdout
    assert ("parked because" in shown) == (status is TaskStatus.PARKED)
    assert run(*shown.splitlines()[-1].split()[1:]).exit_code == 0
    assert service.get(TASK).status is TaskStatus.RUNNING


def test_a_stuck_task_says_what_it_is_stuck_at(run: CommandLine, service: FakeTaskService) -> None:
    service.submit(make_ticket())
    at = "2026-01-02T03:04:05+00:00"
    service.put(TASK, retrying=Retrying(step="classify", attempt=3, attempts=30, error="llm: status 503", next_at=at))
    said = "classify: attempt 3 of 30 failed, next at 2026-01-02 03:04:05 UTC: llm: status 503"
    assert said in run("task", "show", TASK).stdout
