"""Answers that were lost after the model had worked are bought a few times and no more; then the task says why."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.live import Live, make_stack
from tests.whole import tickets

pytestmark = pytest.mark.runtime

BOUND = 3
MEBIBYTES = 6


class Talker(BaseHTTPRequestHandler):
    """A model that never stops talking."""

    asked = 0

    def do_POST(self) -> None:
        """Answers with some mebibytes."""
        Talker.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "x" * (MEBIBYTES * 2**20)}
        usage = {"prompt_tokens": 100, "completion_tokens": 2_000_000, "total_tokens": 2_000_100}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        answer = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Says nothing."""


@pytest.fixture
def talker() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Talker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture
def thrifty(tmp_path: Path) -> Iterator[Live]:
    """A product that loses no more than three answers of a step."""
    stack = make_stack(tmp_path)
    file = stack.folder / "config" / "policy.yaml"
    rules = yaml.safe_load(file.read_text())
    rules["retries"]["billed_attempts"] = BOUND
    file.write_text(yaml.safe_dump(rules))
    with stack:
        live = Live(stack)
        yield live
        live.close()


def test_lost_answers_are_bought_up_to_the_bound_and_then_the_task_says_why(thrifty: Live, talker: str) -> None:
    live = thrifty
    live.fault("model", "cut")
    task_id = live.submit(tickets.refund("lost-answers", 37_000))
    reason = live.wait(task_id, "parked")["waiting_for"]
    assert f"{BOUND} calls brought no result, each probably billed" in reason
    assert len(live.bill()) == BOUND
    live.heal()
    assert live.web.post(f"/tasks/{task_id}/resume").status_code == 200
    assert live.wait(task_id, "completed")["result"]["outcome"] == "refunded"

    component = live.stack.folder / "components" / "llm.yaml"
    before = component.read_text()
    resource = yaml.safe_load(before)
    (endpoint,) = [each for each in resource["spec"]["metadata"] if each["name"] == "endpoint"]
    endpoint["value"] = talker
    component.write_text(yaml.safe_dump(resource))
    task_ids: list[str] = []
    while not Talker.asked:  # the sidecar takes the change on within seconds
        task_ids.append(live.submit(tickets.refund(f"talker-{len(task_ids)}", 37_100 + len(task_ids))))
        live.wait(task_ids[-1], "parked", "completed")
    view = live.view(task_ids[-1])
    assert view["status"] == "parked"
    assert "too large" in view["waiting_for"]
    assert Talker.asked == BOUND
    component.write_text(before)
