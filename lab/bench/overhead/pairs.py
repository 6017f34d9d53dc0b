"""Runs the same loads on the product with and without the record, in pairs, each time on fresh state."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.bench.load import NumberSource
from lab.bench.measure import Window, measure
from lab.bench.overhead.worker import BARE, WHOLE, Timing
from lab.bench.plan import Case, Pace, Side, Store, Submission
from lab.bench.sides import Running, ours
from lab.tickets import Shape
from runtime import paths


@dataclass(frozen=True)
class Load:
    """A load: the seconds of a model call, and the tasks in flight."""

    name: str
    latency: float
    in_flight: int


LOADS = (
    Load("as fast as it goes, model 0 s", 0.0, 32),
    Load("as fast as it goes, model 1 s", 1.0, 128),
    Load("half of that, model 1 s", 1.0, 24),
)


@dataclass(frozen=True)
class Measurement:
    """One run of one load on one kind of worker (`whole` or `bare`)."""

    kind: str
    load: Load
    window: Window
    calls: Sequence[Timing]


def order(rounds: int) -> list[str]:
    """The kinds of worker in order. The first of a pair alternates, so that a machine that warms up favours neither."""
    return [kind for number in range(rounds) for kind in ((WHOLE, BARE) if number % 2 == 0 else (BARE, WHOLE))]


def run(folder: Path, rounds: int, seconds: float, say: Callable[[str], None]) -> Iterator[Measurement]:
    """Runs all loads in `rounds` pairs. Files go below `folder`; `say` prints progress."""
    for number, kind in enumerate(order(rounds)):
        file = folder / f"{number}.json"
        spans: list[tuple[Load, Window, float, float]] = []
        with _running(folder / str(number), kind, file) as running:
            numbers = NumberSource()
            for load in LOADS:
                say(f"{kind}: {load.name}")
                started = time.monotonic()
                window = asyncio.run(measure(running, _case(load), _pace(load, seconds), numbers))
                spans.append((load, window, started, time.monotonic()))
        timings: list[Timing] = [tuple(timing) for timing in json.loads(file.read_text())]
        for load, window, started, ended in spans:
            yield Measurement(kind, load, window, [timing for timing in timings if started <= timing[0] <= ended])


@contextmanager
def _running(folder: Path, kind: str, file: Path) -> Iterator[Running]:
    command = [str(paths.VENV_PYTHON), "-m", "lab.bench.overhead.worker", kind, str(file)]
    with ours(Store.SQLITE, folder, worker=command) as running:
        yield running


def _case(load: Load) -> Case:
    return Case(Side.OURS, Store.SQLITE, Submission.HTTP, load.latency, Shape.QUESTION)


def _pace(load: Load, seconds: float) -> Pace:
    latency, in_flight = load.latency, load.in_flight
    return Pace(1, warm_up_seconds=4, window_seconds=seconds, alone={latency: 0}, in_flight={latency: in_flight})
