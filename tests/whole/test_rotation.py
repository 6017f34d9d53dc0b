"""The root certificate is renewed: histories that were signed below the old one still verify, and their tasks go on."""

from __future__ import annotations

import pytest

from app.dapr.history.reader import HistoryReader
from app.domain.errors import HistoryTampered
from tests.live import Live, daprd_of
from tests.whole import tickets

pytestmark = pytest.mark.runtime


def renew(live: Live) -> str:
    """Has sentry make a new root and issuer; returns the old root."""
    stack = live.stack
    stack.stop_all()
    keys = stack.state / "keys"
    old = (keys / "ca.crt").read_text()
    for file in ("ca.crt", "issuer.crt", "issuer.key"):
        (keys / file).unlink()
    stack.start_all()
    return old


def trust(live: Live, root: str) -> None:
    """Adds a root to the trust anchors."""
    live.stack.stop_all()
    anchors = live.stack.state / "keys" / "ca.crt"
    anchors.write_text(anchors.read_text() + root)
    live.stack.start_all()


def test_tasks_stop_below_a_new_root_and_go_on_when_the_old_one_is_trusted_as_well(own_stack: Live) -> None:
    live = own_stack
    done = live.submit(tickets.refund("done", 38_000))
    live.wait(done, "completed")
    waiting = live.submit(tickets.greedy("waits", 38_010))
    live.wait(waiting, "waiting")
    approval = {"refund": {"order_id": "LD-38010", "amount": "20.00", "currency": "EUR"}}

    old = renew(live)
    with HistoryReader(daprd_of(live.stack)) as histories, pytest.raises(HistoryTampered):
        histories.read(done)
    assert live.web.post(f"/tasks/{waiting}/approve", json=approval).status_code == 409
    assert live.view(waiting)["status"] == "waiting"
    between = live.submit(tickets.refund("between", 38_020))
    live.wait(between, "completed")

    trust(live, old)
    live.web.post(f"/tasks/{waiting}/approve", json=approval).raise_for_status()
    assert live.wait(waiting, "completed")["result"]["outcome"] == "refunded"
    with HistoryReader(daprd_of(live.stack)) as histories:
        assert all(histories.read(task_id).ended_at for task_id in (done, waiting, between))
