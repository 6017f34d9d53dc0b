"""Every kind of fault as a client meets it on a real socket, and what the bill says afterwards."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.loopback import HOST, free_ports
from sandbox.faults import CRASH_EXIT_CODE
from sandbox.model.server import NONSENSE

from .conftest import KEY, Served

PATH = "/v1/chat/completions"


def wait_for_bill(served: Served, status: int) -> list[dict[str, Any]]:
    """The bill once its only row has this status, or as it is after a minute."""
    deadline = time.monotonic() + 60
    rows = served.bill()
    while [row["status"] for row in rows] != [status] and time.monotonic() < deadline:
        time.sleep(0.01)
        rows = served.bill()
    return rows


def content(answer: Any) -> str:
    """The text of a completion."""
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_status_refuses_before_any_work(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="status", status=503)
    status, body = served.call("POST", PATH, chat)
    assert (status, body["error"]["type"]) == (503, "server_error")
    assert [(r["status"], r["billed"], r["input_tokens"]) for r in served.bill()] == [(503, False, 0)]


def test_a_cut_sends_nothing_and_is_billed(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="cut")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        served.call("POST", PATH, chat)
    (row,) = served.bill()
    assert (row["status"], row["billed"]) == (0, True)
    assert row["output_tokens"] > 0


def test_a_cut_in_the_middle_sends_a_part(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="cut", after_bytes=40)
    with pytest.raises(http.client.IncompleteRead) as cut:
        served.call("POST", PATH, chat)
    assert len(cut.value.partial) == 40
    assert [(row["status"], row["billed"]) for row in served.bill()] == [(0, True)]


def test_malformed_sends_half_a_document_and_is_billed(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="malformed")
    with pytest.raises(json.JSONDecodeError):
        served.call("POST", PATH, chat)
    assert [(row["status"], row["billed"]) for row in served.bill()] == [(200, True)]


def test_nonsense_is_well_formed_and_useless(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="nonsense", count=1)
    first, second = (served.call("POST", PATH, chat)[1] for _ in range(2))
    assert content(first) == NONSENSE
    assert json.loads(content(second))["category"] == "damaged"


def test_slow_answers_right_but_late(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="slow", seconds=0.3)
    begun = time.monotonic()
    status, body = served.call("POST", PATH, chat)
    assert time.monotonic() - begun >= 0.3
    assert (status, json.loads(content(body))["category"]) == (200, "damaged")
    assert [(row["status"], row["billed"]) for row in served.bill()] == [(200, True)]


def test_a_timeout_outlasts_the_client_and_is_billed(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="timeout")
    connection = http.client.HTTPConnection(HOST, served.port, timeout=0.3)
    connection.request("POST", PATH, json.dumps(chat), KEY)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    (row,) = wait_for_bill(served, 0)
    assert (row["status"], row["billed"]) == (0, True)
    assert row["output_tokens"] > 0


def test_a_request_that_is_held_before_the_work_costs_nothing_when_its_client_goes(
    served: Served, chat: dict[str, Any]
) -> None:
    served.fault(kind="timeout", before_work=True, containing=chat["messages"][-1]["content"], count=1)
    connection = http.client.HTTPConnection(HOST, served.port, timeout=0.3)
    connection.request("POST", PATH, json.dumps(chat), KEY)
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert served.bill() == []
    connection.close()
    (row,) = wait_for_bill(served, 0)
    assert (row["billed"], row["output_tokens"]) == (False, 0)
    assert served.call("POST", PATH, chat)[0] == 200


def test_a_timeout_that_ends_in_time_is_an_answer(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="timeout", seconds=0.1)
    assert served.call("POST", PATH, chat)[0] == 200
    assert wait_for_bill(served, 200)[0]["status"] == 200


def test_latency_holds_for_every_answer(served: Served, chat: dict[str, Any]) -> None:
    assert served.call("PUT", "/latency", {"seconds": 0.2}) == (200, {"seconds": 0.2})
    begun = time.monotonic()
    served.call("POST", PATH, chat)
    assert time.monotonic() - begun >= 0.2
    assert served.bill()[0]["status"] == 200
    assert served.call("PUT", "/latency", {"seconds": -1})[0] == 400


def test_count_share_list_and_clear_over_the_wire(served: Served, chat: dict[str, Any]) -> None:
    served.fault(kind="status", count=2)
    statuses = [served.call("POST", PATH, chat)[0] for _ in range(4)]
    assert statuses == [500, 500, 200, 200]
    assert served.call("GET", "/faults")[1]["faults"][0]["fired"] == 2
    assert served.call("DELETE", "/faults?target=model") == (200, {"cleared": 1})
    assert served.call("GET", "/faults")[1] == {"faults": []}


@contextmanager
def sandbox(state: Path, ports: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """A whole sandbox process, ready."""
    command = [sys.executable, "-m", "sandbox", "--model-port", str(ports[0]), "--systems-port", str(ports[1])]
    with subprocess.Popen([*command, "--state", str(state)], stderr=subprocess.DEVNULL) as process:
        try:
            for port in ports:
                _until_healthy(process, port)
            yield process
        finally:
            process.kill()


def _until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if Served(port).call("GET", "/healthz")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the sandbox did not answer on port {port}; exit status {process.poll()}")


def test_a_crash_ends_the_process_and_keeps_the_bill(tmp_path: Path, chat: dict[str, Any]) -> None:
    ports = free_ports(2)
    client = Served(ports[0])
    with sandbox(tmp_path, ports) as process:
        assert client.call("POST", PATH, chat)[0] == 200
        assert Served(ports[1]).call("PUT", "/faults", {"target": "model", "kind": "crash"})[0] == 200
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            client.call("POST", PATH, chat)
        assert process.wait(60) == CRASH_EXIT_CODE
    with sandbox(tmp_path, ports):
        assert [row["status"] for row in client.bill()] == [200]
        assert client.call("GET", "/faults")[1] == {"faults": []}


def test_a_kill_loses_no_row_of_an_answer_that_left(tmp_path: Path, chat: dict[str, Any]) -> None:
    ports = free_ports(2)
    client = Served(ports[0])
    with sandbox(tmp_path, ports) as process:
        answered = [client.call("POST", PATH, chat)[0] for _ in range(50)]
        process.kill()
        process.wait(60)
    with sandbox(tmp_path, ports):
        assert len(client.bill()) == len(answered)
