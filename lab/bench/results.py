"""Puts rounds together: median and spread of each case, and the goals they are held against; no I/O."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.bench.measure import Window
from lab.bench.plan import Case, Side, Store, Variant
from lab.tickets import UNATTENDED

LATENCY_GOAL_TASKS_PER_SECOND = 30.0


@dataclass(frozen=True)
class Summary:
    """One case over its rounds."""

    case: Case
    windows: tuple[Window, ...]

    @property
    def rate(self) -> float:
        """The median of the rounds' tasks a second."""
        return statistics.median(window.rate for window in self.windows)

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the quickest round."""
        rates = [window.rate for window in self.windows]
        return min(rates), max(rates)

    @property
    def alone(self) -> list[float]:
        """Seconds of each task that was worked alone."""
        return sorted(seconds for window in self.windows for seconds in window.alone_seconds)

    @property
    def cpu_ms_per_task(self) -> dict[str, float]:
        """The median of the rounds, by process."""
        names = self.windows[0].cpu_ms_per_task
        return {name: statistics.median(window.cpu_ms_per_task[name] for window in self.windows) for name in names}

    @property
    def bound(self) -> float:
        """The tasks a second that this machine's cores could work if they did nothing else and nothing waited."""
        return 1000 * (os.cpu_count() or 1) / sum(self.cpu_ms_per_task.values())

    @property
    def others_cores(self) -> float:
        """The most cores that others kept busy in a round."""
        return max(window.others_cores for window in self.windows)

    def as_json(self) -> dict[str, Any]:
        """All of it, with every round's own figures."""
        case = self.case
        return {
            "side": case.side.value,
            "store": case.store.value,
            "submission": case.submission.value,
            "model_latency_seconds": case.latency,
            "shape": case.shape.value,
            "tasks_per_second": round(self.rate, 2),
            "rounds": [round(window.rate, 2) for window in self.windows],
            "others_cores": [window.others_cores for window in self.windows],
            "tasks_per_second_of_all_cores": round(self.bound, 1),
            "cpu_ms_per_task": {name: round(each, 2) for name, each in self.cpu_ms_per_task.items()},
            "alone_seconds": {"count": len(self.alone), "p50": share(self.alone, 0.5), "p95": share(self.alone, 0.95)},
            "tokens_per_task": {
                "input": round(self.windows[0].input_tokens_per_task, 1),
                "output": round(self.windows[0].output_tokens_per_task, 1),
            },
        }


@dataclass(frozen=True)
class Goal:
    """One goal and how it stands."""

    text: str
    met: bool
    seen: str


def summaries(seen: Mapping[Case, Sequence[Window]]) -> list[Summary]:
    """One summary for each case, in the order in which the cases were first measured."""
    return [Summary(case, tuple(windows)) for case, windows in seen.items()]


def share(ordered: Sequence[float], part: float) -> float | None:
    """The value below which `part` of the ordered values lie; None of nothing."""
    if not ordered:
        return None
    return round(ordered[min(int(part * len(ordered)), len(ordered) - 1)], 4)


def goals(found: Iterable[Summary]) -> list[Goal]:
    """The goals that can be judged by what was measured."""
    found = list(found)
    return [*_hidden_latency(found), *_against_peer(found)]


def _hidden_latency(found: list[Summary]) -> list[Goal]:
    servers = (Store.POSTGRES, Store.REDIS)
    judged = [
        each for each in found if each.case.side is Side.OURS and each.case.latency and each.case.store in servers
    ]
    goals = []
    for shape in UNATTENDED:
        best = max((each for each in judged if each.case.shape is shape), key=lambda result: result.rate, default=None)
        if best is not None:
            text = f"{shape.value}, 1 s a model call: at least {LATENCY_GOAL_TASKS_PER_SECOND:.0f} tasks/s on a server"
            seen = f"{best.rate:.1f} ({best.case.store.value}, {best.case.submission.value})"
            goals.append(Goal(text, best.rate >= LATENCY_GOAL_TASKS_PER_SECOND, seen))
    return goals


