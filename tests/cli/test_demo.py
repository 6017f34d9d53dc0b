"""`demo` with the bundled samples and a real server: it accepts right runs and names what is wrong."""

from __future__ import annotations

import json
from typing import Any

from app.domain.models import Category, Outcome, TaskResult, TaskStatus, Ticket
from sandbox.data import load_expected, load_tickets
from tests.cli.books import RefundBookServer
from tests.cli.conftest import CommandLine
from tests.web.fakes import FakeTaskService

EXPECTED = load_expected()
REFUNDED = [task_id for task_id, want in EXPECTED.items() if want.outcome is Outcome.REFUNDED]


def settle_correctly(ticket: Ticket) -> dict[str, Any]:
    """The task of a sample as a correct agent works it."""
    want = EXPECTED[ticket.task_id]
    if want.outcome is None:
        waits = {"status": want.status, "waiting_for": "above_limit", "category": want.category}
        return waits | {"proposed_refund": want.refund}
    result = TaskResult(outcome=want.outcome, category=want.category, refund=want.refund)
    return {"status": want.status, "result": result}


def book() -> list[dict[str, Any]]:
    rows = []
    for task_id in REFUNDED:
        tenant, ticket_id = task_id.split(":")
        refund = EXPECTED[task_id].refund
        assert refund is not None
        rows.append({"tenant": tenant, "ticket_id": ticket_id, "at": "now", **refund.model_dump(mode="json")})
    return rows


def test_a_good_agent_passes(run: CommandLine, service: FakeTaskService) -> None:
    service.settle = settle_correctly
    with RefundBookServer(book()) as books:
        result = run("demo", "--systems-url", books.url)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    tenants = sorted({ticket.tenant for ticket in load_tickets()})
    assert lines[0] == ["outcome", *tenants, "all"]
    assert lines[-4][0] == "all"
    assert lines[-4][-1] == str(len(EXPECTED))
    clear = sum(want.clear for want in EXPECTED.values())
    assert f"{clear} of {clear} clear tickets right (100.0 %)" in result.stdout
    assert f"{len(REFUNDED)} booked, all exactly as expected" in result.stdout


def test_it_can_be_run_again_and_read_by_programs(run: CommandLine, service: FakeTaskService) -> None:
    service.settle = settle_correctly
    with RefundBookServer(book()) as books:
        first = run("demo", "--systems-url", books.url, "--json")
        again = run("demo", "--systems-url", books.url, "--json")
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout == again.stdout
    view = json.loads(first.stdout)
    assert view["differences"] == view["misclassified"] == []
    assert view["refunds_due"] == view["refunds_booked"] == len(REFUNDED)
    assert sum(sum(counts.values()) for counts in view["outcomes"].values()) == len(EXPECTED)


def test_a_refund_too_many_and_one_too_few_are_named(run: CommandLine, service: FakeTaskService) -> None:
    service.settle = settle_correctly
    rows = book()
    with RefundBookServer([*rows[1:], rows[1]]) as books:
        result = run("demo", "--systems-url", books.url)
    assert result.exit_code == 1
    assert f"{len(REFUNDED)} booked, {len(REFUNDED)} due; 2 tasks differ" in result.stdout
    named = [line.split(": the books")[0] for line in result.stderr.splitlines() if ": the books" in line]
    assert sorted(named) == sorted(REFUNDED[:2])


def test_a_wrong_category_and_a_task_that_fails_are_named(run: CommandLine, service: FakeTaskService) -> None:
    def settle_wrongly(ticket: Ticket) -> dict[str, Any]:
        right = settle_correctly(ticket)
        if ticket.task_id == REFUNDED[0]:
            return {"status": TaskStatus.FAILED, "error": "broken"}
        if ticket.task_id == REFUNDED[1]:
            wrong = right["result"].model_copy(update={"category": Category.FRAUD})
            return right | {"result": wrong}
        return right

    service.settle = settle_wrongly
    with RefundBookServer(book()) as books:
        result = run("demo", "--systems-url", books.url)
    assert result.exit_code == 1
    assert f"{REFUNDED[0]}: must be refunded, is failed (broken)" in result.stderr
    assert f"{REFUNDED[1]}: is {EXPECTED[REFUNDED[1]].category.value}, was classified as fraud" in result.stderr


def test_tasks_that_never_rest_end_it_after_the_time_given(run: CommandLine) -> None:
    with RefundBookServer([]) as books:
        result = run("demo", "--systems-url", books.url, "--timeout", "0.1")
    assert result.exit_code == 1
    assert result.stderr.count("is running") == len(EXPECTED)


def test_a_token_of_one_tenant_is_not_enough(run: CommandLine) -> None:
    result = run("demo", who="acme-admin")
    assert result.exit_code == 1
    assert "samples were not accepted" in result.stderr.splitlines()[-1]


def test_books_that_do_not_answer_are_named(run: CommandLine, service: FakeTaskService) -> None:
    service.settle = settle_correctly
    away = run("demo", "--systems-url", "http://127.0.0.1:1")
    assert away.exit_code == 1
    assert "the refund book does not answer at http://127.0.0.1:1/books/refunds" in away.stderr
    stranger = run("demo", "--systems-url", run.url)
    assert "is not a refund book of the sandbox" in stranger.stderr.splitlines()[-1]
