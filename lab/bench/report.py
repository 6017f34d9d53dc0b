"""Prints what was found, and writes it as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.bench.plan import Variant
from lab.bench.results import Goal, Summary, share

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
