"""Against the real runtime: a refund is booked once whatever is killed, and books that were changed are found out."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.root import cli
from tests.live import Live, daprd_of, until
from tests.whole import tickets

pytestmark = pytest.mark.runtime

BEFORE, DURING = range(31_000, 31_010), range(31_010, 31_015)
ALL = {f"booked-{number}": 1 for number in (*BEFORE, *DURING)}


@contextmanager
def books(live: Live) -> Iterator[sqlite3.Connection]:
    """The books' file, to be tampered with."""
    path = live.stack.state / "sandbox" / "systems.sqlite"
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        yield connection


def check(live: Live, *options: str) -> Result:
    """`refund-agent ledger check`, as somebody runs it beside the agent."""
    environment = {
        "REFUND_AGENT_STATE_DIR": str(live.stack.state),
        "REFUND_AGENT_DAPR_HTTP_PORT": str(live.stack.ports.dapr_http),
        "REFUND_AGENT_DAPR_GRPC_PORT": str(live.stack.ports.dapr_grpc),
    }
    return CliRunner().invoke(cli, ["ledger", "check", *options], env=environment)


def checked(live: Live) -> dict[str, Any]:
    """The same, for programs."""
    return dict(json.loads(check(live, "--json").stdout))


def send(live: Live, numbers: range) -> list[str]:
    return [live.submit(tickets.refund(f"booked-{number}", number)) for number in numbers]


def ids(live: Live) -> dict[str, str]:
    """The refund of each ticket."""
    return {row["ticket_id"]: row["refund_id"] for row in live.rows("refunds")}


def break_and_kill(live: Live) -> None:
    """Works tickets while the bookkeeping answers nobody, kills the sandbox, and works more while it is down."""
    live.fault("bookkeeping", "timeout")
    live.wait_all(send(live, BEFORE), "completed")
    until(lambda: live.rows("inbox"), "one event was taken, and nobody was told")
    waiting = [row for row in live.rows("outbox") if row["delivered_at"] is None]
    assert len(waiting) == len(BEFORE)
    assert len(live.rows("bookkeeping")) == 1
    more = send(live, DURING)
    live.stack.kill("sandbox")
    live.stack.start("sandbox")
    live.wait_all(more, "completed")


def test_refunds_are_booked_once_and_changed_books_are_found_out(own_stack: Live) -> None:
    live = own_stack
    break_and_kill(live)
    until(lambda: all(row["delivered_at"] for row in live.rows("outbox")), "all events are delivered")
    for book in ("refunds", "cases", "bookkeeping"):
        assert Counter(row["ticket_id"] for row in live.rows(book)) == ALL, book
    booked = {row["ticket_id"]: (row["refund_id"], row["amount"]) for row in live.rows("bookkeeping")}
    assert booked == {ticket: (refund_id, "20.00") for ticket, refund_id in ids(live).items()}
    assert max(row["deliveries"] for row in live.rows("inbox")) > 1, "one came again, and was dropped"

    until(lambda: check(live).exit_code == 0, "the ledger agrees with the books")
    assert checked(live) == {"differences": [], "refunds": agreed(len(ALL))}
    find_a_promise_that_is_not_kept(live)
    find_a_refund_of_a_terminated_task(live)
    find_tampering(live)
    find_books_that_are_down(live)


def of_books(view: dict[str, Any]) -> list[dict[str, Any]]:
    return [difference for difference in view["differences"] if difference["source"] == "books"]


def agreed(count: int) -> dict[str, Any]:
    return {"in_books": count, "in_ledger": count, "in_flight": 0, "problem": ""}


def find_a_refund_of_a_terminated_task(live: Live) -> None:
    """The money went, and the case cannot be closed. The agent does not end such a task; somebody who ends it in Dapr
    makes a difference, which is found."""
    live.fault("cases", "status", status=503)
    task_id = live.submit(tickets.refund("ended", 31_100))
    until(lambda: "ended" in ids(live), "the refund is posted")
    meanwhile = checked(live)
    assert meanwhile == {
        "differences": [],
        "refunds": agreed(len(ALL) + 1) | {"in_books": len(ALL) + 2, "in_flight": 1},
    }
    refused = live.web.post(f"/tasks/{task_id}/terminate", json={"reason": "test"})
    assert (refused.status_code, "already_committed" in refused.text) == (409, True)
    with daprd_of(live.stack).client(30) as client:
        client.post(f"/v1.0/workflows/dapr/{task_id}/terminate").raise_for_status()
    live.heal()
    (found,) = until(lambda: of_books(checked(live)), "the check says so, once the end is recorded")
    assert (found["task_id"], found["what"]) == (task_id, f"refund {ids(live)['ended']}")
    assert found["expected"] == "20.00 EUR for order LD-31100 of ticket ended"
    assert found["found"] == "terminated with no refund"


