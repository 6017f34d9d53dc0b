"""The command `python -m lab.bench`: measures all cases, prints the tables, writes the JSON."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lab.bench import machine, results, sides
from lab.bench.load import NumberSource
from lab.bench.measure import Window, measure
from lab.bench.plan import (
    DEFAULT_VARIANTS,
    FULL,
    LATENCIES,
    QUICK,
    VARIANTS,
    Block,
    Case,
    Pace,
    Side,
    Store,
    Submission,
    Variant,
    blocks,
)
from lab.bench.results import goals, summaries
from lab.bench.sides import running
from lab.command import exit_code
from lab.tickets import Shape
from runtime import paths
from runtime.errors import UserError
from tests.servers import ensure_installed

_OUTPUT = paths.STATE / "bench" / "results.json"
console = Console(stderr=True)


def main() -> int:
    """Returns exit code 1 if a run failed. A missed goal is a result, not a failure."""
    options = _options()
    return exit_code(lambda: _run(options), "bench")


def _run(options: argparse.Namespace) -> None:
    ensure_installed()
    sides.ensure_dbos_environment()
    pace = QUICK if options.quick else FULL
    if options.rounds:
        pace = replace(pace, rounds=options.rounds)
    variants = dict(DEFAULT_VARIANTS) if options.quick else _fastest_variants(pace)
    stores = tuple(Store(name) for name in options.stores) or tuple(Store)
    windows: dict[Case, list[Window]] = {}
    machine_facts = machine.describe()
    order = blocks(stores[:1] if options.quick else stores, variants, quick=options.quick)
    for number in range(1, pace.rounds + 1):
        for block in order:
            machine_facts |= _measure_block(block, pace, f"round {number} of {pace.rounds}", windows)
    cases = summaries(windows)
    judged = goals(cases)
    results.show(Console(width=200), machine_facts, cases, judged, variants)
    results.write(options.output, machine_facts, cases, judged, variants)
    console.print(f"written to {options.output}", highlight=False, soft_wrap=True)


def _measure_block(block: Block, pace: Pace, title: str, windows: dict[Case, list[Window]]) -> dict[str, str]:
    """Measures all cases of a block on fresh processes, adds them to `windows`, and returns the store's version."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    numbers = NumberSource()
    try:
        with running(block, folder) as side:
            for case in block.cases:
                window = asyncio.run(measure(side, case, pace, numbers))
                windows.setdefault(case, []).append(window)
                console.print(f"{title}: {_result_line(case, window)}", highlight=False, soft_wrap=True)
    except UserError:
        console.print(f"bench: the logs of the failed run are in {folder}", highlight=False, soft_wrap=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return {block.store.value: side.store_version} if side.store_version else {}


def _result_line(case: Case, window: Window) -> str:
    where = f"{case.side.value}, {case.store.value}, {case.submission.value}, {case.latency:.0f} s, {case.shape.value}"
    return f"{where}: {window.rate:.1f} tasks/s, other programs kept {window.others_cores:.1f} cores busy"


def _fastest_variants(pace: Pace) -> dict[float, Variant]:
    """The fastest variant of DBOS for each model latency in seconds, measured with short windows."""
    short = replace(pace, window_seconds=pace.window_seconds / 2, alone=dict.fromkeys(LATENCIES, 0))
    best: dict[float, tuple[float, Variant]] = {}
    for variant in VARIANTS:
        cases = [Case(Side.DBOS, Store.POSTGRES, Submission.HTTP, latency, Shape.QUESTION) for latency in LATENCIES]
        windows: dict[Case, list[Window]] = {}
        _measure_block(Block(Side.DBOS, Store.POSTGRES, tuple(cases), variant), short, f"DBOS as {variant}", windows)
        for case, (window,) in windows.items():
            best[case.latency] = max(best.get(case.latency, (0.0, variant)), (window.rate, variant), key=lambda x: x[0])
    return {latency: variant for latency, (_, variant) in best.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.bench", description="Tasks a second, ours and DBOS's.")
    parser.add_argument("--quick", action="store_true", help="PostgreSQL and one ticket shape, about three minutes")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--stores", nargs="*", default=[], choices=[store.value for store in Store], metavar="STORE")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help=f"JSON; default {_OUTPUT}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
