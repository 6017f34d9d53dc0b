"""Our record against the sandbox's bill on the real runtime: nothing unexplained, whatever fails and is killed."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import httpx
import pytest

from app.domain.models import CallState
from app.finance.reconciliation.bill import CLOCK_TOLERANCE, Bill
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.parsing import parse_bill
from app.finance.reconciliation.reconciliation_types import DifferenceCause, Reconciliation
from app.pricing.charge_types import CallRecord
from sandbox.data import load_tickets
from tests.live import Live, until

pytestmark = pytest.mark.runtime

SEED = 20_261_122
SAMPLES = 30
TROUBLED = 40
KILLS = 6
SHARE = 0.07
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500},
    {"kind": "timeout"},
    {"kind": "cut"},
)


def both_sides(live: Live) -> tuple[tuple[CallRecord, ...], Bill, tuple[UnattributedRetries, ...]]:
    """Our record and the bill. The worker is stopped first: then it has counted all that the sidecar did."""
    live.stack.stop("worker")
    with live.records() as records:
        calls, unattributed = records.calls(), records.unattributed_retries()
    return calls, parse_bill("the sandbox's bill", json.dumps({"rows": live.bill()})), unattributed


def by_minute(rows: Sequence[dict[str, Any]]) -> str:
    """The sandbox's bill as OpenAI would export it, in buckets of a minute."""
    buckets: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["billed"]:
            start = int(datetime.fromisoformat(row["at"]).timestamp()) // 60 * 60
            nothing = {"model": row["model"], "input_tokens": 0, "output_tokens": 0, "input_cached_tokens": 0}
            result = buckets.setdefault(start, {}).setdefault(row["model"], nothing | {"num_model_requests": 0})
            result["num_model_requests"] += 1
            result["input_tokens"] += row["input_tokens"]
            result["input_cached_tokens"] += row["cached_tokens"]
            result["output_tokens"] += row["output_tokens"]
    made = [
        {"object": "bucket", "start_time": start, "end_time": start + 60, "results": list(results.values())}
        for start, results in sorted(buckets.items())
    ]
    return json.dumps({"object": "page", "data": made, "has_more": False, "next_page": None})


def unexplained(found: Reconciliation) -> str:
    """What a failing test says."""
    return "\n".join(str(finding) for finding in found.findings if not finding.cause.explains)


def without(calls: Sequence[CallRecord], gone: CallRecord) -> list[CallRecord]:
    return [call for call in calls if call is not gone]


def doubled(calls: Sequence[CallRecord], twice: CallRecord) -> list[CallRecord]:
    return [*calls, replace(twice, call_id="twice", execution_id="of another step")]


@pytest.mark.timeout(300)
def test_a_clean_run_agrees_to_the_token(own_stack: Live) -> None:
    live = own_stack
    samples = random.Random(SEED).sample(load_tickets(), SAMPLES)
    task_ids = [live.submit(ticket.model_dump(mode="json")) for ticket in samples]
    live.wait_all(task_ids)
    calls, bill, unattributed = both_sides(live)

    found = reconcile(calls, bill, unattributed=unattributed)
    assert found.findings == (), unexplained(found)
    assert found.unexplained_tokens == 0
    assert found.agreeing == len(bill.rows) == len(calls) >= SAMPLES
    assert found.record == found.billed

    minutes = parse_bill("usage.json", by_minute(live.bill()))
    summed = reconcile(calls, minutes, unattributed=unattributed)
    assert summed.unexplained_tokens == 0, unexplained(summed)
    assert minutes.until is not None
    if all(call.ended_at and call.ended_at + CLOCK_TOLERANCE < minutes.until for call in calls):  # none may be cut off
        for call in calls:
            size = call.usage.input_tokens
            for changed in (without(calls, call), doubled(calls, call)):
                assert reconcile(changed, minutes).unexplained_tokens >= (size or 0), call

    for call in calls:
        assert reconcile(without(calls, call), bill).unexplained_tokens > 0, call
        assert reconcile(doubled(calls, call), bill).unexplained_tokens > 0, call
    for row in bill.rows:
        others = tuple(other for other in bill.rows if other is not row)
        assert reconcile(calls, replace(bill, rows=others)).unexplained_tokens > 0, row
        assert reconcile(calls, replace(bill, rows=(*bill.rows, row))).unexplained_tokens > 0, row


