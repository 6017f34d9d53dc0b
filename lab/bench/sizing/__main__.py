"""The command `python -m lab.bench.sizing`: measures, or simulates from figures; prints tables, writes JSON."""

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
from lab.bench.sizing.demand import Demand, Round, Site, average_task, demand, medians
from lab.bench.sizing.simulation import Simulation, simulate
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
    """Returns exit code 1 if a run failed."""
    options = _options(arguments)
    return exit_code(lambda: options.work(options), "lab.bench.sizing", "Interrupted; the finished rounds are written.")


def measure(options: argparse.Namespace) -> None:
    """Works tickets, prints what a task costs, and writes the file that `simulate` reads."""
    ensure_installed()
    machine_facts = machine.hardware() | {"date": time.strftime("%Y-%m-%d", time.gmtime()), "daprd": machine.daprd()}
    rounds: list[Round] = []
    folder = Path(tempfile.mkdtemp(prefix="bench-sizing-"))
    try:
        with measurement.plant(folder) as plant:
            machine_facts["PostgreSQL"] = plant.running.store_version
            for result in measurement.measure_rounds(plant, options.tasks, options.rounds):
                rounds.append(result)
                line = f"{result.tasks} {result.shape} tickets in {result.seconds:.0f} s"
                console.print(f"{line}; other programs kept {result.others_cores} cores busy", highlight=False)
                measurement.write(options.output, machine_facts, rounds)
    except UserError:
        console.print(f"the logs of the failed run are in {folder}", highlight=False, soft_wrap=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    for name, value in machine_facts.items():
        print(f"{name:>14}  {value}")
    show("a task needs", [f"{shape}{suffix}" for shape in UNATTENDED for suffix in ("", ", least-most")], costs(rounds))
    show("CPU ms a second while no task runs", ["median", "least-most"], idle(rounds))
    console.print(f"written to {options.output}", highlight=False, soft_wrap=True)


def estimate(options: argparse.Namespace) -> None:
    """Prints what each rate needs, and the results of a simulated hour with a ten-minute outage."""
    machine_facts, rounds = measurement.read(options.measured)
    site = Site(**{field.name: getattr(options, field.name) for field in fields(Site)})
    need, retries = average_task(rounds, site.refund_share), policy.load(paths.ROOT / "config" / "policy.yaml").retries
    demands = [demand(need, site, rate) for rate in options.rates]
    simulations = [simulate(need, site, retries, size, options.seed) for size in demands]
    print(f"computed from figures of {machine_facts['machine']}, {machine_facts['date']}; seed {options.seed}")
    rates = [f"{rate:,.0f}" for rate in options.rates]
    show("tasks a minute", rates, transpose([demand_rows(size) for size in demands]))
    show(
        "part of one shard",
        [f"tasks a minute at {100 * site.busy:.0f} %"],
        limits(demand(need, site, _RATES[-1]), site),
    )
    show(
        "simulated hour, tasks a minute", rates, transpose([simulation_rows(simulation) for simulation in simulations])
    )
    if options.json:
        entries = [
            asdict(size) | {"simulated": simulation_rows(simulation)}
            for size, simulation in zip(demands, simulations, strict=True)
        ]
        document = {"seed": options.seed, "site": asdict(site), "rates": entries}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def costs(rounds: Sequence[Round]) -> dict[str, list[str]]:
    """For each quantity of a task and each shape: median, and minimum to maximum of the rounds."""
    rows: dict[str, list[str]] = {}
    for shape in UNATTENDED:
        for name, values in medians([entry.quantities for entry in rounds if entry.shape is shape]).items():
            rows.setdefault(name.replace("_", " "), []).extend(_spread(*values))
    return rows


def idle(rounds: Sequence[Round]) -> dict[str, list[str]]:
    """For the CPU time of each process while no task runs: median, and minimum to maximum of the rounds."""
    spreads = medians([entry.idle_ms_per_second for entry in rounds])
    return {name.removeprefix("cpu_ms_").replace("_", " "): _spread(*values) for name, values in spreads.items()}


def demand_rows(size: Demand) -> dict[str, str]:
    """The table column of a demand: agents, shards, needs, busiest part."""
    first = f"{size.first} ({size.loads[size.first]:.0%})"
    counts: dict[str, float] = {"agents": size.agents, "shards": size.shards}
    return {name: number(value) for name, value in (counts | dict(size.needs)).items()} | {"busiest part": first}


def limits(size: Demand, site: Site) -> dict[str, list[str]]:
    """The tasks a minute that each part of one shard can carry, lowest first.

    Pass the demand of a high rate: at a low rate, the minimum number of agents distorts the connections.
    """
    parts = sorted(size.loads, key=lambda part: -size.loads[part])
    return {part: [number(size.carries(part, site.busy))] for part in parts}


def simulation_rows(simulation: Simulation) -> dict[str, str]:
    """The table column of a simulation. Counts are those of the whole fleet."""
    rows = {
        "tasks": len(simulation.tasks) * simulation.parts,
        "parked": sum(task.parked for task in simulation.tasks) * simulation.parts,
        "seconds to finish, p50": simulation.seconds(0.5),
        "seconds to finish, p99": simulation.seconds(0.99),
        "the same, arrived in the outage, p99": simulation.seconds(0.99, in_outage=True),
        "backlog when the provider is back": simulation.backlog(),
        "seconds until it is worked off": simulation.recovery_seconds(),
        "failed attempts": simulation.failed_attempts * simulation.parts,
        "steps in the busiest minute, of the usual": simulation.peak(),
    }
    rows |= {
        f"{name} busy, %": 100 * max(station.busy(simulation.plan.arrivals) for station in stations)
        for name, stations in simulation.stations.items()
    }
    return {name: number(value) for name, value in rows.items()}


def show(first: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Prints a Markdown table; `first` is the heading of the first column."""
    table = Table(first, box=box.MARKDOWN)
    for column in columns:
        table.add_column(column, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    Console(width=200).print(table)


def number(value: float) -> str:
    """Whole numbers and those from 100 on without decimals, others with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _spread(middle: float, least: float, most: float) -> list[str]:
    return [number(middle), f"{number(least)}-{number(most)}"]


def transpose(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Turns columns of named cells into rows."""
    return {name: [column[name] for column in columns] for name in columns[0]}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lab.bench.sizing", description="Measures what a task costs, on PostgreSQL."
    )
    parser.set_defaults(work=measure)
    parser.add_argument("--tasks", type=int, default=300, help="tickets of each shape in a round; default 300")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; default 3")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help=f"JSON; default {_OUTPUT}")
    simulate_ = parser.add_subparsers().add_parser(
        "simulate", help="compute from measured figures what each rate needs"
    )
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
