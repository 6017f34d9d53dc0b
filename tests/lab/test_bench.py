"""The rules of the benchmarks: equal cases are compared, and DBOS uses the same prompts as the product."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app import bootstrap
from app.domain.models import Category, Classification, Outcome, Ticket
from app.domain.orders import Account
from app.ledger.store.tickets import StoredTicket
from app.llm.conversation import Message
from app.workflow.activities import tools
from lab.bench import machine, results
from lab.bench.dbos_baseline import work
from lab.bench.load import CaseWatch
from lab.bench.measure import Window
from lab.bench.overhead import worker as overhead
from lab.bench.plan import VARIANTS, Case, Side, Store, Submission, blocks
from lab.tickets import Shape, make_ticket
from runtime.errors import UserError
from sandbox.systems.orders import visitor_orders
from tests import makers

CLASSIFICATION = Classification(category=Category.DAMAGED, wants_refund=True, language="en", confidence=Decimal("0.9"))


def window(rate: float, alone: tuple[float, ...] = ()) -> Window:
    """A round with this many tasks a second."""
    return Window(
        tasks=round(10 * rate),
        seconds=10,
        others_cores=0.5,
        cpu_ms_per_task={"worker": rate, "daprd": 1.0},
        input_tokens_per_task=800,
        output_tokens_per_task=80,
        alone_seconds=alone,
    )


def case(side: Side = Side.OURS, **changes: Any) -> Case:
    """A case without latency."""
    values: dict[str, Any] = {"store": Store.POSTGRES, "submission": Submission.HTTP, "latency": 0.0}
    return Case(side, **(values | {"shape": Shape.QUESTION} | changes))


def test_the_median_of_the_rounds_counts() -> None:
    (summary,) = results.summaries({case(): [window(10), window(50), window(20)]})
    assert (summary.rate, summary.spread) == (20, (10, 50))
    assert summary.cpu_ms_per_task == {"worker": 20, "daprd": 1.0}


def test_percentiles_are_of_all_rounds_together() -> None:
    (summary,) = results.summaries({case(): [window(1, (0.3, 0.1)), window(1, (0.2,))]})
    assert [results.share(summary.alone, part) for part in (0.5, 0.95)] == [0.2, 0.3]
    assert results.share([], 0.5) is None


def test_dbos_is_compared_on_the_same_database_and_submission_only() -> None:
    summaries = results.summaries(
        {
            case(): [window(40)],
            case(store=Store.REDIS): [window(90)],
            case(submission=Submission.DIRECT): [window(95)],
            case(Side.DBOS): [window(60)],
        }
    )
    (goal,) = results.goals(summaries)
    assert (goal.met, goal.seen) == (False, "40.0 against 60.0 tasks/s")


def test_the_latency_goal_takes_the_better_server_and_never_sqlite() -> None:
    summaries = results.summaries(
        {
            case(latency=1.0): [window(29)],
            case(latency=1.0, store=Store.REDIS): [window(31)],
            case(latency=1.0, store=Store.SQLITE): [window(99)],
        }
    )
    (goal,) = results.goals(summaries)
    assert (goal.met, goal.seen) == (True, "31.0 (Redis, HTTP)")


def test_a_round_starts_with_ours_and_dbos_on_the_same_database() -> None:
    order = blocks(tuple(Store), {0.0: VARIANTS[0], 1.0: VARIANTS[2]}, quick=False)
    assert [(block.side, block.store) for block in order] == [
        (Side.OURS, Store.POSTGRES),
        (Side.DBOS, Store.POSTGRES),
        (Side.DBOS, Store.POSTGRES),
        (Side.OURS, Store.REDIS),
        (Side.OURS, Store.SQLITE),
    ]
    ours, dbos = order[0].cases, order[1].cases + order[2].cases
    assert {results._comparison_key(case) for case in ours} == {results._comparison_key(case) for case in dbos}


@pytest.mark.parametrize("shape", Shape)
def test_each_ticket_has_a_customer_whom_the_books_know(shape: Shape) -> None:
    ticket = make_ticket(shape, 7)
    (order,) = visitor_orders(ticket.tenant, ticket.customer_id, 700_000)
    assert ticket.order_id in (None, order.order_id)
    assert make_ticket(shape, 8).ticket_id != ticket.ticket_id


def test_dbos_offers_the_same_tools_with_the_same_texts() -> None:
    offered = work.draft_request(_ticket(), CLASSIFICATION, _account(), ())["tools"]
    ours = [(tool.name, tool.description, tool.parameters) for tool in tools.definitions()]
    theirs = [(f["name"], f["description"], f["parameters"]) for f in (tool["function"] for tool in offered)]
    assert theirs == ours


def test_dbos_classifies_with_the_same_prompt() -> None:
    stage = importlib.import_module("app.workflow.activities.classify")
    ours = stage._messages(_stored_ticket(_ticket()), None)
    assert _as_sent(ours) == work.classify_request(_ticket())["messages"]


def test_dbos_drafts_with_the_same_prompt_after_the_same_lookups() -> None:
    stage = importlib.import_module("app.workflow.activities.draft_refund")
    call = tools.ToolCall(id="call_1_1", tool="lookup_order", argument="AC-10442")
    question = stage.DraftInput(
        task_id="bench:B-1",
        turn=2,
        category=CLASSIFICATION.category,
        order_id=_ticket().order_id,
        account=_account(),
        lookups=(stage.Lookup(turn=1, call=call, order=makers.order()),),
    )
    lookups = (work.LookupResult(call, order=makers.order()),)
    theirs = work.draft_request(_ticket(), CLASSIFICATION, _account(), lookups)["messages"]
    assert _as_sent(stage._messages(_stored_ticket(_ticket()), question)) == theirs


def test_dbos_stops_if_a_person_would_have_to_decide() -> None:
    proposal = work.Proposal.model_validate(
        {"action": "escalate", "reason": "unsure", "confidence": "0.9", "reply": "We will see."}
    )
    with pytest.raises(work.UnexpectedOutcome, match="model_unsure"):
        work.decide(proposal, CLASSIFICATION, _account(), (), None)


def test_dbos_answers_without_a_refund_if_the_model_says_so() -> None:
    answer = {
        "choices": [
            {
                "message": {
                    "content": json.dumps(
                        {"action": "answer", "reason": "information", "confidence": 0.9, "reply": "Yes."}
                    )
                }
            }
        ]
    }
    proposal = work.read_draft(answer, 1)
    assert isinstance(proposal, work.Proposal)
    assert work.decide(proposal, CLASSIFICATION, _account(), (), None) == (Outcome.ANSWERED, None)


def test_the_cpu_time_of_a_process_is_measured() -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as burner:
        assert burner.stdout is not None
        burner.stdout.readline()
        assert 0.18 <= machine.cpu_seconds(burner.pid) < 2
        burner.communicate(b"\n")
    assert machine.cpu_since({"worker": 1.0}, {"worker": 3.5}) == {"worker": 2.5}
    assert machine.cpu_seconds(os.getpid(), with_children=False) > 0


@pytest.mark.parametrize("kind", [overhead.WHOLE, overhead.BARE])
def test_the_overhead_worker_replaces_only_parts_that_exist(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = {"DaprConversation", "LLMGateway"}
    bare = {"Journal", "Executions", "Projector", "SidecarWatch", "Telemetry"}
    for name in timed | bare:
        monkeypatch.setattr(bootstrap, name, getattr(bootstrap, name))  # undoes the changes of `main` afterwards
    before, served = dict(vars(bootstrap)), {}
    monkeypatch.setattr(bootstrap, "serve", lambda _: served.update(vars(bootstrap)))
    overhead.main(kind, tmp_path / "timings.json")
    changed = {name for name, part in served.items() if before[name] is not part}
    assert changed == {"serve"} | timed | (bare if kind == overhead.BARE else set())


def test_the_watch_resolves_the_future_of_a_closed_case(tmp_path: Path) -> None:
    with closing(_books(tmp_path)) as books:
        books.execute("INSERT INTO cases (ticket_id, outcome) VALUES ('B-0', 'answered')")
        books.commit()
        count, outcomes = asyncio.run(_watch(tmp_path, books))
    assert (count, outcomes) == (1, {"refunded": 1}), "what was closed before is not counted"


def test_the_watch_gives_up_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _books(tmp_path).close()
    monkeypatch.setattr("lab.bench.load.GIVE_UP_SECONDS", 0.05)
    with pytest.raises(UserError, match="the case of B-1 was not closed"):
        asyncio.run(_wait_for_open_case(tmp_path))


async def _watch(folder: Path, books: sqlite3.Connection) -> tuple[int, dict[str, int]]:
    async with CaseWatch(folder, poll_seconds=0.001) as watch:
        closed = watch.expect("B-1")
        books.execute("INSERT INTO cases (ticket_id, outcome) VALUES ('B-1', 'refunded')")
        books.commit()
        await watch.wait(closed, "the case of B-1")
        return watch.count, dict(watch.outcomes)


async def _wait_for_open_case(folder: Path) -> None:
    async with CaseWatch(folder) as watch:
        await watch.wait(watch.expect("B-1"), "the case of B-1")


def _books(folder: Path) -> sqlite3.Connection:
    books = sqlite3.connect(folder / "systems.sqlite")
    books.execute("PRAGMA journal_mode = WAL")
    books.execute("CREATE TABLE cases (id INTEGER PRIMARY KEY, ticket_id TEXT, outcome TEXT)")
    books.commit()
    return books


def _ticket() -> Ticket:
    return make_ticket(Shape.REFUND, 1)


def _account() -> Account:
    return makers.account()


def _stored_ticket(ticket: Ticket) -> StoredTicket:
    values = ticket.model_dump() | {
        "task_id": ticket.task_id,
        "sequence": 1,
        "digest": "",
        "started": True,
        "recorded": False,
    }
    return StoredTicket(**values, received_at=datetime(2026, 1, 1, tzinfo=UTC))


def _as_sent(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Our messages as OpenAI's protocol carries them."""
    return [_message_as_sent(message) for message in messages]


def _message_as_sent(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.text}
    sent: dict[str, Any] = {"role": message.role, "content": message.text or None}
    if message.tool_calls:
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return sent
