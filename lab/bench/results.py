"""Summarizes the rounds of each case, judges them by the goals, and writes tables and JSON."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
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
    """The rounds of one case."""

    case: Case
    windows: tuple[Window, ...]

    @property
    def rate(self) -> float:
        """The median of the rounds' tasks a second."""
        return statistics.median(window.rate for window in self.windows)

    @property
    def spread(self) -> tuple[float, float]:
        """Tasks a second of the slowest and the fastest round."""
        rates = [window.rate for window in self.windows]
        return min(rates), max(rates)

    @property
    def alone(self) -> list[float]:
        """Seconds of each task that ran with nothing else, sorted."""
        return sorted(seconds for window in self.windows for seconds in window.alone_seconds)

    @property
    def cpu_ms_per_task(self) -> dict[str, float]:
        """CPU milliseconds a task by process: the median of the rounds."""
        names = self.windows[0].cpu_ms_per_task
        return {name: statistics.median(window.cpu_ms_per_task[name] for window in self.windows) for name in names}

    @property
    def bound(self) -> float:
        """Tasks a second if all cores of this machine worked on tasks all the time."""
        return 1000 * (os.cpu_count() or 1) / sum(self.cpu_ms_per_task.values())

    @property
    def others_cores(self) -> float:
        """Cores that other programs kept busy, in the worst round."""
        return max(window.others_cores for window in self.windows)

    def as_json(self) -> dict[str, Any]:
        """The case and its figures, with the rate of each round."""
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
            "cpu_ms_per_task": {name: round(value, 2) for name, value in self.cpu_ms_per_task.items()},
            "alone_seconds": {"count": len(self.alone), "p50": share(self.alone, 0.5), "p95": share(self.alone, 0.95)},
            "tokens_per_task": {
                "input": round(self.windows[0].input_tokens_per_task, 1),
                "output": round(self.windows[0].output_tokens_per_task, 1),
            },
        }


@dataclass(frozen=True)
class Goal:
    """One goal, whether it is met, and the figure that was measured."""

    text: str
    met: bool
    seen: str


def summaries(windows: Mapping[Case, Sequence[Window]]) -> list[Summary]:
    """One summary for each case, in the order in which the cases were first measured."""
    return [Summary(case, tuple(rounds)) for case, rounds in windows.items()]


def share(ordered: Sequence[float], part: float) -> float | None:
    """The percentile `part` (0..1) of the ordered values; None without values."""
    if not ordered:
        return None
    return round(ordered[min(int(part * len(ordered)), len(ordered) - 1)], 4)


def goals(summaries: Sequence[Summary]) -> list[Goal]:
    """The goals that the measured cases can judge."""
    return [*_latency_goals(summaries), *_throughput_goals(summaries)]


def _latency_goals(summaries: Sequence[Summary]) -> list[Goal]:
    """The faster of the two database servers counts."""
    servers = (Store.POSTGRES, Store.REDIS)
    ours = [s for s in summaries if s.case.side is Side.OURS and s.case.latency and s.case.store in servers]
    goals = []
    for shape in UNATTENDED:
        best = max((s for s in ours if s.case.shape is shape), key=lambda summary: summary.rate, default=None)
        if best is not None:
            text = f"{shape.value}, 1 s a model call: at least {LATENCY_GOAL_TASKS_PER_SECOND:.0f} tasks/s on a server"
            seen = f"{best.rate:.1f} ({best.case.store.value}, {best.case.submission.value})"
            goals.append(Goal(text, best.rate >= LATENCY_GOAL_TASKS_PER_SECOND, seen))
    return goals


def _throughput_goals(summaries: Sequence[Summary]) -> list[Goal]:
    """Compares cases with the same submission, shape, latency and database."""
    baselines = {_comparison_key(summary.case): summary for summary in summaries if summary.case.side is Side.DBOS}
    goals = []
    for ours in summaries:
        baseline = baselines.get(_comparison_key(ours.case))
        if ours.case.side is Side.OURS and baseline is not None and not ours.case.latency:
            text = f"{ours.case.shape.value}, no latency, {ours.case.submission.value}: at least as many as DBOS"
            goals.append(Goal(text, ours.rate >= baseline.rate, f"{ours.rate:.1f} against {baseline.rate:.1f} tasks/s"))
    return goals


def _comparison_key(case: Case) -> tuple[object, ...]:
    return case.store, case.submission, case.latency, case.shape


# Above this, other programs influence the rates too much to compare runs.
QUIET_CORES = 0.2


def show(
    console: Console,
    machine_facts: Mapping[str, str],
    summaries: Sequence[Summary],
    goals: Sequence[Goal],
    variants: Mapping[float, Variant],
) -> None:
    """Prints the machine, the variants of DBOS, both tables and the goals."""
    for name, value in machine_facts.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    for latency, variant in variants.items():
        console.print(f"{f'DBOS at {latency:.0f} s':>20}  {variant}", highlight=False)
    console.print(_rate_table(summaries))
    console.print(_cpu_table(summaries))
    if max(summary.others_cores for summary in summaries) > QUIET_CORES:
        console.print("Other programs used this machine (see others' cores): compare figures of this run only.")
    for goal in goals:
        console.print(f"{'[green]met' if goal.met else '[red]missed'}[/]  {goal.text}: {goal.seen}", highlight=False)


def write(
    path: Path,
    machine_facts: Mapping[str, str],
    summaries: Sequence[Summary],
    goals: Sequence[Goal],
    variants: Mapping[float, Variant],
) -> None:
    """Writes the same as JSON, with the figures of each round."""
    document = {
        "machine": dict(machine_facts),
        "peer": {str(latency): str(variant) for latency, variant in variants.items()},
        "cases": [summary.as_json() for summary in summaries],
        "goals": [{"goal": goal.text, "met": goal.met, "seen": goal.seen} for goal in goals],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _rate_table(summaries: Sequence[Summary]) -> Table:
    table = Table(title="Sustained tasks a second, and one task alone")
    for heading in ("engine", "store", "submitted", "model", "ticket"):
        table.add_column(heading)
    for heading in ("tasks/s", "rounds", "alone p50 ms", "p95 ms", "others' cores"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        case, (low, high) = summary.case, summary.spread
        table.add_row(
            *(case.side.value, case.store.value, case.submission.value, f"{case.latency:.0f} s", case.shape.value),
            *(f"{summary.rate:.1f}", f"{low:.1f}-{high:.1f}"),
            *(_milliseconds(share(summary.alone, part)) for part in (0.5, 0.95)),
            f"{summary.others_cores:.1f}",
        )
    return table


def _cpu_table(summaries: Sequence[Summary]) -> Table:
    names: list[str] = []
    for summary in summaries:
        names += [name for name in summary.cpu_ms_per_task if name not in names]
    table = Table(title="CPU milliseconds a task, by process")
    for heading in ("engine", "store", "submitted", "model", "ticket"):
        table.add_column(heading)
    for heading in (*names, "sum", "cores/sum"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        case, used = summary.case, summary.cpu_ms_per_task
        table.add_row(
            *(case.side.value, case.store.value, case.submission.value, f"{case.latency:.0f} s", case.shape.value),
            *(f"{used[name]:.1f}" if name in used else "" for name in names),
            f"{sum(used.values()):.1f}",
            f"{summary.bound:.0f}/s",
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f}"
