"""Figures by database and size: prints them, writes them as JSON, and judges them by the goals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.bench.ledger.questions import GOAL, Timing
from lab.bench.ledger.stores import Database, group_sizes
from lab.bench.ledger.writing import Spent
from lab.bench.results import QUIET_CORES, Goal

GOAL_SECONDS = 1.0
GOAL_MILLISECONDS = 1.2
# By this factor, bytes a task and rate of the largest ledger may be worse than those of the smallest.
_LINEAR = 1.25
PRODUCT = ("project", "save")


@dataclass(frozen=True)
class Figures:
    """The figures of one database with one number of tasks.

    seconds: the time to make and write all tasks; rates: tasks a second of each tenth of them.
    """

    database: Database
    version: str
    tasks: int
    processes: int
    seconds: float
    rates: tuple[float, ...]
    spent: Spent
    settled_seconds: float
    sizes: Mapping[str, int]
    timings: tuple[Timing, ...]
    others_cores: float  # that other programs kept busy meanwhile

    @property
    def bytes_per_task(self) -> dict[str, float]:
        """Bytes a task by group of tables."""
        return {group: size / self.tasks for group, size in group_sizes(self.sizes).items()}

    @property
    def milliseconds(self) -> float:
        """CPU milliseconds to project and save a task's record, without the database server's."""
        return self.spent.milliseconds(*PRODUCT)

    def timing(self, question: str) -> Timing | None:
        """The timing of a question, or None."""
        return next((timing for timing in self.timings if timing.question == question), None)

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "database": self.database.value,
            "version": self.version,
            "tasks": self.tasks,
            "records": self.spent.records,
            "charges": self.spent.charges,
            "writing": {
                "processes": self.processes,
                "seconds": round(self.seconds, 1),
                "tasks_per_second": round(self.tasks / self.seconds, 1),
                "tasks_per_second_by_tenth": [round(rate, 1) for rate in self.rates],
                "cpu_ms_per_task": {name: round(self.spent.milliseconds(name), 3) for name in self.spent.seconds},
                "others_cores": self.others_cores,
                "vacuum_or_checkpoint_seconds": round(self.settled_seconds, 1),
            },
            "bytes": dict(self.sizes),
            "bytes_per_task": {name: round(size, 1) for name, size in self.bytes_per_task.items()},
            "questions": [timing.as_json() for timing in self.timings],
        }


def show(console: Console, machine_facts: Mapping[str, str], figures: Sequence[Figures]) -> None:
    """Prints the machine, all tables and the goals."""
    for name, value in machine_facts.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    console.print(_writing_table(figures))
    console.print(_bytes_table(figures))
    console.print(_question_table(figures))
    if max(ledger.others_cores for ledger in figures) > QUIET_CORES:
        console.print("Other programs used this machine (see others' cores), which affects seconds and rates.")
    for goal in goals(figures):
        console.print(f"{'[green]met' if goal.met else '[red]missed'}[/]  {goal.text}: {goal.seen}", highlight=False)


def write(path: Path, machine_facts: Mapping[str, str], figures: Sequence[Figures]) -> None:
    """Writes the same as JSON."""
    document = {
        "machine": dict(machine_facts),
        "ledgers": [ledger.as_json() for ledger in figures],
        "goals": [{"goal": goal.text, "met": goal.met, "seen": goal.seen} for goal in goals(figures)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def goals(figures: Sequence[Figures]) -> Iterator[Goal]:
    """The goals for the largest ledger of each database, and for its growth from the smallest one."""
    for database in Database:
        own = sorted((f for f in figures if f.database is database), key=lambda ledger: ledger.tasks)
        if own:
            yield from _goals_of_largest(own[-1])
        if len(own) > 1:
            yield from _growth_goals(own[0], own[-1])


def _goals_of_largest(largest: Figures) -> Iterator[Goal]:
    where = f"{largest.database.value}, {largest.tasks:,} tasks"
    if largest.database is Database.SQLITE:
        text = f"{where}: a record takes at most {GOAL_MILLISECONDS} ms of CPU time"
        yield Goal(text, largest.milliseconds <= GOAL_MILLISECONDS, f"{largest.milliseconds:.2f} ms")
    timing = largest.timing(GOAL)
    if timing:
        text = f"{where}: report {GOAL}, in at most {GOAL_SECONDS:.0f} s"
        yield Goal(text, timing.worst <= GOAL_SECONDS, f"{timing.median:.3f} s, at worst {timing.worst:.3f} s")


def _growth_goals(small: Figures, large: Figures) -> Iterator[Goal]:
    bytes_ = [sum(ledger.bytes_per_task.values()) for ledger in (small, large)]
    rates = [ledger.tasks / ledger.seconds for ledger in (small, large)]
    where = f"{large.database.value}, {small.tasks:,} to {large.tasks:,} tasks"
    seen = f"{bytes_[0]:,.0f} and {bytes_[1]:,.0f}"
    yield Goal(f"{where}: bytes a task do not grow", bytes_[1] <= _LINEAR * bytes_[0], seen)
    seen = f"{rates[0]:,.0f} and {rates[1]:,.0f}"
    yield Goal(f"{where}: tasks written a second do not drop", _LINEAR * rates[1] >= rates[0], seen)


def _writing_table(figures: Sequence[Figures]) -> Table:
    table = _table("Writing, with CPU milliseconds a task of our processes", "database", "tasks")
    parts = list(dict.fromkeys(name for ledger in figures for name in ledger.spent.seconds))
    for heading in ("processes", "seconds", "tasks/s", "by tenth", *parts, "others' cores"):
        table.add_column(heading, justify="right")
    for ledger in figures:
        table.add_row(
            *(ledger.database.value, f"{ledger.tasks:,}", f"{ledger.processes}", f"{ledger.seconds:,.0f}"),
            *(f"{ledger.tasks / ledger.seconds:,.0f}", f"{min(ledger.rates):,.0f}-{max(ledger.rates):,.0f}"),
            *(f"{ledger.spent.milliseconds(name):.3f}" for name in parts),
            f"{ledger.others_cores:.1f}",
        )
    return table


def _bytes_table(figures: Sequence[Figures]) -> Table:
    table = _table("Bytes a task, indexes included", "database", "tasks")
    groups = list(dict.fromkeys(group for ledger in figures for group in ledger.bytes_per_task))
    for heading in (*groups, "sum", "GB in all"):
        table.add_column(heading, justify="right")
    for ledger in figures:
        sizes = ledger.bytes_per_task
        table.add_row(
            *(ledger.database.value, f"{ledger.tasks:,}"),
            *(f"{sizes.get(group, 0):,.0f}" for group in groups),
            *(f"{sum(sizes.values()):,.0f}", f"{sum(ledger.sizes.values()) / 1e9:.2f}"),
        )
    return table


def _question_table(figures: Sequence[Figures]) -> Table:
    table = _table("Seconds that a question takes, connecting included", "question", "database", "tasks")
    for heading in ("found", "cold", "median", "worst"):
        table.add_column(heading, justify="right")
    for question in dict.fromkeys(timing.question for ledger in figures for timing in ledger.timings):
        for ledger in figures:
            timing = ledger.timing(question)
            if timing:
                cold = "" if timing.cold is None else f"{timing.cold:.3f}"
                where = (question, ledger.database.value, f"{ledger.tasks:,}")
                table.add_row(*where, f"{timing.size:,}", cold, f"{timing.median:.3f}", f"{timing.worst:.3f}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading)
    return table
