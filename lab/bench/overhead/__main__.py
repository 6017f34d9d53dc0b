"""`python -m lab.bench.overhead [--rounds N] [--seconds S] [--output FILE]`: the cost of record and telemetry."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lab.bench import machine
from lab.bench.overhead.pairs import LOADS, Load, Measurement, run
from lab.bench.overhead.worker import BARE, WHOLE

THROUGHPUT_PERCENT, CALL_MILLISECONDS = 5.0, 2.0


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds of steady load in each run.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this file, as JSON.")] = None,
) -> None:
    """Measures the product on SQLite alternately with and without the parts that the record needs."""
    console = Console()
    machine_facts = machine.describe()
    for name, value in machine_facts.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
        measurements = list(run(Path(folder), rounds, seconds, lambda line: console.print(line, style="dim")))
    rows = [figures(load, measurements) for load in LOADS]
    console.print(_table(rows))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"machine": machine_facts, "loads": rows}, indent=1) + "\n")


def figures(load: Load, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """The figures of one load: both rates, the percentage that each pair loses, and milliseconds of a model call."""
    whole = [m for m in measurements if m.load == load and m.kind == WHOLE]
    bare = [m for m in measurements if m.load == load and m.kind == BARE]
    lost = [100 * (1 - with_.window.rate / without.window.rate) for with_, without in zip(whole, bare, strict=True)]
    added = [total - inner for measurement in whole for _, total, inner in measurement.calls]
    return {
        "load": load.name,
        "whole_per_second": [round(m.window.rate, 2) for m in whole],
        "bare_per_second": [round(m.window.rate, 2) for m in bare],
        "lost_percent": [round(percent, 1) for percent in lost],
        "lost_percent_median": round(median(lost), 1),
        "cpu_ms_whole": _cpu(whole),
        "cpu_ms_bare": _cpu(bare),
        "added_ms": {name: _milliseconds(added, part) for name, part in (("p50", 0.5), ("p99", 0.99))},
        "call_ms_p99_whole": _p99(whole),
        "call_ms_p99_bare": _p99(bare),
        "calls": len(added),
        "others_cores": max(m.window.others_cores for m in (*whole, *bare)),
    }


def _cpu(measurements: Sequence[Measurement]) -> dict[str, float]:
    names = measurements[0].window.cpu_ms_per_task
    return {name: round(median(m.window.cpu_ms_per_task[name] for m in measurements), 1) for name in names}


def _p99(measurements: Sequence[Measurement]) -> float:
    return _milliseconds([total for measurement in measurements for _, total, _ in measurement.calls], 0.99)


def _milliseconds(seconds: Sequence[float], part: float) -> float:
    """The percentile `part` (0..1) of these seconds, in milliseconds."""
    if not seconds:
        raise ValueError("no model call was timed; see the worker's log")
    return round(1000 * sorted(seconds)[min(int(part * len(seconds)), len(seconds) - 1)], 2)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="SQLite, question ticket, with and without the record")
    for heading in ("load", "with /s", "without /s", "lost %", "median", "added ms p50", "p99", "call p99", "without"):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    for row in rows:
        lists = (" ".join(map(str, row[name])) for name in ("whole_per_second", "bare_per_second", "lost_percent"))
        table.add_row(
            *(row["load"], *lists, str(row["lost_percent_median"])),
            *(str(row["added_ms"]["p50"]), str(row["added_ms"]["p99"])),
            *(str(row["call_ms_p99_whole"]), str(row["call_ms_p99_bare"])),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
