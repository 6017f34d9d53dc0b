"""Measures what a task costs each process and database: CPU time, rows, bytes and writes."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from lab.bench import machine
from lab.bench.load import CaseWatch, NumberSource, open_load
from lab.bench.plan import Submission
from lab.bench.sides import DATABASE, PreparedStore, Running, component, describe_stack
from lab.bench.sizing.demand import Round
from lab.tickets import MODEL_CALLS, OUTCOME, UNATTENDED, Shape
from runtime import processes
from runtime.errors import UserError
from runtime.stack import Stack
from tests.servers import PostgresServer

MODEL_SECONDS, LANES = 1.0, 32
# An idle PostgreSQL session adds its counts to the server's after ten seconds.
_SETTLE_SECONDS = 12.0
_RECORDED_SECONDS = 120.0
STATE, LEDGER = "state", "ledger"
_PROCESSES = {"worker": "agent", "postgres": "PostgreSQL state", "ledger": "PostgreSQL ledger"}
_RELATIONS = "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
# Bytes of write-ahead log, write transactions (each takes a number), rows written, rows kept, bytes with indexes.
_COUNTS = f"""
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_snapshot_xmax(pg_current_snapshot()),
  (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables),
  (SELECT sum(n_tup_ins - n_tup_del) FROM pg_stat_user_tables),
  (SELECT sum(pg_total_relation_size(oid)) {_RELATIONS})
"""  # noqa: S608 - built from constants
_NAMES = ("wal_bytes", "transactions", "rows_written", "rows", "bytes")


@dataclass(frozen=True)
class Plant:
    """The installation that is measured: the product with one PostgreSQL server for state and one for the ledger."""

    stack: Stack
    running: Running
    servers: Mapping[str, PostgresServer]


@contextmanager
def plant(folder: Path) -> Iterator[Plant]:
    """Starts the plant with its files below `folder`, and stops it at the end. Raises UserError."""
    with ExitStack() as open_until:
        servers = {name: open_until.enter_context(PostgresServer()) for name in (STATE, LEDGER)}
        overlay = component("state.postgresql", "v2", connectionString=servers[STATE].create_database(DATABASE))
        servers[LEDGER].create_database(LEDGER)
        url = servers[LEDGER].url(LEDGER, "postgresql+psycopg")
        stack = Stack(folder, overlay=overlay, worker_env={"REFUND_AGENT_LEDGER_URL": url})
        open_until.enter_context(stack)
        leaders = {"postgres": servers[STATE].pid, "ledger": servers[LEDGER].pid}
        prepared = PreparedStore(overlay, leaders, servers[STATE].version())
        yield Plant(stack, describe_stack(stack, prepared), servers)


def measure_rounds(open_plant: Plant, tasks: int, rounds: int) -> Iterator[Round]:
    """Measures both shapes in turn, after a few tasks that fill caches and create tables. Raises UserError."""
    numbers = NumberSource()
    for shape in UNATTENDED:
        asyncio.run(_work_tickets(open_plant.running, shape, max(tasks // 6, 1), numbers))
    _settle(open_plant)
    for _ in range(rounds):
        for shape in UNATTENDED:
            yield _measure_round(open_plant, shape, tasks, numbers)


def write(path: Path, machine: Mapping[str, str], rounds: Sequence[Round]) -> None:
    """Writes machine and rounds as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": dict(machine), "model_seconds": MODEL_SECONDS, "rounds": [asdict(entry) for entry in rounds]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, str], list[Round]]:
    """Machine and rounds from a file that `write` made. Raises UserError for any other file."""
    try:
        document = json.loads(path.read_text())
        rounds = [Round(**{**entry, "shape": Shape(entry["shape"])}) for entry in document["rounds"]]
        return dict(document["machine"]), rounds
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Measure first: python -m lab.bench.sizing."
        raise UserError(f"{path} holds no measurement ({type(error).__name__}).", remedy=remedy) from None


def growth_per_task(before: Mapping[str, float], after: Mapping[str, float], tasks: int) -> dict[str, float]:
    """The growth of each counter between two readings, for each of `tasks` tasks."""
    return {name: round((after[name] - before[name]) / tasks, 4) for name in before}


