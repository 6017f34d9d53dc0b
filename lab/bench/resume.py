"""`python -m lab.bench.resume`: measures how soon work continues after a kill that interrupts many tasks.

Each round sends tasks to a slow model, kills the worker with SIGKILL while each task has an open model call, and starts
it again. Times are counted from the start of the new process: until its API answers, until it starts the first and the
last of the interrupted steps, and until the first model call is answered, which takes half a second. The kill may leave
the sidecar locked up (daprd 1.18.2), so that it has to restart too; those rounds are shown separately.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.domain.models import Ticket
from lab.bench.machine import hardware
from lab.clients import AgentApi, SandboxApi
from lab.command import exit_code
from lab.tickets import Shape, make_ticket
from runtime import processes
from runtime.errors import UserError
from runtime.stack import Stack

_SLOW_SECONDS, _QUICK_SECONDS = 30.0, 0.5
_DEADLINE_SECONDS = 120.0
_LOCKED_UP = "has locked up"
# Executions that the new worker started, of attempts that an earlier worker had started.
_RESUMED = """
SELECT e.started_at FROM executions e WHERE e.worker = :worker AND EXISTS (
  SELECT 1 FROM executions o WHERE o.task_id = e.task_id AND o.execution_id = e.execution_id
  AND o.event_id = e.event_id AND o.number < e.number AND o.worker <> e.worker)
ORDER BY e.started_at
"""
_ANSWERED = "SELECT MIN(ended_at) FROM model_calls WHERE worker = :worker AND state = 'settled'"


@dataclass(frozen=True)
class Round:
    """One round: how many steps were interrupted, and seconds from the start of the new process."""

    interrupted: int
    ready: float
    first: float
    all: float
    answered: float
    locked_up: bool


def measure_rounds(tasks: int, rounds: int) -> Iterator[Round]:
    """Measures all rounds on one stack."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder)) as stack:
        for number in range(rounds):
            yield _measure_round(stack, tasks, number)


def _measure_round(stack: Stack, tasks: int, number: int) -> Round:
    sandbox = SandboxApi.of(stack)
    with closing(AgentApi.of(stack)) as api:
        sandbox.set_latency(_SLOW_SECONDS)
        tickets = [make_ticket(Shape.REFUND, number * tasks + place) for place in range(tasks)]
        for ticket in tickets:
            if not api.submit(ticket):
                raise UserError(f"The agent did not accept {ticket.task_id}; see the log {stack.log('worker')}.")
        calls = "a model call of each task"
        processes.wait_until(lambda: _open_calls(stack) == tasks, what=calls, deadline_seconds=_DEADLINE_SECONDS)
        sandbox.set_latency(_QUICK_SECONDS)
        before = stack.log("worker").read_text().count(_LOCKED_UP)
        stack.kill("worker")
        started = time.time()
        stack.start("worker")
        ready = time.time() - started
        processes.wait_until(
            lambda: _all_completed(api, tickets), what="the end of all tasks", deadline_seconds=_DEADLINE_SECONDS
        )
        resumed, answered = _resume_times(stack)
        locked = stack.log("worker").read_text().count(_LOCKED_UP) > before
    return Round(len(resumed), ready, resumed[0] - started, resumed[-1] - started, answered - started, locked)


def _all_completed(api: AgentApi, tickets: Sequence[Ticket]) -> bool:
    """False while the API is down."""
    return all((api.view(ticket.task_id) or {}).get("status") == "completed" for ticket in tickets)


def _open_calls(stack: Stack) -> int:
    return int(_rows(stack, "SELECT COUNT(*) FROM model_calls WHERE state = 'started'", {})[0][0])


def _resume_times(stack: Stack) -> tuple[list[float], float]:
    """When the new worker started each interrupted step, and when its first model call was answered (Unix time)."""
    ((worker,),) = _rows(stack, "SELECT worker FROM workers ORDER BY started_at DESC LIMIT 1", {})
    resumed = [row[0] / 1e6 for row in _rows(stack, _RESUMED, {"worker": worker})]
    ((answered,),) = _rows(stack, _ANSWERED, {"worker": worker})
    return resumed, answered / 1e6


def _rows(stack: Stack, query: str, values: dict[str, Any]) -> list[Any]:
    with closing(sqlite3.connect(stack.state / "ledger.sqlite", timeout=30)) as connection:
        return connection.execute(query, values).fetchall()


def show(rounds: Sequence[Round], console: Console) -> None:
    """Prints median and worst of the rounds, separately for those in which the sidecar locked up."""
    table = Table("sidecar", "rounds", "interrupted", "API answers", "first step", "all steps", "first answer")
    for locked in (False, True):
        group = [entry for entry in rounds if entry.locked_up is locked]
        if group:
            columns = [[getattr(entry, name) for entry in group] for name in ("ready", "first", "all", "answered")]
            cells = [f"{statistics.median(column):.2f} s (worst {max(column):.2f})" for column in columns]
            count = f"{min(entry.interrupted for entry in group)}-{max(entry.interrupted for entry in group)}"
            table.add_row("locked up, restarted" if locked else "no lock-up", str(len(group)), count, *cells)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the machine and the figures."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench.resume", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="also write the rounds to this file")
    chosen = parser.parse_args(arguments)
    console = Console()

    def run() -> None:
        for name, value in hardware().items():
            console.print(f"{name:14} {value}", highlight=False)
        rounds = list(measure_rounds(chosen.tasks, chosen.rounds))
        show(rounds, console)
        if chosen.json:
            chosen.json.write_text(json.dumps([asdict(entry) for entry in rounds], indent=2))

    return exit_code(run, "lab.bench.resume")


if __name__ == "__main__":
    sys.exit(main())
