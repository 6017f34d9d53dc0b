"""The command `python -m lab.chaos`: works the same tickets without and with faults, and prints the verdicts."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.bench import machine
from lab.chaos import arm, plan, report
from lab.chaos.arm import Work, postgres_options
from lab.chaos.evidence import Evidence, Row
from lab.chaos.load import Expected, make_tickets
from lab.chaos.verdict import Verdict, judge
from lab.command import exit_code
from runtime import paths
from runtime.errors import UserError
from runtime.stack import Stack

_CLEAN_TASKS_A_SECOND = 6.0
console = Console(stderr=True)


def main() -> int:
    """Returns exit code 1 if a check that must be zero found anything."""
    options = _options()
    return exit_code(lambda: _run(options), "chaos")


def _run(options: argparse.Namespace) -> None:
    machine_facts = machine.hardware()
    tickets = make_tickets(options.seed, options.tasks)
    seconds = 60 * options.minutes
    outages = plan.outages(options.seed, seconds)
    clean = _run_tickets(report.CLEAN, options, Work(tickets, len(tickets) / _CLEAN_TASKS_A_SECOND))
    runs = {report.CLEAN: judge(clean, clean.bill)}
    work = Work(tickets, seconds, outages)
    runs[report.FAULTS] = judge(_run_tickets(report.FAULTS, options, work), clean.bill)
    runs[report.TWO_WORKERS] = judge(_run_two_workers(options, tickets), clean.bill)
    if options.without_journal:
        runs[report.WITHOUT_JOURNAL] = _run_without_journal(options, work, clean.bill)
    report.show(Console(width=160), machine_facts, runs)
    if options.json:
        options_shown: Mapping[str, Any] = {
            "seed": options.seed,
            "minutes": options.minutes,
            "latency": options.latency,
        }
        report.write(options.json, report.as_json(machine_facts, options_shown, runs))
        console.print(f"written to {options.json}", highlight=False, soft_wrap=True)
    if not all(verdict.held for verdict in runs.values()):
        raise UserError("A check that must be zero is not; see above.", remedy="--keep FOLDER keeps logs and state.")


def _run_without_journal(options: argparse.Namespace, work: Work, clean_bill: Sequence[Row]) -> Verdict:
    command = [str(paths.VENV_PYTHON), "-m", "lab.chaos.worker"]
    return judge(_run_tickets(report.WITHOUT_JOURNAL, options, work, worker=command), clean_bill, journal=False)


def _run_two_workers(options: argparse.Namespace, tickets: tuple[Expected, ...]) -> Evidence:
    """Works the tickets with two workers, each with a sidecar; one process at a time is killed or frozen."""
    seconds = 60 * options.minutes
    outages = plan.two_worker_outages(options.seed, seconds)
    with postgres_options() as stack_options:
        return _run_tickets(report.TWO_WORKERS, options, Work(tickets, seconds, outages), **stack_options)


def _run_tickets(name: str, options: argparse.Namespace, work: Work, **stack_options: Any) -> Evidence:
    """One run on a fresh stack, which is made with `stack_options`."""
    folder = _folder(options.keep, name)
    kills, freezes = _format_counts(plan.count_kills(work.plan)), _format_counts(plan.count_freezes(work.plan))
    victims = f"to be killed: {kills}; to be frozen: {freezes}"
    console.print(f"{name}: {len(work.tickets)} tasks; {victims}", highlight=False)
    stack = Stack(folder, latency_seconds=options.latency, **stack_options)
    evidence = arm.run(stack, work, lambda line: console.print(f"  {line}", style="dim", highlight=False))
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return evidence


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{victim} {count}" for victim, count in counts.items() if count) or "nothing"


def _folder(keep: Path | None, name: str) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="chaos-"))
    folder: Path = keep / name.replace(",", "").replace(" ", "-")
    if folder.exists():
        raise UserError(f"{folder} exists already.", remedy="Name another folder with --keep, or remove it.")
    folder.mkdir(parents=True)
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab.chaos", description="Works tasks under load while processes are killed."
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of tickets and outages; default 7")
    parser.add_argument("--tasks", type=int, default=500, help="number of tasks; default 500")
    parser.add_argument("--minutes", type=float, default=6.0, help="minutes of load and outages; default 6")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of a model call; default 1")
    parser.add_argument("--without-journal", action="store_true", help="add a run in which the journal never answers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep state and logs of each run there")
    options = parser.parse_args()
    if options.tasks < 1 or options.minutes <= 0 or options.latency < 0:
        parser.error("--tasks and --minutes must be above zero, --latency must not be negative")
    return options


if __name__ == "__main__":
    sys.exit(main())
