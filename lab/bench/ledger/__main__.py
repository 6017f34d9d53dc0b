"""The command `python -m lab.bench.ledger`: fills ledgers, times reports, prints the tables, writes the JSON."""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from lab.bench import machine
from lab.bench.ledger import questions, results, writing
from lab.bench.ledger.population import Population
from lab.bench.ledger.results import Figures
from lab.bench.ledger.stores import Database, Store, open_store
from lab.command import exit_code
from runtime import paths
from tests.servers import ensure_installed

_OUTPUT = paths.STATE / "bench" / "ledger.json"
_SIZES = (10_000, 100_000, 1_000_000)
_TIMES = 7
# Above this, summing all charges one by one takes minutes.
_MAX_CHECKED = 10_000
console = Console(stderr=True)


def main() -> int:
    """Returns exit code 1 if a run failed. A missed goal is a result, not a failure."""
    options = _options()
    return exit_code(lambda: _run(options), "bench", "Interrupted; the finished sizes are written.")


def _run(options: argparse.Namespace) -> None:
    kinds = [Database(name) for name in options.databases] or list(Database)
    if Database.POSTGRES in kinds:
        ensure_installed()
    sizes = _SIZES[:1] if options.quick else options.tasks
    machine_facts = machine.hardware() | {"sqlalchemy": version("sqlalchemy"), "psycopg": version("psycopg")}
    figures: list[Figures] = []
    for kind in kinds:
        for tasks in sizes:
            figures.append(measure(kind, tasks, options.processes, options.folder))
            results.write(options.output, machine_facts, figures)
    results.show(Console(width=200), machine_facts, figures)
    console.print(f"written to {options.output}", highlight=False, soft_wrap=True)


def measure(
    kind: Database, tasks: int, processes_: int, folder: Path | None = None, times: int = _TIMES, seed: int = 7
) -> Figures:
    """Writes a year of `tasks` tasks into a new database, measures its sizes and reports, and deletes it."""
    population = Population(tasks, seed)
    with open_store(kind, folder) as store:
        pace = writing.Pace(tasks, lambda line: _say(kind, tasks, line))
        started, busy, used = time.perf_counter(), machine.machine_busy(), machine.cpu_seconds(os.getpid())
        spent = writing.write_population(store.url, population, processes_, pace.progress)
        seconds = time.perf_counter() - started
        others = (machine.machine_busy() - busy - machine.cpu_seconds(os.getpid()) + used) / seconds
        settle_started = time.perf_counter()
        store.settle()
        settled = time.perf_counter() - settle_started
        _say(kind, tasks, f"written in {seconds:.0f} s; {spent.milliseconds(*results.PRODUCT):.2f} ms of CPU a record")
        return Figures(
            database=kind,
            version=store.version,
            tasks=tasks,
            processes=processes_,
            seconds=seconds,
            rates=tuple(pace.rates),
            spent=spent,
            settled_seconds=settled,
            sizes=store.sizes(),
            timings=tuple(_time_questions(store, population, times)),
            others_cores=max(round(others, 2), 0.0),
        )


def _time_questions(store: Store, population: Population, times: int) -> list[questions.Timing]:
    if population.tasks <= _MAX_CHECKED:
        questions.check(store, population.tasks)
    return questions.time_questions(store, population, times)


def _say(kind: Database, tasks: int, line: str) -> None:
    console.print(f"{kind.value}, {tasks:,} tasks: {line}", highlight=False, soft_wrap=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.bench.ledger", description="The ledger under a year of tasks.")
    parser.add_argument("--quick", action="store_true", help=f"{_SIZES[0]:,} tasks only, about two minutes")
    parser.add_argument("--tasks", type=int, nargs="+", default=list(_SIZES), help="the sizes to measure")
    parser.add_argument("--databases", nargs="*", default=[], choices=[kind.value for kind in Database], metavar="NAME")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="number of processes that write at once"
    )
    parser.add_argument("--folder", type=Path, help="where SQLite's files go; default the temporary folder")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help=f"JSON; default {_OUTPUT}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
