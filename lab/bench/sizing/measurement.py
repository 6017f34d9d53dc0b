"""What a task costs in each part: CPU, rows, bytes and writes of every process and database, per task."""

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
from lab.bench.sides import DATABASE, Prepared, Running, component, describe_stack
from lab.bench.sizing.demand import Round
from lab.tickets import MODEL_CALLS, OUTCOME, UNATTENDED, Shape
from runtime import processes
from runtime.errors import UserError
from runtime.stack import Stack
from tests.servers import PostgresServer

MODEL_SECONDS, LANES = 1.0, 32
# A PostgreSQL session that has nothing to do adds its counts to the server's after ten seconds.
_SETTLE_SECONDS = 12.0
_RECORDED_SECONDS = 120.0
STATE, LEDGER = "state", "ledger"
_PROCESSES = {"worker": "agent", "postgres": "PostgreSQL state", "ledger": "PostgreSQL ledger"}
_RELATIONS = "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
# Write-ahead log, transactions that wrote (each takes one number), rows written, rows that stayed, bytes with indexes.
_COUNTS = f"""
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_snapshot_xmax(pg_current_snapshot()),
  (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables),
  (SELECT sum(n_tup_ins - n_tup_del) FROM pg_stat_user_tables),
  (SELECT sum(pg_total_relation_size(oid)) {_RELATIONS})
"""  # noqa: S608 - nothing of it comes from outside
_NAMES = ("wal_bytes", "transactions", "rows_written", "rows", "bytes")


@dataclass(frozen=True)
class Plant:
    """What is measured: the product with a PostgreSQL server for the state and one for the ledger."""

    stack: Stack
    running: Running
    servers: Mapping[str, PostgresServer]


@contextmanager
def plant(folder: Path) -> Iterator[Plant]:
    """Starts everything below `folder`, and ends it. Raises UserError."""
    with ExitStack() as open_until:
        servers = {name: open_until.enter_context(PostgresServer()) for name in (STATE, LEDGER)}
        overlay = component("state.postgresql", "v2", connectionString=servers[STATE].create_database(DATABASE))
        servers[LEDGER].create_database(LEDGER)
        url = servers[LEDGER].url(LEDGER, "postgresql+psycopg")
        stack = Stack(folder, overlay=overlay, worker_env={"REFUND_AGENT_LEDGER_URL": url})
        open_until.enter_context(stack)
        leaders = {"postgres": servers[STATE].pid, "ledger": servers[LEDGER].pid}
        prepared = Prepared(overlay, leaders, servers[STATE].version())
        yield Plant(stack, describe_stack(stack, prepared), servers)


