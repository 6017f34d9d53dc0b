"""A worker without any code of the agent: `python -m tests.dapr.history.foreign_worker PORT FOLDER`.

It runs in its own process and creates a file in FOLDER when it is ready. Its slow activity waits for a file there.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

from dapr.ext.workflow import RetryPolicy, WorkflowRuntime, when_all
from dapr.ext.workflow.logger import LoggerOptions

Flow = Generator[Any, Any, Any]

QUICK = timedelta(milliseconds=100)
_TRIES = RetryPolicy(first_retry_interval=QUICK, max_number_of_attempts=3)
_failures: Counter[str] = Counter()


def echo(context: Any, value: Any) -> Any:
    """An activity that returns its input."""
    return {"echo": value}


def shaky(context: Any, value: Any) -> int:
    """An activity that fails twice."""
    _failures[context.workflow_id] += 1
    if _failures[context.workflow_id] < 3:
        raise TimeoutError(f"no answer, try {_failures[context.workflow_id]}")
    return 3


def broken(context: Any, value: Any) -> None:
    """An activity that always fails."""
    raise KeyError("order")


def slow(context: Any, folder: str) -> str:
    """An activity that creates the file `held` and waits for the file `may_go_on`."""
    (Path(folder) / "held").touch()
    while not (Path(folder) / "may_go_on").exists():
        time.sleep(0.05)
    (Path(folder) / "gone_on").touch()
    return "late"


def everything(context: Any, value: Any) -> Flow:
    """Sequential and concurrent steps, a timer, retries and children."""
    first = yield context.call_activity(echo, input=value)
    yield context.create_timer(QUICK)
    yield context.call_activity(shaky, input=value, retry_policy=_TRIES)
    yield context.call_child_workflow(child, input=value)
    try:
        yield context.call_child_workflow(failing, retry_policy=_TRIES)
    except Exception:
        yield when_all([context.call_activity(echo, input=number) for number in range(3)])
    return first


def child(context: Any, value: Any) -> Flow:
    """A child that succeeds."""
    return (yield context.call_activity(echo, input=value))


def failing(context: Any, value: Any) -> Flow:
    """Fails after its retries."""
    yield context.call_activity(broken, retry_policy=RetryPolicy(first_retry_interval=QUICK, max_number_of_attempts=2))


def waiting(context: Any, value: Any) -> Flow:
    """Waits without a limit, then until its limit, then for an event that has already arrived."""
    first = yield context.wait_for_external_event("First")
    try:
        yield context.wait_for_external_event("second", timeout=QUICK)
    except TimeoutError:
        third = yield context.wait_for_external_event("third", timeout=timedelta(hours=1))
        yield context.call_activity(echo)
        return [first, third]


def patient(context: Any, folder: str) -> Flow:
    """Waits for the slow step."""
    return (yield context.call_activity(slow, input=folder))


def counting(context: Any, number: int) -> Flow:
    """Continues as new after each item, and carries over the events that it has not seen."""
    yield context.wait_for_external_event("go" if number == 0 else "item", timeout=timedelta(hours=1))
    if number < 3:
        context.continue_as_new(number + 1, save_events=True)
        return None
    yield context.wait_for_external_event("stop")
    return number


def work(port: str, folder: Path) -> None:
    """Runs the worker at this gRPC port until it is killed."""
    quiet = LoggerOptions(log_handler=logging.NullHandler())
    runtime = WorkflowRuntime(host="127.0.0.1", port=port, logger_options=quiet)
    for workflow in (everything, child, failing, waiting, patient, counting):
        runtime.register_workflow(workflow)
    for activity in (echo, shaky, broken, slow):
        runtime.register_activity(activity)
    runtime.start()
    (folder / "ready").touch()
    signal.pause()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
