"""The component is changed to echo and back while tickets are worked: each call is booked under the provider that it
went to, or under none, and the sandbox's bill agrees again."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter

import pytest

from app.domain.models import CallState
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.parsing import parse_bill
from sandbox.data import load_tickets
from tests.live import Live, until

pytestmark = pytest.mark.runtime

SEED = 20_261_123
TICKETS = 40
SWITCHES = 4
ECHO = """apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: llm
scopes: [agent]
spec:
  type: conversation.echo
  version: v1
  metadata: []
"""


def send_steadily(live: Live, stop: threading.Event, sent: list[str]) -> None:
    """Keeps tickets coming, so that calls are under way at every switch."""
    for ticket in random.Random(SEED).sample(load_tickets(), TICKETS):
        if stop.wait(0.15):
            return
        sent.append(live.submit(ticket.model_dump(mode="json")))


@pytest.mark.timeout(240)
def test_after_a_switch_to_echo_and_back_the_bill_agrees(own_stack: Live) -> None:
    live = own_stack
    component = live.stack.folder / "components" / "llm.yaml"
    sandbox = component.read_text()
    live.outside.put(f"{live.stack.model_url}/latency", json={"seconds": 0.3}).raise_for_status()
    stop, sent = threading.Event(), list[str]()
    sender = threading.Thread(target=send_steadily, args=(live, stop, sent))
    sender.start()
    try:
        for text in (ECHO, sandbox) * SWITCHES:
            stop.wait(0.8)  # long enough for calls to go to either
            component.write_text(text)
        until(lambda: not sender.is_alive(), "all tickets are sent", 120)
    finally:
        stop.set()
        sender.join()
    live.wait_all(sent)

    live.stack.stop("worker")
    calls = live.calls()
    bill = parse_bill("the sandbox's bill", json.dumps({"rows": live.bill()}))
    found = reconcile(calls, bill)
    assert found.unexplained_tokens == 0, [str(each) for each in found.findings if not each.cause.explains]
    booked = Counter(call.provider for call in calls if call.state is CallState.SETTLED)
    assert booked["conversation.echo"] > 0
    assert booked["conversation.openai"] > 0
    assert found.others["conversation.echo"] >= booked["conversation.echo"]
    answered = {call.call_id: call for call in calls if call.state is CallState.SETTLED}
    for call in answered.values():  # the sandbox names a model, echo none
        assert call.provider in ("", "conversation.openai" if call.model else "conversation.echo"), call
    assert found.unknown_provider < len(answered) / 4, booked
