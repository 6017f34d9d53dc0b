"""How long the reports take: each question with a fresh connection, cold once, then warm several times."""

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
    """Seconds that a question took: cold once, then warm. `size` is the number of groups, lines or rows it found."""

    question: str
    size: int
    cold: float | None
    warm: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the warm ones."""
        return statistics.median(self.warm)

    @property
    def worst(self) -> float:
        """Of the warm ones."""
        return max(self.warm)

    def as_json(self) -> dict[str, Any]:
        """Every single figure."""
        found = asdict(self) | {"median": self.median, "worst": self.worst}
        return {name: _rounded(value) for name, value in found.items()}


def questions(population: Population) -> Mapping[str, Question]:
    """What is asked, by its name."""
    some = [population.person(population.tasks * share // 100) for share in range(5, 95, 5)]
    ids = [f"{person.tenant}:{person.ticket_id}" for person in some]
    return {
        GOAL: lambda records: records.report([Dimension.TENANT, Dimension.STAGE], *MONTH),
        "by day and model, one month": lambda records: records.report([Dimension.DAY, Dimension.MODEL], *MONTH),
        "by tenant, whole year": lambda records: records.report([Dimension.TENANT], *_YEAR),
        "by price book, whole year": lambda records: records.report([Dimension.PRICE_BOOK], *_YEAR),
        "by task, one day": lambda records: records.report([Dimension.TASK], *_DAY),
        "the records of 18 tasks": lambda records: [records.record(task_id) for task_id in ids],
    }


def asked(store: Store, population: Population, times: int) -> list[Timing]:
    """Every question: after the caches were emptied, and `times` times with them full."""
    found = []
    for name, question in questions(population).items():
        store.cool()
        cold, size = _once(store.url, question)
        found.append(Timing(name, size, cold, tuple(_again(store.url, question, times))))
    found.append(_command(store.url, times))
    return found


def check(store: Store, tasks: int) -> None:
    """The daily sums against the charges one by one. Raises UserError when they differ."""
    engine = connect(store.url)
    records = LedgerQueries(engine)
    by = (Dimension.TENANT, Dimension.STAGE, Dimension.MODEL, Dimension.OUTCOME, Dimension.DAY)
    same = records.report(by) == rollup(records.charges(), by)
    engine.dispose()
    if not same:
        raise UserError(f"The report of {tasks} tasks is not the sum of their charges.")


def _once(url: str, question: Question) -> tuple[float, int]:
    """Seconds with a fresh connection, the connecting included; and how much was found."""
    begun = time.perf_counter()
    engine = connect(url)
    answer = question(LedgerQueries(engine))
    seconds = time.perf_counter() - begun
    engine.dispose()
    return seconds, _size(answer)


def _again(url: str, question: Question, times: int) -> Iterator[float]:
    """Up to so many times; fewer of a question that takes minutes."""
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


def _command(url: str, times: int) -> Timing:
    """The goal's question as a person asks it: a whole process."""
    command = [sys.executable, "-m", "app", "cost", "report", "--by", "tenant,stage", "--json"]
    command += ["--since", MONTH[0].isoformat(), "--until", MONTH[1].isoformat()]
    environment = {**os.environ, "REFUND_AGENT_LEDGER_URL": url}
    warm, size = [], 0
    for _ in range(times):
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        warm.append(time.perf_counter() - begun)
        if done.returncode:
            raise UserError(f"`cost report` failed: {done.stderr.strip()[-600:]}")
        size = len(json.loads(done.stdout)["groups"])
    return Timing("`cost report`, the same, whole command", size, None, tuple(warm))


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value
