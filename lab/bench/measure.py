"""Measures one case on a running side: the sustained rate, the CPU time of each process, one task's latency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lab.bench import machine
from lab.bench.load import CaseWatch, Load, NumberSource, open_load
from lab.bench.plan import Case, Pace
from lab.bench.sides import Running
from lab.tickets import MODEL_CALLS, OUTCOME
from runtime.errors import UserError

_FIRST_CASE_SECONDS = 60.0


@dataclass(frozen=True)
class Window:
    """The figures of one case in one round."""

    tasks: int
    seconds: float
    others_cores: float  # cores that other programs kept busy meanwhile
    cpu_ms_per_task: Mapping[str, float]
    input_tokens_per_task: float
    output_tokens_per_task: float
    alone_seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds


@dataclass(frozen=True)
class _Steady:
    """Figures of steady load."""

    tasks: int
    seconds: float
    used: Mapping[str, float]  # CPU seconds by process
    others_cores: float


async def measure(running: Running, case: Case, pace: Pace, numbers: NumberSource) -> Window:
    """Measures one case once. Raises UserError if tasks do not end as their tickets must."""
    running.sandbox.set_latency(case.latency)
    async with (
        CaseWatch(running.sandbox_state, poll_seconds=0.02) as watch,
        open_load(running, case.submission, watch, numbers) as load,
    ):
        bill = running.sandbox.bill_total()
        steady = await _measure_steady_load(running, case, pace, watch, load)
        tokens = _tokens_per_task(case, watch, bill, running.sandbox.bill_total())
        _check_outcomes(case, watch)
    async with (
        CaseWatch(running.sandbox_state, poll_seconds=0.002) as watch,
        open_load(running, case.submission, watch, numbers) as load,
    ):
        alone = await load.time_tasks(case.shape, pace.alone[case.latency])
    return Window(
        tasks=steady.tasks,
        seconds=steady.seconds,
        others_cores=steady.others_cores,
        cpu_ms_per_task={name: round(1000 * value / max(steady.tasks, 1), 2) for name, value in steady.used.items()},
        input_tokens_per_task=tokens[0],
        output_tokens_per_task=tokens[1],
        alone_seconds=tuple(alone),
    )


async def _measure_steady_load(running: Running, case: Case, pace: Pace, watch: CaseWatch, load: Load) -> _Steady:
    """Runs the load until it is steady, measures a window of it, and waits for the tasks still in flight."""
    await load.start(case.shape, pace.in_flight[case.latency], MODEL_CALLS[case.shape] * case.latency)
    await _wait_for_first_case(case, watch)
    await asyncio.sleep(pace.warm_up_seconds)
    count, started, busy, before = (
        watch.count,
        time.perf_counter(),
        machine.machine_busy(),
        machine.cpu_snapshot(running.leaders),
    )
    await asyncio.sleep(pace.window_seconds)
    tasks, seconds = watch.count - count, time.perf_counter() - started
    used = machine.cpu_since(before, machine.cpu_snapshot(running.leaders))
    others = (machine.machine_busy() - busy - sum(used.values())) / seconds
    await load.halt()
    watch.look()
    return _Steady(tasks, seconds, used, max(round(others, 2), 0.0))


async def _wait_for_first_case(case: Case, watch: CaseWatch) -> None:
    limit = time.monotonic() + _FIRST_CASE_SECONDS
    while not watch.count:
        if time.monotonic() > limit:
            raise UserError(f"{case}: no case was closed in {_FIRST_CASE_SECONDS:.0f} s; see the logs of the run.")
        await asyncio.sleep(0.02)


def _tokens_per_task(
    case: Case, watch: CaseWatch, before: Mapping[str, int], after: Mapping[str, int]
) -> tuple[float, float]:
    """Input and output tokens a task, by the bill. Raises UserError if model calls were repeated or left out."""
    spent = {key: after[key] - before[key] for key in after}
    expected = MODEL_CALLS[case.shape] * watch.count
    if spent["requests"] != expected:
        raise UserError(f"{case}: {watch.count} tasks made {spent['requests']} model calls instead of {expected}.")
    return spent["input_tokens"] / watch.count, spent["output_tokens"] / watch.count


def _check_outcomes(case: Case, watch: CaseWatch) -> None:
    if set(watch.outcomes) != {OUTCOME[case.shape]}:
        raise UserError(f"{case}: tasks ended as {dict(watch.outcomes)} instead of {OUTCOME[case.shape]}.")
