"""The result as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from app.domain import formatting
from app.domain.formatting import rounded
from lab.crash_cost.views import ArmView, CrashCostView, LoadView, TraceView

TENTH = Decimal("0.1")


def show(console: Console, result: CrashCostView) -> None:
    """Everything."""
    for name, value in result.machine.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    console.print(_rates(result))
    console.print(_kinds(result))
    for line in remarks(result):
        console.print(line, highlight=False, soft_wrap=True)


def remarks(result: CrashCostView) -> list[str]:
    """What the figures say, in sentences."""
    said = [_reached(load) for load in result.loads if load.ratio is not None]
    traces = [trace for load in result.loads for trace in load.traces]
    return [*said, _held_against_the_trace([trace.resume for trace in traces]), *_restarted(traces)]


def _held_against_the_trace(arms: list[ArmView]) -> str:
    unexplained = sum(arm.unexplained for arm in arms)
    booked = sum(arm.refunds_otherwise + arm.notices_otherwise + arm.cases_otherwise for arm in arms)
    if unexplained or booked:
        return f"Resumed: {unexplained} requests that the traces do not explain, {booked} entries booked otherwise."
    return (
        f"Resumed, in all {len(arms)} runs: no completed step was paid again, just the calls in flight; the books are "
        "those of the clean run."
    )


def _restarted(traces: list[TraceView]) -> Iterator[str]:
    notices = sum(trace.restart.notices_otherwise for trace in traces)
    refunds = sum(trace.restart.refunds_otherwise for trace in traces)
    if notices:
        yield (
            f"Restarted: {notices} notices more or other than in the clean run, {refunds} refunds: a task that begins "
            "again behind its own refund finds it in the books, and decides otherwise than before."
        )


def _reached(load: LoadView) -> str:
    assert load.ratio is not None  # noqa: S101 - asked by the caller
    verdict = "at most a tenth" if load.ratio <= TENTH else "more than a tenth"
    calls = f"{load.model_calls.normalize():f} model calls each"
    return f"{load.title}, {calls}: resume repeats {percent(load.ratio)} of what restart does, {verdict}."


def _rates(result: CrashCostView) -> Table:
    table = Table(
        title=f"Model spend that crashes made be paid twice, {result.currency}, and as share of the clean spend"
    )
    table.add_column("tasks")
    arms = [heading for arm in ("restart", "resume") for heading in (arm, "of clean", "by the trace")]
    for heading in ("of", "killed", "rate", "clean", "at most", *arms):
        table.add_column(heading, justify="right")
    table.add_column("resume / restart", justify="right")
    for load in result.loads:
        for trace in load.traces:
            table.add_row(load.title, *_row(load, trace))
    return table


def _row(load: LoadView, trace: TraceView) -> tuple[str, ...]:
    return (
        *(
            str(load.tasks),
            str(trace.kills),
            percent(trace.rate),
            rounded(load.clean.amount),
            rounded(trace.upper_bound),
        ),
        *_arm(trace.restart),
        *_arm(trace.resume),
        percent(trace.ratio) if trace.ratio is not None else "",
    )


def _arm(arm: ArmView) -> tuple[str, str, str]:
    return rounded(arm.repeated.amount), percent(arm.share), rounded(arm.expected.amount)


def _kinds(result: CrashCostView) -> Table:
    table = Table(title="By what the kill interrupted: repeated, as share of what the killed tasks cost clean")
    for heading in ("tasks", "killed"):
        table.add_column(heading)
    for heading in ("kills", "restart", "resume"):
        table.add_column(heading, justify="right")
    for load in result.loads:
        for kind in load.kinds:
            shares = (percent(kind.restart / kind.clean), percent(kind.resume / kind.clean))
            table.add_row(load.title, kind.kind.value, str(kind.kills), *shares)
    return table


def percent(value: Decimal) -> str:
    """`3.6 %`."""
    return formatting.percent(value, 1)
