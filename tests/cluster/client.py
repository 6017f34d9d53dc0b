"""Runs in a pod beside the agent, from its standard input: sends tickets until each is taken, and waits until
their tasks rest.

Reads {"url", "token", "tickets": [...], "rate"} and prints {"task id": {"status", "outcome", "refund_id"}}. A request
that fails is sent again: the same ticket is the same task.
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

TRIES_SECONDS = 600.0


def call(asked: dict[str, Any], method: str, path: str, body: object = None) -> Any:
    """One request, again and again until it is answered with something that is no fault of the moment."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {asked['token']}", "Content-Type": "application/json"}
    limit = time.monotonic() + TRIES_SECONDS
    while True:
        try:
            request = urllib.request.Request(asked["url"] + path, data, headers, method=method)  # noqa: S310
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 or time.monotonic() > limit:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
        except OSError:
            if time.monotonic() > limit:
                raise
        time.sleep(0.2)


def send(asked: dict[str, Any], begun: float, number: int, ticket: dict[str, Any]) -> str:
    """Sends one ticket when its time has come; returns its task."""
    wait = begun + number / asked["rate"] - time.monotonic()
    threading.Event().wait(max(0.0, wait))
    return str(call(asked, "POST", "/tasks", ticket)["task_id"])


def ended(asked: dict[str, Any], task_id: str) -> dict[str, Any]:
    """What a task has come to, or where it stands when nobody can wait any longer."""
    limit = time.monotonic() + TRIES_SECONDS
    while True:
        view = call(asked, "GET", f"/tasks/{task_id}")
        if view["status"] in ("completed", "failed", "terminated", "parked", "waiting") or time.monotonic() > limit:
            result = view["result"] or {}
            return {"status": view["status"], **{name: result.get(name) for name in ("outcome", "refund_id")}}
        time.sleep(0.5)


def main() -> None:
    """Sends all, waits for all."""
    asked = json.load(sys.stdin)
    begun = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        sent = [pool.submit(send, asked, begun, *each) for each in enumerate(asked["tickets"])]
        task_ids = [each.result() for each in sent]
        taken = time.monotonic() - begun
        found = dict(zip(task_ids, pool.map(lambda task_id: ended(asked, task_id), task_ids), strict=True))
    print(json.dumps({"taken": taken, "seconds": time.monotonic() - begun, "tasks": found}))


if __name__ == "__main__":
    main()