def beyond_doubt(call: CallRecord, calls: Sequence[CallRecord]) -> bool:
    """Whether no other call asked for as many tokens at about the same time, so that none can stand in for this one."""
    begin, end = call.started_at - CLOCK_TOLERANCE, (call.ended_at or call.started_at) + CLOCK_TOLERANCE
    return not any(
        other is not call
        and call.usage.input_tokens in (other.usage.input_tokens, other.reserve_input)
        and other.started_at <= end
        and (other.ended_at is None or other.ended_at >= begin)
        for other in calls
    )


def billed_once(call: CallRecord, bill: Bill) -> bool:
    """Whether one request on the bill could be this call's, and no further one: a repetition that the provider billed
    for as many tokens is what a call recorded twice would look like."""
    begin, end = call.started_at - CLOCK_TOLERANCE, (call.ended_at or call.started_at) + CLOCK_TOLERANCE
    used = (call.usage.input_tokens, call.usage.output_tokens)
    found = [row for row in bill.rows if begin <= row.since <= end]
    return sum((row.count.input_tokens, row.count.output_tokens) == used for row in found) == 1


def trouble(live: Live, chance: random.Random) -> Counter[str]:
    """Kills worker and sidecar at random moments; returns how often each."""
    kills: Counter[str] = Counter()
    for number in range(KILLS):
        threading.Event().wait(chance.uniform(0.5, 4.0))
        victim = ("worker", "daprd")[number % 2]
        live.stack.kill(victim)
        live.stack.start(victim)
        kills[victim] += 1
    return kills


def send_steadily(live: Live, stop: threading.Event, sent: list[str]) -> None:
    """Keeps tickets coming; what the agent does not take while it is away is sent again."""
    for ticket in random.Random(SEED).sample(load_tickets(), TROUBLED):
        while not stop.is_set():
            try:
                response = live.web.post("/tasks", json=ticket.model_dump(mode="json"))
            except httpx.TransportError:
                continue
            finally:
                stop.wait(0.2)
            if response.status_code in (200, 201):
                sent.append(str(response.json()["task_id"]))
                break


def work_through_trouble(live: Live) -> None:
    """Tickets under seeded faults of a slow model while worker and sidecar are killed; then health, until all rest."""
    live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": 0.4}).raise_for_status()
    for number, fault in enumerate(FAULTS):
        live.fault("model", share=SHARE, seed=SEED + number, **fault)
    sent: list[str] = []
    stop = threading.Event()
    sender = threading.Thread(target=send_steadily, args=(live, stop, sent))
    sender.start()
    try:
        assert trouble(live, random.Random(SEED)) == {"worker": KILLS / 2, "daprd": KILLS / 2}
        until(lambda: not sender.is_alive(), "all tickets are sent", 120)
    finally:
        stop.set()
        sender.join()
    assert live.fired("model") >= 10
    live.heal()
    live.wait_all(sent, seconds=240)


@pytest.mark.timeout(600)
def test_faults_and_kills_leave_nothing_unexplained(repeating_stack: Live) -> None:
    live = repeating_stack
    work_through_trouble(live)
    calls, bill, unattributed = both_sides(live)
    found = reconcile(calls, bill, unattributed=unattributed)
    assert found.unexplained_tokens == 0, unexplained(found)
    assert {DifferenceCause.INTERRUPTED_CALL, DifferenceCause.FAILED_CALL, DifferenceCause.SIDECAR_RETRY} <= set(
        found.causes
    ), found.causes
    assert found.billed.tokens == sum(row.count.tokens for row in bill.rows)

    summed = reconcile(calls, parse_bill("usage.json", by_minute(live.bill())), unattributed=unattributed)
    assert summed.unexplained_tokens == 0, unexplained(summed)

    paid = [call for call in calls if call.state is CallState.SETTLED]
    alone = [call for call in paid if beyond_doubt(call, calls)]
    once = [call for call in paid if billed_once(call, bill)]
    assert min(len(alone), len(once)) >= len(paid) / 4
    for call in alone:
        assert reconcile(without(calls, call), bill, unattributed=unattributed).unexplained_tokens > 0, call
    for call in once:
        assert reconcile(doubled(calls, call), bill, unattributed=unattributed).unexplained_tokens > 0, call