def measured(open_plant: Plant, tasks: int, rounds: int) -> Iterator[Round]:
    """Every round of both shapes, in turns, after a few tasks that fill caches and make tables. Raises UserError."""
    numbers = NumberSource()
    for shape in UNATTENDED:
        asyncio.run(_work(open_plant.running, shape, max(tasks // 6, 1), numbers))
    _settle(open_plant)
    for _ in range(rounds):
        for shape in UNATTENDED:
            yield _round(open_plant, shape, tasks, numbers)


def write(path: Path, machine: Mapping[str, str], rounds: Sequence[Round]) -> None:
    """Every round's own figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": dict(machine), "model_seconds": MODEL_SECONDS, "rounds": [asdict(each) for each in rounds]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, str], list[Round]]:
    """Machine and rounds of a file that `write` made. Raises UserError for any other file."""
    try:
        document = json.loads(path.read_text())
        rounds = [Round(**{**each, "shape": Shape(each["shape"])}) for each in document["rounds"]]
        return dict(document["machine"]), rounds
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Measure first: python -m lab.bench.sizing."
        raise UserError(f"{path} holds no measurement ({type(error).__name__}).", remedy=remedy) from None


def since(before: Mapping[str, float], after: Mapping[str, float], tasks: int) -> dict[str, float]:
    """What each of `tasks` tasks used between two looks at counters that only grow."""
    return {name: round((after[name] - before[name]) / tasks, 4) for name in before}


def _round(of: Plant, shape: Shape, tasks: int, numbers: NumberSource) -> Round:
    before, busy, started = _counters(of), machine.machine_busy(), time.perf_counter()
    cpu_before = machine.cpu_snapshot(of.running.leaders)
    each = asyncio.run(_work(of.running, shape, tasks, numbers))
    _wait_until_recorded(of)
    cpu_after, seconds = machine.cpu_snapshot(of.running.leaders), time.perf_counter() - started
    used = machine.cpu_since(cpu_before, cpu_after)
    others = (machine.machine_busy() - busy - sum(used.values())) / seconds
    idle = _settle(of)
    counted = since(before, _counters(of), tasks)
    if counted["model_calls"] != MODEL_CALLS[shape]:
        raise UserError(f"{tasks} {shape} tickets made {counted['model_calls']} model calls each.")
    per_task = {_named(name): round(1000 * value / tasks, 2) for name, value in used.items()} | counted
    return Round(shape, tasks, round(seconds, 1), statistics.median(each), max(round(others, 2), 0.0), per_task, idle)


async def _work(running: Running, shape: Shape, tasks: int, numbers: NumberSource) -> list[float]:
    """Works so many tickets, `LANES` at once; the seconds that each took. Raises UserError when one ends otherwise."""
    running.sandbox.set_latency(MODEL_SECONDS)
    lanes = min(LANES, tasks)
    async with (
        CaseWatch(running.sandbox_state) as watch,
        open_load(running, Submission.HTTP, watch, numbers) as load,
    ):

        async def lane(number: int) -> list[float]:
            await asyncio.sleep(MODEL_CALLS[shape] * MODEL_SECONDS * number / lanes)  # so that tasks come in no waves
            return await load.alone(shape, len(range(number, tasks, lanes)))

        found = await asyncio.gather(*map(lane, range(lanes)))
        watch.look()
        if set(watch.outcomes) != {OUTCOME[shape]}:
            raise UserError(f"{shape} tickets ended as {dict(watch.outcomes)} instead of {OUTCOME[shape]}.")
    return [seconds for some in found for seconds in some]


def _wait_until_recorded(of: Plant) -> None:
    query = "SELECT count(*) FROM tickets WHERE NOT recorded"
    recorded = lambda: of.servers[LEDGER].run_sql(query, LEDGER).strip() == "0"  # noqa: E731
    processes.wait_until(recorded, what="the record of each task", deadline_seconds=_RECORDED_SECONDS)


def _settle(of: Plant) -> dict[str, float]:
    """Waits until every count has arrived; CPU milliseconds a second of each process meanwhile."""
    before, started = machine.cpu_snapshot(of.running.leaders), time.perf_counter()
    time.sleep(_SETTLE_SECONDS)
    used, seconds = machine.cpu_since(before, machine.cpu_snapshot(of.running.leaders)), time.perf_counter() - started
    return {_named(name): round(1000 * value / seconds, 2) for name, value in used.items()}


def _named(process: str) -> str:
    return "cpu_ms_" + _PROCESSES.get(process, process).replace(" ", "_").lower()


def _counters(of: Plant) -> dict[str, float]:
    """Everything that only grows, as it is now."""
    found: dict[str, float] = {}
    for name, server in of.servers.items():
        counts = server.run_sql(_COUNTS, DATABASE if name == STATE else LEDGER).strip().split("|")
        found |= {f"{name}_{what}": float(count) for what, count in zip(_NAMES, counts, strict=True)}
    bill = of.running.sandbox.bill_total()
    found |= {"model_calls": bill["requests"]} | {name: bill[name] for name in ("input_tokens", "output_tokens")}
    return found | _scheduler(of.stack)


def _scheduler(stack: Stack) -> dict[str, float]:
    """Jobs by its metrics; what its etcd takes on the disk (the file is sparse), and what the process has written."""
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
    """The sum of a metric over its labels, on a Prometheus page. Raises UserError when it is not there."""
    found = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
    if not found:
        raise UserError(f"The metrics page has no {metric}.", remedy="Look at the names of this version of Dapr.")
    return sum(map(float, found))
