"""The command `python -m lab.chaos`: works the same tickets without and with faults, prints what that proves."""

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
from lab.chaos.arm import Work, on_postgres
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
    """Exit code 1 when anything was found of what must be zero."""
    options = _options()
    return exit_code(lambda: _run(options), "chaos")


def _run(options: argparse.Namespace) -> None:
    described = machine.hardware()
    tickets = make_tickets(options.seed, options.tasks)
    seconds = 60 * options.minutes
    outages = plan.outages(options.seed, seconds)
    clean = _worked(report.CLEAN, options, Work(tickets, len(tickets) / _CLEAN_TASKS_A_SECOND))
    runs = {report.CLEAN: judge(clean, clean.bill)}
    work = Work(tickets, seconds, outages)
    runs[report.FAULTS] = judge(_worked(report.FAULTS, options, work), clean.bill)
    runs[report.TWINS] = judge(_twins(options, tickets), clean.bill)
    if options.without_journal:
        runs[report.WITHOUT_JOURNAL] = _without_journal(options, work, clean.bill)
    report.show(Console(width=160), described, runs)
    if options.json:
        named: Mapping[str, Any] = {"seed": options.seed, "minutes": options.minutes, "latency": options.latency}
        report.write(options.json, report.as_json(described, named, runs))
        console.print(f"written to {options.json}", highlight=False, soft_wrap=True)
    if not all(verdict.held for verdict in runs.values()):
        raise UserError(
            "Something was found that must be zero; see above.", remedy="--keep FOLDER keeps logs and state."
        )


def _without_journal(options: argparse.Namespace, work: Work, clean_bill: Sequence[Row]) -> Verdict:
    command = [str(paths.VENV_PYTHON), "-m", "lab.chaos.worker"]
    return judge(_worked(report.WITHOUT_JOURNAL, options, work, worker=command), clean_bill, journal=False)


def _twins(options: argparse.Namespace, tickets: tuple[Expected, ...]) -> Evidence:
    """The same tickets, worked by two workers with a sidecar each, of which one at a time dies or stands still."""
    seconds = 60 * options.minutes
    outages = plan.twin_outages(options.seed, seconds)
    with on_postgres() as both:
        return _worked(report.TWINS, options, Work(tickets, seconds, outages), **both)


def _worked(name: str, options: argparse.Namespace, work: Work, **made: Any) -> Evidence:
    """One run, on a stack and a state of its own; `made`: how the stack is to be made."""
    folder = _folder(options.keep, name)
    killed, frozen = _told(plan.killed(work.plan)), _told(plan.frozen(work.plan))
    victims = f"to be killed: {killed}; to be frozen: {frozen}"
    console.print(f"{name}: {len(work.tickets)} tasks; {victims}", highlight=False)
    stack = Stack(folder, latency_seconds=options.latency, **made)
    found = arm.run(stack, work, lambda line: console.print(f"  {line}", style="dim", highlight=False))
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{victim} {count}" for victim, count in counts.items() if count) or "nothing"


def _folder(keep: Path | None, name: str) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="chaos-"))
    folder: Path = keep / name.replace(",", "").replace(" ", "-")
    if folder.exists():
        raise UserError(f"{folder} is there already.", remedy="Name another folder with --keep, or remove it.")
    folder.mkdir(parents=True)
    return folder


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab.chaos", description="Tasks under load while everything is killed."
    )
    parser.add_argument("--seed", type=int, default=7, help="of tickets and outages; default 7")
    parser.add_argument("--tasks", type=int, default=500, help="default 500")
    parser.add_argument("--minutes", type=float, default=6.0, help="of load and outages; default 6")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that the model takes; default 1")
    parser.add_argument("--without-journal", action="store_true", help="also a run in which the journal never answers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures, as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep each run's state and logs there")
    options = parser.parse_args()
    if options.tasks < 1 or options.minutes <= 0 or options.latency < 0:
        parser.error("--tasks and --minutes are above zero, and --latency is not below it")
    return options


if __name__ == "__main__":
    sys.exit(main())
