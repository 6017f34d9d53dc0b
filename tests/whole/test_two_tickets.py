"""Against the real runtime: two tickets of one order at once. One is paid, and only that customer's letter says so."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from tests.live import Live
from tests.whole import tickets

pytestmark = pytest.mark.runtime

ORDERS = range(42_000, 42_008)


def test_an_order_that_two_tickets_ask_for_is_paid_once(live: Live) -> None:
    sent = [live.submit(tickets.refund(f"{twin}-{number}", number)) for number in ORDERS for twin in ("left", "right")]
    for view in live.wait_all(sent):
        if view["status"] == "waiting":
            live.web.post(f"/tasks/{view['task_id']}/reject", json={}).raise_for_status()
    views = live.wait_all(sent, "completed")

    orders = {f"LD-{number}" for number in ORDERS}
    posted = [row for row in live.rows("refunds") if row["order_id"] in orders]
    assert Counter(row["order_id"] for row in posted) == dict.fromkeys(orders, 1)
    assert {Decimal(row["amount"]) for row in posted} == {Decimal("20.00")}
    mine = {task_id.partition(":")[2] for task_id in sent}
    letters = [row for row in live.rows("notifications") if row["ticket_id"] in mine]
    assert Counter(row["ticket_id"] for row in letters) == dict.fromkeys(mine, 1)
    promised = {row["ticket_id"] for row in letters if row["amount"]}
    assert promised == {row["ticket_id"] for row in posted}
    assert all(("Refund: 20.00 EUR" in row["text"]) == (row["ticket_id"] in promised) for row in letters)
    refunded = {view["ticket_id"] for view in views if view["result"]["outcome"] == "refunded"}
    assert refunded == promised
    kept = [row for row in live.rows("holds") if row["ticket_id"] in mine and row["state"] in ("held", "committed")]
    assert not kept
