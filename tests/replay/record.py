"""Records histories for the replay test, from the running product: python -m tests.replay.record NAME

NAME is the version that they were recorded with. Old ones stay as long as tasks of that version may be at work.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

from dapr.ext.workflow._durabletask.internal import protos

from app.domain.models import Decision, Refund
from tests.live import Live, make_stack, until
from tests.whole import tickets

FOLDER = Path(__file__).parent / "histories"


def read(file: Path) -> list[protos.HistoryEvent]:
    """The events of one recorded history, in Dapr's order."""
    return list(protos.GetInstanceHistoryResponse.FromString(gzip.decompress(file.read_bytes())).events)


def write(file: Path, events: list[protos.HistoryEvent]) -> None:
    """Keeps a history; what vouches for it is no part of the replay."""
    kept = protos.GetInstanceHistoryResponse(events=events)
    for event in kept.events:
        for kind in ("taskCompleted", "taskFailed"):
            if event.HasField(kind):
                getattr(event, kind).ClearField("attestation")
    file.write_bytes(gzip.compress(kept.SerializeToString(deterministic=True), mtime=0))


def main() -> None:
    """One ticket of each way through the workflow."""
    folder = FOLDER / sys.argv[1]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as state, make_stack(Path(state)) as stack:
        live = Live(stack)
        for name, task_id in {
            "answered": _ended(live, live.submit(tickets.question("answered", 37_000))),
            "refunded": _ended(live, live.submit(tickets.refund("refunded", 37_010))),
            "approved": _decided(live, "approved", 37_020, "approve", refund=_other(37_020, "12.00")),
            "rejected": _decided(live, "rejected", 37_030, "reject"),
            "refused-then-approved": _refused(live),
            "parked": _parked(live),
            "retried": _retried(live),
        }.items():
            write(folder / f"{name}.pb.gz", live.history(task_id))
        live.close()


def _ended(live: Live, task_id: str) -> str:
    live.wait(task_id, "completed")
    return task_id


def _decided(live: Live, ticket_id: str, number: int, verb: str, **body: object) -> str:
    task_id = live.submit(tickets.greedy(ticket_id, number))
    live.wait(task_id, "waiting")
    live.web.post(f"/tasks/{task_id}/{verb}", json=body).raise_for_status()
    return _ended(live, task_id)


def _refused(live: Live) -> str:
    """A person asks for more than is left of the order, past the check of the API, and then for less."""
    task_id = live.submit(tickets.greedy("refused", 37_040))
    live.wait(task_id, "waiting")
    too_much = Decision(
        decision_id="d-1",
        verdict="approve",
        by="ann",
        question=1,
        refund=Refund(order_id="LD-37040", amount=Decimal("20.01"), currency="EUR"),
    )
    live.tell_sidecar(task_id, "raiseEvent/decision", too_much.model_dump_json())
    until(lambda: live.view(task_id)["decisions"], "the decision to be refused")
    live.web.post(f"/tasks/{task_id}/approve", json={"refund": _other(37_040, "5.00")}).raise_for_status()
    return _ended(live, task_id)


def _parked(live: Live) -> str:
    """The refund system refuses for good until somebody has the task resumed."""
    live.fault("notifications", "status", status=400)
    task_id = live.submit(tickets.refund("parked", 37_050))
    live.wait(task_id, "parked")
    live.heal()
    live.web.post(f"/tasks/{task_id}/resume").raise_for_status()
    return _ended(live, task_id)


def _retried(live: Live) -> str:
    """The model and a system fail for a while."""
    live.fault("model", "status", status=503, count=2)
    live.fault("accounts", "status", status=503, count=8)
    return _ended(live, live.submit(tickets.refund("retried", 37_060)))


def _other(number: int, amount: str) -> dict[str, str]:
    return {"order_id": f"LD-{number}", "amount": amount, "currency": "EUR"}


if __name__ == "__main__":
    main()