def _measure_round(plant: Plant, shape: Shape, tasks: int, numbers: NumberSource) -> Round:
    before, busy, started = _counters(plant), machine.machine_busy(), time.perf_counter()
    cpu_before = machine.cpu_snapshot(plant.running.leaders)
    durations = asyncio.run(_work_tickets(plant.running, shape, tasks, numbers))
    _wait_until_recorded(plant)
    cpu_after, seconds = machine.cpu_snapshot(plant.running.leaders), time.perf_counter() - started
    used = machine.cpu_since(cpu_before, cpu_after)
    others = (machine.machine_busy() - busy - sum(used.values())) / seconds
    idle = _settle(plant)
    counted = growth_per_task(before, _counters(plant), tasks)
    if counted["model_calls"] != MODEL_CALLS[shape]:
        raise UserError(
            f"{tasks} {shape} tickets made {counted['model_calls']} model calls each instead of {MODEL_CALLS[shape]}."
        )
    per_task = {_cpu_name(name): round(1000 * value / tasks, 2) for name, value in used.items()} | counted
    return Round(
        shape, tasks, round(seconds, 1), statistics.median(durations), max(round(others, 2), 0.0), per_task, idle
    )


async def _work_tickets(running: Running, shape: Shape, tasks: int, numbers: NumberSource) -> list[float]:
    """Works tickets, `LANES` at once, and returns the seconds of each. Raises UserError on a wrong outcome."""
    running.sandbox.set_latency(MODEL_SECONDS)
    lanes = min(LANES, tasks)
    async with (
        CaseWatch(running.sandbox_state) as watch,
        open_load(running, Submission.HTTP, watch, numbers) as load,
    ):

        async def lane(number: int) -> list[float]:
            await asyncio.sleep(
                MODEL_CALLS[shape] * MODEL_SECONDS * number / lanes
            )  # spread the lanes, or tasks run in waves
            return await load.time_tasks(shape, len(range(number, tasks, lanes)))

        lane_durations = await asyncio.gather(*map(lane, range(lanes)))
        watch.look()
        if set(watch.outcomes) != {OUTCOME[shape]}:
            raise UserError(f"{shape} tickets ended as {dict(watch.outcomes)} instead of {OUTCOME[shape]}.")
    return [seconds for durations in lane_durations for seconds in durations]


def _wait_until_recorded(plant: Plant) -> None:
    query = "SELECT count(*) FROM tickets WHERE NOT recorded"
    recorded = lambda: plant.servers[LEDGER].run_sql(query, LEDGER).strip() == "0"  # noqa: E731
    processes.wait_until(recorded, what="the record of each task", deadline_seconds=_RECORDED_SECONDS)


def _settle(plant: Plant) -> dict[str, float]:
    """Waits until PostgreSQL has all counts; returns the CPU milliseconds a second of each process meanwhile."""
    before, started = machine.cpu_snapshot(plant.running.leaders), time.perf_counter()
    time.sleep(_SETTLE_SECONDS)
    used, seconds = (
        machine.cpu_since(before, machine.cpu_snapshot(plant.running.leaders)),
        time.perf_counter() - started,
    )
    return {_cpu_name(name): round(1000 * value / seconds, 2) for name, value in used.items()}


def _cpu_name(process: str) -> str:
    return "cpu_ms_" + _PROCESSES.get(process, process).replace(" ", "_").lower()


def _counters(plant: Plant) -> dict[str, float]:
    """The present values of all counters; they only grow."""
    counters: dict[str, float] = {}
    for name, server in plant.servers.items():
        counts = server.run_sql(_COUNTS, DATABASE if name == STATE else LEDGER).strip().split("|")
        counters |= {f"{name}_{quantity}": float(count) for quantity, count in zip(_NAMES, counts, strict=True)}
    bill = plant.running.sandbox.bill_total()
    counters |= {"model_calls": bill["requests"]} | {name: bill[name] for name in ("input_tokens", "output_tokens")}
    return counters | _scheduler_counters(plant.stack)


def _scheduler_counters(stack: Stack) -> dict[str, float]:
    """Jobs by the scheduler's metrics, bytes of its etcd on disk (the file is sparse), bytes that it has written."""
    page = httpx.get(f"{stack.control_plane.metrics_url('scheduler')}/metrics", trust_env=False).raise_for_status().text
    (database,) = (stack.state / "scheduler").rglob("snap/db")
    written = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{stack.pid('scheduler')}/io").read_text(), re.MULTILINE)
    return {
        "scheduler_jobs": total(page, "dapr_scheduler_jobs_created_total"),
        "scheduler_triggers": total(page, "dapr_scheduler_jobs_triggered_total"),
        "scheduler_etcd_bytes": 512 * database.stat().st_blocks,
        "scheduler_written_bytes": float(written[1]) if written else 0.0,
    }


def total(page: str, metric: str) -> float:
    """The sum of a metric over its labels, on a Prometheus page. Raises UserError if the page lacks it."""
    values = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    if not values:
        raise UserError(
            f"The metrics page has no {metric}.", remedy="Compare with the metric names of this version of Dapr."
        )
    return sum(map(float, values))
