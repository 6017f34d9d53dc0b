"""Records the fixed ledger from the running product: python -m tests.golden.record

Tickets of all kinds, decisions, faults, a worker and a sidecar that are killed. Afterwards `tests.golden.answers` must
write the answers again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.store import BILL, save
from tests.live import Live, make_stack, until
from tests.paths import ROOT
from tests.whole import tickets

_SAMPLES = ROOT / "sandbox" / "data" / "tickets.jsonl"
_SAMPLE_COUNT = 14


def main() -> None:
    """Works the tickets, stops the worker in order, and keeps ledger and bill."""
    with tempfile.TemporaryDirectory() as state, make_stack(Path(state)) as stack:
        live = Live(stack)
        samples = [json.loads(line) for line in _SAMPLES.read_text().splitlines()[:_SAMPLE_COUNT]]
        live.wait_all([live.submit(ticket) for ticket in samples])
        _decide(live)
        _fail(live)
        _kill(live, "worker", 38_200)
        _kill(live, "daprd", 38_210)
        _leave_unfinished(live)
        stack.stop("worker")
        save(stack.state / "ledger.sqlite")
        BILL.write_text(json.dumps({"rows": live.bill()}, indent=1) + "\n")
        live.close()


def _decide(live: Live) -> None:
    """A refund of another amount, a rejected one, and one that asks for too much first."""
    for number, verb, body in (
        (38_000, "approve", {"refund": _other(38_000, "12.00"), "note": "only the cup"}),
        (38_010, "reject", {"note": "asked for 5000 EUR"}),
    ):
        task_id = live.submit(tickets.greedy(f"decided-{number}", number))
        live.wait(task_id, "waiting")
        live.web.post(f"/tasks/{task_id}/{verb}", json=body).raise_for_status()
        live.wait(task_id, "completed")
    task_id = live.submit(tickets.greedy("refused", 38_020))
    live.wait(task_id, "waiting")
    too_much = live.web.post(f"/tasks/{task_id}/approve", json={"refund": _other(38_020, "90.00")})
    assert too_much.is_error, too_much.text
    live.web.post(f"/tasks/{task_id}/approve", json={"refund": _other(38_020, "5.00")}).raise_for_status()
    live.wait(task_id, "completed")


def _fail(live: Live) -> None:
    """Every way in which a model call fails, and a system that is away for a while."""
    faults: tuple[dict[str, Any], ...] = (
        {"kind": "status", "status": 503, "count": 2},
        {"kind": "cut", "count": 1},
        {"kind": "malformed", "count": 1},
        {"kind": "nonsense", "count": 1},
        {"kind": "timeout", "count": 1},
    )
    for number, fault in enumerate(faults):
        live.fault("model", **fault)
        live.wait(live.submit(tickets.refund(f"model-{fault['kind']}", 38_100 + number)), "completed")
        live.heal()
    live.fault("accounts", "status", status=503, count=8)
    live.wait(live.submit(tickets.refund("account-away", 38_110)), "completed")
    live.heal()


def _kill(live: Live, name: str, number: int) -> None:
    """Kills a process while a model call is under way."""
    live.fault("model", "slow", seconds=5.0, count=1, containing=f"LD-{number}")
    task_id = live.submit(tickets.refund(f"killed-{name}", number))
    until(lambda: live.fired("model"), "a call is under way")
    live.stack.kill(name)
    live.stack.start(name)
    live.heal()
    live.wait(task_id, "completed", "waiting")


def _leave_unfinished(live: Live) -> None:
    """One of each that is not at its end, and one that was ended."""
    waiting = live.submit(tickets.greedy("waiting", 38_300))
    ended = live.submit(tickets.greedy("ended", 38_310))
    live.wait_all([waiting, ended], "waiting")
    live.web.post(f"/tasks/{ended}/terminate", json={"reason": "sent twice"}).raise_for_status()
    live.fault("notifications", "status", status=400)
    parked = live.submit(tickets.refund("parked", 38_320))
    live.wait(parked, "parked")
    live.wait(ended, "terminated")
    until(lambda: _recorded(live) == _taken(live), lambda: f"{_recorded(live)} of {_taken(live)} tasks are recorded")


def _recorded(live: Live) -> int:
    return len(live.web.get("/cost/report?by=task").json()["groups"])


def _taken(live: Live) -> int:
    return len(live.web.get("/tasks?limit=200").json()["tasks"])


def _other(number: int, amount: str) -> dict[str, str]:
    return {"order_id": f"LD-{number}", "amount": amount, "currency": "EUR"}


if __name__ == "__main__":
    main()
