"""Times reports: each question once with cold caches and several times with warm ones, on a new connection."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from app.finance.rollup import Dimension, Rollup, rollup
from app.ledger.reading.queries import LedgerQueries
from app.ledger.store.database import connect
from lab.bench.ledger.population import BEGIN, MONTH, YEAR, Population
from lab.bench.ledger.stores import Store
from runtime import paths
from runtime.errors import UserError

GOAL = "by tenant and stage, one month"
_ENOUGH_SECONDS = 60.0
_YEAR = (BEGIN.date(), (BEGIN + YEAR).date())
_DAY = (MONTH[0], MONTH[0] + timedelta(days=1))
Question = Callable[[LedgerQueries], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of a question, once cold and then warm. `size` is the number of groups or records in the answer."""

    question: str
    size: int
    cold: float | None
    warm: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the warm runs."""
        return statistics.median(self.warm)

    @property
    def worst(self) -> float:
        """The slowest warm run."""
        return max(self.warm)

    def as_json(self) -> dict[str, Any]:
        """All figures, rounded."""
        figures = asdict(self) | {"median": self.median, "worst": self.worst}
        return {name: _round(value) for name, value in figures.items()}


def questions(population: Population) -> Mapping[str, Question]:
    """The questions by name."""
    people = [population.person(population.tasks * share // 100) for share in range(5, 95, 5)]
    ids = [f"{person.tenant}:{person.ticket_id}" for person in people]
    return {
        GOAL: lambda records: records.report([Dimension.TENANT, Dimension.STAGE], *MONTH),
        "by day and model, one month": lambda records: records.report([Dimension.DAY, Dimension.MODEL], *MONTH),
        "by tenant, whole year": lambda records: records.report([Dimension.TENANT], *_YEAR),
        "by price book, whole year": lambda records: records.report([Dimension.PRICE_BOOK], *_YEAR),
        "by task, one day": lambda records: records.report([Dimension.TASK], *_DAY),
        "the records of 18 tasks": lambda records: [records.record(task_id) for task_id in ids],
    }


def time_questions(store: Store, population: Population, times: int) -> list[Timing]:
    """Times every question: once with empty caches, then up to `times` times with full ones."""
    timings = []
    for name, question in questions(population).items():
        store.cool()
        cold, size = _once(store.url, question)
        timings.append(Timing(name, size, cold, tuple(_repeat(store.url, question, times))))
    timings.append(_time_command(store.url, times))
    return timings


def check(store: Store, tasks: int) -> None:
    """Compares a report from the daily sums with the sum of all charges. Raises UserError if they differ."""
    engine = connect(store.url)
    records = LedgerQueries(engine)
    by = (Dimension.TENANT, Dimension.STAGE, Dimension.MODEL, Dimension.OUTCOME, Dimension.DAY)
    equal = records.report(by) == rollup(records.charges(), by)
    engine.dispose()
    if not equal:
        raise UserError(f"The report of {tasks} tasks is not the sum of their charges.")


def _once(url: str, question: Question) -> tuple[float, int]:
    """Seconds of one run, with connecting, and the size of its answer."""
    started = time.perf_counter()
    engine = connect(url)
    answer = question(LedgerQueries(engine))
    seconds = time.perf_counter() - started
    engine.dispose()
    return seconds, _size(answer)


def _repeat(url: str, question: Question, times: int) -> Iterator[float]:
    """Seconds of up to `times` runs; stops early if they take more than a minute together."""
    spent = 0.0
    for _ in range(times):
        seconds, _ = _once(url, question)
        yield seconds
        spent += seconds
        if spent > _ENOUGH_SECONDS:
            return


def _size(answer: object) -> int:
    if isinstance(answer, Rollup):
        return len(answer.groups)
    return len(answer) if isinstance(answer, list) else 0


def _time_command(url: str, times: int) -> Timing:
    """Times the command `cost report` with the question of the goal, process start included."""
    command = [sys.executable, "-m", "app", "cost", "report", "--by", "tenant,stage", "--json"]
    command += ["--since", MONTH[0].isoformat(), "--until", MONTH[1].isoformat()]
    environment = {**os.environ, "REFUND_AGENT_LEDGER_URL": url}
    warm, size = [], 0
    for _ in range(times):
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        warm.append(time.perf_counter() - started)
        if done.returncode:
            raise UserError(f"`cost report` failed: {done.stderr.strip()[-600:]}")
        size = len(json.loads(done.stdout)["groups"])
    return Timing("`cost report`, the same, whole command", size, None, tuple(warm))


def _round(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_round(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
