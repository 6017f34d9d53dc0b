"""The command `python -m lab.bench.sizing`: measures, or simulates from what was measured; tables and JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from app.config import policy
from lab.bench import machine
from lab.bench.sizing import measurement
from lab.bench.sizing.demand import Demand, Round, Site, demand, medians, mixed
from lab.bench.sizing.simulation import Seen, simulate
from lab.command import exit_code
from lab.tickets import UNATTENDED
from runtime import paths
from runtime.errors import UserError
from tests.servers import ensure_installed

_OUTPUT = paths.STATE / "bench" / "sizing.json"
_MEASURED = paths.ROOT / "docs" / "scale.json"
_RATES = (10.0, 1_000.0, 100_000.0)
console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 when a run went wrong."""
    options = _options(arguments)
    return exit_code(lambda: options.work(options), "lab.bench.sizing", "Interrupted; what was measured is written.")


def measure(options: argparse.Namespace) -> None:
    """Works the tickets, prints what each task cost, writes the file that `simulate` reads."""
    ensure_installed()
    described = machine.hardware() | {"date": time.strftime("%Y-%m-%d", time.gmtime()), "daprd": machine.daprd()}
    rounds: list[Round] = []
    folder = Path(tempfile.mkdtemp(prefix="bench-sizing-"))
    try:
        with measurement.plant(folder) as plant:
            described["PostgreSQL"] = plant.running.store_version
            for each in measurement.measured(plant, options.tasks, options.rounds):
                rounds.append(each)
                line = f"{each.tasks} {each.shape} tickets in {each.seconds:.0f} s"
                console.print(f"{line}; others kept {each.others_cores} cores busy", highlight=False)
                measurement.write(options.output, described, rounds)
    except UserError:
        console.print(f"the logs of the run that failed are kept in {folder}", highlight=False, soft_wrap=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    for name, value in described.items():
        print(f"{name:>14}  {value}")
    show("a task needs", [f"{shape}{of}" for shape in UNATTENDED for of in ("", ", least-most")], costs(rounds))
    show("CPU ms a second while no task runs", ["median", "least-most"], idle(rounds))
    console.print(f"written to {options.output}", highlight=False, soft_wrap=True)


def estimate(options: argparse.Namespace) -> None:
    """Prints what each rate needs, and what came of a simulated hour with a provider that is away for ten minutes."""
    described, rounds = measurement.read(options.measured)
    site = Site(**{field.name: getattr(options, field.name) for field in fields(Site)})
    need, retries = mixed(rounds, site.refund_share), policy.load(paths.ROOT / "config" / "policy.yaml").retries
    wanted = [demand(need, site, rate) for rate in options.rates]
    seen = [simulate(need, site, retries, size, options.seed) for size in wanted]
    print(f"from what was measured on {described['machine']}, {described['date']}; seed {options.seed}")
    rates = [f"{each:,.0f}" for each in options.rates]
    show("tasks a minute", rates, turned([demanded(size) for size in wanted]))
    show(
        "part of one shard",
        [f"tasks a minute at {100 * site.busy:.0f} %"],
        limits(demand(need, site, _RATES[-1]), site),
    )
    show("simulated hour, tasks a minute", rates, turned([simulated(each) for each in seen]))
    if options.json:
        found = [asdict(each) | {"simulated": simulated(run)} for each, run in zip(wanted, seen, strict=True)]
        document = {"seed": options.seed, "site": asdict(site), "rates": found}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def costs(rounds: Sequence[Round]) -> dict[str, list[str]]:
    """Of each quantity of a task the median, the least and the most of the rounds, by shape."""
    rows: dict[str, list[str]] = {}
    for shape in UNATTENDED:
        for name, values in medians([each.quantities for each in rounds if each.shape is shape]).items():
            rows.setdefault(name.replace("_", " "), []).extend(_spread(*values))
    return rows


def idle(rounds: Sequence[Round]) -> dict[str, list[str]]:
    """Of each process's CPU while no task runs the median, the least and the most of the rounds."""
    found = medians([each.idle_ms_per_second for each in rounds])
    return {name.removeprefix("cpu_ms_").replace("_", " "): _spread(*values) for name, values in found.items()}


def demanded(of: Demand) -> dict[str, str]:
    """What a rate needs."""
    first = f"{of.first} ({of.loads[of.first]:.0%})"
    counts: dict[str, float] = {"agents": of.agents, "shards": of.shards}
    return {name: number(value) for name, value in (counts | dict(of.needs)).items()} | {"busiest part": first}


def limits(of: Demand, site: Site) -> dict[str, list[str]]:
    """What one shard carries, part by part, the first limit first. Of a high rate: a low one has more agents than it
    needs."""
    parts = sorted(of.loads, key=lambda part: -of.loads[part])
    return {part: [number(of.carries(part, site.busy))] for part in parts}


def simulated(seen: Seen) -> dict[str, str]:
    """What came of a run, for the whole fleet where it is a count."""
    found = {
        "tasks": len(seen.tasks) * seen.parts,
        "parked": sum(task.parked for task in seen.tasks) * seen.parts,
        "seconds to finish, p50": seen.seconds(0.5),
        "seconds to finish, p99": seen.seconds(0.99),
        "the same, arrived in the outage, p99": seen.seconds(0.99, in_outage=True),
        "backlog when the provider is back": seen.backlog(),
        "seconds until it is worked off": seen.worked_off(),
        "failed attempts": seen.failed_attempts * seen.parts,
        "steps in the busiest minute, of the usual": seen.peak(),
    }
    found |= {
        f"{name} busy, %": 100 * max(each.busy(seen.plan.arrivals) for each in alike)
        for name, alike in seen.stations.items()
    }
    return {name: number(value) for name, value in found.items()}


def show(first: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """A table as Markdown has it."""
    table = Table(first, box=box.MARKDOWN)
    for column in columns:
        table.add_column(column, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console(width=200).print(table)


def number(value: float) -> str:
    """Three digits that count, or whole with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _spread(middle: float, least: float, most: float) -> list[str]:
    return [number(middle), f"{number(least)}-{number(most)}"]


def turned(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Columns of named cells as rows."""
    return {name: [column[name] for column in columns] for name in columns[0]}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lab.bench.sizing", description="How big it must be.")
    parser.set_defaults(work=measure)
    parser.add_argument("--tasks", type=int, default=300, help="tickets of each shape in a round; default 300")
    parser.add_argument("--rounds", type=int, default=3, help="how often; default 3")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help=f"JSON; default {_OUTPUT}")
    simulate_ = parser.add_subparsers().add_parser("simulate", help="from what was measured to what is needed")
    simulate_.set_defaults(work=estimate)
    simulate_.add_argument("--measured", type=Path, default=_MEASURED, help=f"JSON; default {_MEASURED}")
    simulate_.add_argument("--seed", type=int, default=1)
    simulate_.add_argument("--rates", type=float, nargs="+", default=_RATES, metavar="TASKS_A_MINUTE")
    simulate_.add_argument("--json", type=Path, help="also write the figures to this file")
    for field in fields(Site):
        simulate_.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
