"""What was found, by database and size: printed, written as JSON, and held against the goals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.bench.ledger.questions import GOAL, Timing
from lab.bench.ledger.stores import Database, grouped
from lab.bench.ledger.writing import Spent
from lab.bench.results import QUIET_CORES, Goal

GOAL_SECONDS = 1.0
GOAL_MILLISECONDS = 1.2
# The largest ledger's bytes a task and rate may be this much worse than the smallest one's.
_LINEAR = 1.25
PRODUCT = ("project", "save")


@dataclass(frozen=True)
class Figures:
    """All about one database with so many tasks. `seconds` is the whole writing, what was made up included; `rates` are
    the tasks a second of each tenth of it."""

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
    others_cores: float  # that somebody else kept busy while it was written

    @property
    def bytes_per_task(self) -> dict[str, float]:
        """By group."""
        return {group: size / self.tasks for group, size in grouped(self.sizes).items()}

    @property
    def milliseconds(self) -> float:
        """CPU time of our process that a task's record takes: to be projected, and to be saved."""
        return self.spent.milliseconds(*PRODUCT)

    def timing(self, question: str) -> Timing | None:
        """The question's, if it was asked."""
        return next((timing for timing in self.timings if timing.question == question), None)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
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


def show(console: Console, described: Mapping[str, str], found: Sequence[Figures]) -> None:
    """All tables and goals."""
    for name, value in described.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    console.print(_writing(found))
    console.print(_bytes(found))
    console.print(_questions(found))
    if max(each.others_cores for each in found) > QUIET_CORES:
        console.print("Others used this machine meanwhile (others' cores): seconds and rates say as much about them.")
    for goal in goals(found):
        console.print(f"{'[green]met' if goal.met else '[red]missed'}[/]  {goal.text}: {goal.seen}", highlight=False)


def write(path: Path, described: Mapping[str, str], found: Sequence[Figures]) -> None:
    """The same as JSON."""
    document = {
        "machine": dict(described),
        "ledgers": [each.as_json() for each in found],
        "goals": [{"goal": goal.text, "met": goal.met, "seen": goal.seen} for goal in goals(found)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def goals(found: Sequence[Figures]) -> Iterator[Goal]:
    """What can be judged by what was measured: the largest ledger of each database, and it against the smallest."""
    for database in Database:
        own = sorted((each for each in found if each.database is database), key=lambda result: result.tasks)
        if own:
            yield from _of_largest(own[-1])
        if len(own) > 1:
            yield from _linear(own[0], own[-1])


def _of_largest(largest: Figures) -> Iterator[Goal]:
    where = f"{largest.database.value}, {largest.tasks:,} tasks"
    if largest.database is Database.SQLITE:
        text = f"{where}: a record takes at most {GOAL_MILLISECONDS} ms of CPU time"
        yield Goal(text, largest.milliseconds <= GOAL_MILLISECONDS, f"{largest.milliseconds:.2f} ms")
    timing = largest.timing(GOAL)
    if timing:
        text = f"{where}: report {GOAL}, in at most {GOAL_SECONDS:.0f} s"
        yield Goal(text, timing.worst <= GOAL_SECONDS, f"{timing.median:.3f} s, at worst {timing.worst:.3f} s")


def _linear(small: Figures, large: Figures) -> Iterator[Goal]:
    bytes_ = [sum(each.bytes_per_task.values()) for each in (small, large)]
    rates = [each.tasks / each.seconds for each in (small, large)]
    where = f"{large.database.value}, {small.tasks:,} to {large.tasks:,} tasks"
    seen = f"{bytes_[0]:,.0f} and {bytes_[1]:,.0f}"
    yield Goal(f"{where}: bytes a task do not grow", bytes_[1] <= _LINEAR * bytes_[0], seen)
    seen = f"{rates[0]:,.0f} and {rates[1]:,.0f}"
    yield Goal(f"{where}: tasks written a second do not drop", _LINEAR * rates[1] >= rates[0], seen)


def _writing(found: Sequence[Figures]) -> Table:
    table = _table("Writing; the CPU milliseconds are our processes' own, a task", "database", "tasks")
    parts = list(dict.fromkeys(name for each in found for name in each.spent.seconds))
    for heading in ("processes", "seconds", "tasks/s", "by tenth", *parts, "others' cores"):
        table.add_column(heading, justify="right")
    for result in found:
        table.add_row(
            *(result.database.value, f"{result.tasks:,}", f"{result.processes}", f"{result.seconds:,.0f}"),
            *(f"{result.tasks / result.seconds:,.0f}", f"{min(result.rates):,.0f}-{max(result.rates):,.0f}"),
            *(f"{result.spent.milliseconds(name):.3f}" for name in parts),
            f"{result.others_cores:.1f}",
        )
    return table


def _bytes(found: Sequence[Figures]) -> Table:
    table = _table("Bytes a task, indexes included", "database", "tasks")
    groups = list(dict.fromkeys(group for each in found for group in each.bytes_per_task))
    for heading in (*groups, "sum", "GB in all"):
        table.add_column(heading, justify="right")
    for result in found:
        sizes = result.bytes_per_task
        table.add_row(
            *(result.database.value, f"{result.tasks:,}"),
            *(f"{sizes.get(group, 0):,.0f}" for group in groups),
            *(f"{sum(sizes.values()):,.0f}", f"{sum(result.sizes.values()) / 1e9:.2f}"),
        )
    return table


def _questions(found: Sequence[Figures]) -> Table:
    table = _table("Seconds that a question takes, connecting included", "question", "database", "tasks")
    for heading in ("found", "cold", "median", "worst"):
        table.add_column(heading, justify="right")
    for question in dict.fromkeys(timing.question for each in found for timing in each.timings):
        for result in found:
            timing = result.timing(question)
            if timing:
                cold = "" if timing.cold is None else f"{timing.cold:.3f}"
                where = (question, result.database.value, f"{result.tasks:,}")
                table.add_row(*where, f"{timing.size:,}", cold, f"{timing.median:.3f}", f"{timing.worst:.3f}")
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading)
    return table
