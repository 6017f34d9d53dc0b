"""Prints the result as tables."""

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
    """Prints the machine, both tables and the remarks."""
    for name, value in result.machine.items():
        console.print(f"{name:>20}  {value}", highlight=False)
    console.print(_rate_table(result))
    console.print(_kind_table(result))
    for line in remarks(result):
        console.print(line, highlight=False, soft_wrap=True)


def remarks(result: CrashCostView) -> list[str]:
    """The conclusions from the figures, as sentences."""
    ratios = [_ratio_remark(load) for load in result.loads if load.ratio is not None]
    traces = [trace for load in result.loads for trace in load.traces]
    return [*ratios, _resume_remark([trace.resume for trace in traces]), *_restart_remarks(traces)]


def _resume_remark(arms: list[ArmView]) -> str:
    unexplained = sum(arm.unexplained for arm in arms)
    booked = sum(arm.refunds_otherwise + arm.notices_otherwise + arm.cases_otherwise for arm in arms)
    if unexplained or booked:
        return (
            f"Resumed: {unexplained} requests that the traces do not explain, {booked} different entries in the books."
        )
    return (
        f"Resumed, in all {len(arms)} runs: no completed step was paid again, only calls in flight; the books "
        "equal those of the clean run."
    )


def _restart_remarks(traces: list[TraceView]) -> Iterator[str]:
    notices = sum(trace.restart.notices_otherwise for trace in traces)
    refunds = sum(trace.restart.refunds_otherwise for trace in traces)
    if notices:
        yield (
            f"Restarted: {notices} notices and {refunds} refunds differ from the clean run: a task that restarts after "
            "its own refund finds it in the books, and decides differently."
        )


def _ratio_remark(load: LoadView) -> str:
    assert load.ratio is not None  # noqa: S101 - checked by the caller
    verdict = "at most a tenth" if load.ratio <= TENTH else "more than a tenth"
    calls = f"{load.model_calls.normalize():f} model calls each"
    return f"{load.title}, {calls}: resume repeats {percent(load.ratio)} of what restart does, {verdict}."


def _rate_table(result: CrashCostView) -> Table:
    table = Table(
        title=f"Model spend repeated because of crashes, in {result.currency} and as share of the clean spend"
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


def _kind_table(result: CrashCostView) -> Table:
    table = Table(title="Repeated spend by what the kill interrupted, as share of the clean spend of the killed tasks")
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
    """A share as percentage, such as `3.6 %`."""
    return formatting.percent(value, 1)