def _against_peer(found: list[Summary]) -> list[Goal]:
    """Like with like: the same submission, shape, latency and database."""
    peers = {_likeness(each.case): each for each in found if each.case.side is Side.PEER}
    goals = []
    for ours in found:
        peer = peers.get(_likeness(ours.case))
        if ours.case.side is Side.OURS and peer is not None and not ours.case.latency:
            text = f"{ours.case.shape.value}, no latency, {ours.case.submission.value}: at least as many as DBOS"
            goals.append(Goal(text, ours.rate >= peer.rate, f"{ours.rate:.1f} against {peer.rate:.1f} tasks/s"))
    return goals


def _likeness(case: Case) -> tuple[object, ...]:
    return case.store, case.submission, case.latency, case.shape


# Prints what was found, and writes it as JSON.

# More than this, and the rates say as much about the neighbours as about what is measured.
QUIET_CORES = 0.2


def show(
    console: Console,
    described: Mapping[str, str],
    found: Sequence[Summary],
    goals: Sequence[Goal],
    variants: Mapping[float, Variant],
) -> None:
    """All tables."""
    for name, value in described.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    for latency, variant in variants.items():
        console.print(f"{f'DBOS at {latency:.0f} s':>20}  {variant}", highlight=False)
    console.print(_rates(found))
    console.print(_cpu(found))
    if max(each.others_cores for each in found) > QUIET_CORES:
        console.print("Others used this machine meanwhile (others' cores): compare within this run only.")
    for goal in goals:
        console.print(f"{'[green]met' if goal.met else '[red]missed'}[/]  {goal.text}: {goal.seen}", highlight=False)


def write(
    path: Path,
    described: Mapping[str, str],
    found: Sequence[Summary],
    goals: Sequence[Goal],
    variants: Mapping[float, Variant],
) -> None:
    """The same as JSON, with each round's figures."""
    document = {
        "machine": dict(described),
        "peer": {str(latency): str(variant) for latency, variant in variants.items()},
        "cases": [each.as_json() for each in found],
        "goals": [{"goal": goal.text, "met": goal.met, "seen": goal.seen} for goal in goals],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _rates(found: Sequence[Summary]) -> Table:
    table = Table(title="Sustained tasks a second, and one task alone")
    for heading in ("engine", "store", "submitted", "model", "ticket"):
        table.add_column(heading)
    for heading in ("tasks/s", "rounds", "alone p50 ms", "p95 ms", "others' cores"):
        table.add_column(heading, justify="right")
    for result in found:
        case, (low, high) = result.case, result.spread
        table.add_row(
            *(case.side.value, case.store.value, case.submission.value, f"{case.latency:.0f} s", case.shape.value),
            *(f"{result.rate:.1f}", f"{low:.1f}-{high:.1f}"),
            *(_milliseconds(share(result.alone, part)) for part in (0.5, 0.95)),
            f"{result.others_cores:.1f}",
        )
    return table


def _cpu(found: Sequence[Summary]) -> Table:
    names: list[str] = []
    for result in found:
        names += [name for name in result.cpu_ms_per_task if name not in names]
    table = Table(title="CPU milliseconds a task, by process")
    for heading in ("engine", "store", "submitted", "model", "ticket"):
        table.add_column(heading)
    for heading in (*names, "sum", "cores/sum"):
        table.add_column(heading, justify="right")
    for result in found:
        case, used = result.case, result.cpu_ms_per_task
        table.add_row(
            *(case.side.value, case.store.value, case.submission.value, f"{case.latency:.0f} s", case.shape.value),
            *(f"{used[name]:.1f}" if name in used else "" for name in names),
            f"{sum(used.values()):.1f}",
            f"{result.bound:.0f}/s",
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f}"