def find_tampering(live: Live) -> None:
    """Every way in which two books can differ, each named by its own sentence."""
    known = ids(live)
    gone, more, twice = "booked-31000", "booked-31001", "booked-31002"
    copied = "INSERT INTO refunds (tenant, idempotency_key, ticket_id, customer_id, order_id, amount, currency, at)"
    select = (
        "SELECT tenant, 'forged ' || ?, ?, customer_id, order_id, 100, currency, at FROM refunds WHERE ticket_id = ?"
    )
    with books(live) as connection:
        connection.execute("DELETE FROM refunds WHERE ticket_id = ?", (gone,))
        connection.execute("UPDATE refunds SET amount = 2001 WHERE ticket_id = ?", (more,))
        connection.execute(f"{copied} {select}", (1, "nobodys", more))
        connection.execute(f"{copied} {select}", (2, twice, twice))
    result = check(live)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    facts = "20.00 EUR for order LD-{0} of ticket booked-{0}"
    for sentence in (
        f"task bench:{gone}: refund {known[gone]}: the books say none, the ledger {facts.format(31000)}; ",
        f"task bench:{more}: refund {known[more]}: the books say 20.01 EUR for order LD-31001 of ticket {more}, "
        f"the ledger {facts.format(31001)}; ",
        f"task bench:nobodys: refund {ids_of(live, 'nobodys')[0]}: the books say 1.00 EUR for order LD-31001 of ticket "
        "nobodys, the ledger no such ticket; ",
        f"task bench:{twice}: refund {ids_of(live, twice)[1]}: the books say 1.00 EUR for order LD-31002 of ticket "
        f"{twice}, the ledger {known[twice]} already; ",
    ):
        assert [line for line in lines if line.startswith(sentence)], (sentence, lines)
    assert lines[-2:] == [f"refunds: {len(ALL) + 1} in the ledger, {len(ALL) + 3} in the books", "5 differences"]


def ids_of(live: Live, ticket_id: str) -> list[str]:
    return [row["refund_id"] for row in live.rows("refunds") if row["ticket_id"] == ticket_id]


def is_quiet(live: Live) -> bool:
    """Whether nobody has asked the refund system for longer than the pauses of the sidecar last."""
    before, quiet_since = live.fired("refunds"), time.monotonic()
    while time.monotonic() - quiet_since < 3:
        if live.fired("refunds") != before:
            return False
    return True


def find_a_promise_that_is_not_kept(live: Live) -> None:
    """The customer was told, the refund cannot be posted, and somebody ends the task in Dapr. The check names it, and
    its remedy posts the money."""
    number = 31_200
    live.fault("refunds", "status", status=503, containing=f"LD-{number}", skip=2)  # it is held and committed
    task_id = live.submit(tickets.refund("promised", number))
    until(lambda: live.fired("refunds"), "the refund is not posted")
    with daprd_of(live.stack).client(30) as client:
        client.post(f"/v1.0/workflows/dapr/{task_id}/terminate").raise_for_status()
    live.wait(task_id, "terminated")
    until(lambda: is_quiet(live), "the step that Dapr does not end with its task has given up")
    live.heal()
    (found,) = until(lambda: [each for each in of_books(checked(live)) if each["task_id"] == task_id], "it is named")
    assert (found["what"], found["found"]) == ("promised refund", "terminated with no refund")
    assert f"LD-{number} of ticket promised" in found["expected"]
    assert "task rerun" in found["remedy"]
    live.web.post(f"/tasks/{task_id}/rerun").raise_for_status()
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"
    until(lambda: not [each for each in of_books(checked(live)) if each["task_id"] == task_id], "nothing differs")
    assert [row["ticket_id"] for row in live.rows("notifications")].count("promised") == 1


def find_books_that_are_down(live: Live) -> None:
    """What cannot be read is said, and the rest of the check is done all the same."""
    live.fault("refunds", "status", status=503)
    with closing(sqlite3.connect(live.stack.state / "ledger.sqlite", timeout=30)) as ledger, ledger:
        ledger.execute("UPDATE tasks SET category = 'changed_mind' WHERE task_id = 'bench:booked-31003'")
    result = check(live)
    assert result.exit_code == 1
    told, problem, verdict = result.stdout.splitlines()
    assert told.startswith("task bench:booked-31003: category: the sources say damaged, the ledger changed_mind")
    assert problem.startswith("the refunds could not be compared with all of the books: refunds/list: ")
    assert "refund-agent doctor" in problem
    assert verdict.startswith("1 difference; `refund-agent ledger rebuild`")
