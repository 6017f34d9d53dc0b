"""The bill dates a request by its arrival, however late its answer leaves."""

from __future__ import annotations

import http.client
import json
import threading
import time
from datetime import timedelta
from typing import Any

from runtime.loopback import HOST

from .conftest import KEY, START, Served
from .test_fault_kinds import PATH, wait_for_bill

LATER = START + timedelta(seconds=40)


def test_a_request_is_dated_when_it_began_to_come_in(served: Served, chat: dict[str, Any]) -> None:
    body = json.dumps(chat).encode()
    connection = http.client.HTTPConnection(HOST, served.port, timeout=20)
    connection.putrequest("POST", PATH)
    for name, value in {**KEY, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body[:10])
    assert served.call("GET", "/healthz")[0] == 200, "the server has read what came before"
    served.now = LATER
    connection.send(body[10:])
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["created"] == int(START.timestamp())
    assert [row["at"] for row in served.bill()] == [START.isoformat()]


def test_an_answer_that_is_held_back_changes_no_date(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="slow", seconds=0.5)
    client = threading.Thread(target=served.call, args=("POST", PATH, chat))
    client.start()
    wait_for_any(served)
    served.now = LATER
    client.join(20)
    (row,) = wait_for_bill(served, 200)
    assert (row["status"], row["at"]) == (200, START.isoformat())


def wait_for_any(served: Served) -> None:
    """Returns once the bill has a row: its answer is still held back."""
    deadline = time.monotonic() + 60
    while not served.bill():
        assert time.monotonic() < deadline, "no row within a minute"
        time.sleep(0.01)
