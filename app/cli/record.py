"""`refund-agent record TASK`: the record of a task, with its time, tokens and money."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.cli import opening
from app.cli.client import AsJson
from app.cli.screen import (
    Column,
    ColumnKind,
    Exact,
    Wide,
    figures,
    rounding_notes,
    say,
    show_facts,
    show_json,
    show_table,
)
from app.cli.tasks import TaskId, decision_line
from app.domain import formatting
from app.domain.formatting import UNKNOWN, Digits, digits_for, duration, instant
from app.finance.cost_texts import INPUT, KINDS, WORKFLOW, amounts, incomplete, money_of, of_kind, remarks, tokens
from app.pricing.charge_types import Meter

if TYPE_CHECKING:
    from app.finance.report_schemas import GroupView
    from app.ledger.reading.record_schemas import CallView, RecordView, StepView

_COLUMNS: tuple[Column | str, ...] = (
    "stage, step, call",
    Column("attempts", ColumnKind.FIGURE),
    "state",
    Column("answered", spare=2),
    Column("model", common=True, spare=4),
    Column("active", ColumnKind.FIGURE, spare=1),
    *figures("tokens in"),
    Column("cached", ColumnKind.FIGURE, spare=3),
    *figures("tokens out", "cost"),
)


def record(task_id: TaskId, exact: Exact = False, wide: Wide = False, as_json: AsJson = False) -> None:
    """Shows the record of a task: stages, attempts, model calls, tokens and money. Works while the agent is down."""
    from app.ledger.reading.record_schemas import record_view

    view = record_view(opening.open_records().record(task_id))
    if as_json:
        show_json(view)
        return
    show_facts([("task", view.task_id), *_facts(view)])
    say("")
    costs = (*(step.cost for step in view.steps), *(call.cost for call in view.calls))
    digits = digits_for(amounts(view.total, *costs), exact=exact)
    show_table(_COLUMNS, list(_rows(view, digits)))
    for line in _summary(view, digits):
        say(line)


def _facts(view: RecordView) -> list[tuple[str, str]]:
    time_parts = ", ".join(f"{part.value} {duration(length)}" for part, length in view.seconds.items() if length)
    booked = f", booked as {view.refund_id}" if view.refund_id else ""
    return [
        ("tenant", view.tenant),
        ("workflow", f"{view.workflow} {view.version}".strip()),
        ("rerun of", view.rerun_of or ""),
        ("status", view.status.value),
        ("outcome", view.outcome.value if view.outcome else ""),
        ("category", view.category),
        ("refund", f"{formatting.refund(view.refund)}{booked}" if view.refund else ""),
        ("started (UTC)", instant(view.started_at)),
        ("ended (UTC)", instant(view.ended_at)),
        ("seen (UTC)", "" if view.ended_at else instant(view.projected_at)),
        ("time", time_parts),
        ("workers", f"{len(view.workers)}, one after another" if len(view.workers) > 1 else ""),
        *(
            ("decision" if number == 0 else "", decision_line(decision))
            for number, decision in enumerate(view.decisions)
        ),
        ("history", f"{view.turns:,} turns, {view.events:,} events, {formatting.size(view.bytes)}"),
    ]


def _rows(view: RecordView, digits: Digits) -> Iterator[tuple[str, ...]]:
    """For each stage: the stage, its steps with their calls, then its calls without a step in the history."""

    for stage in view.stages:
        group = stage.cost
        usage = tokens(group, *INPUT), tokens(group, Meter.CACHED_INPUT), tokens(group, Meter.OUTPUT)
        active = duration(stage.active_seconds) if stage.steps else ""
        name = stage.stage or WORKFLOW
        yield (name, "", "", "", "", active, *usage, _money(group, digits))
        for step in view.steps:
            if step.stage == stage.stage:
                yield _step_row(step, digits)
                yield from (_call_row(call, view, digits) for call in view.calls if call.step == step.step)
        without_step = (call for call in view.calls if call.step is None and call.stage == stage.stage)
        yield from (_call_row(call, view, digits) for call in without_step)


def _money(group: GroupView, digits: Digits) -> str:
    return ", ".join(money_of(group, digits))


def _step_row(step: StepView, digits: Digits) -> tuple[str, ...]:
    return (
        f"  {step.step} {step.name}",
        str(len(step.attempts)),
        step.attempts[-1].outcome.value if step.attempts else "",
        step.answered_by.value if step.answered_by else "",
        "",
        duration(step.active_seconds),
        *("", "", ""),
        _money(step.cost, digits),
    )


def _call_row(call: CallView, view: RecordView, digits: Digits) -> tuple[str, ...]:
    usage = call.usage
    cached = 0 if usage.input_tokens == 0 else usage.cached_tokens
    ended = max(call.over_at or view.ended_at or view.projected_at, call.started_at)
    counts = (usage.input_tokens, cached, usage.output_tokens)
    return (
        f"    call {call.turn}.{call.number}{'' if call.step else ' (no step)'}",
        "",
        call.state.value,
        "",
        call.model or f"? of {call.component}",
        duration(ended - call.started_at, estimated=call.ended_at is None),
        *(formatting.tokens(count, usage.basis) for count in counts),
        _money(call.cost, digits),
    )


def _summary(view: RecordView, digits: Digits) -> Iterator[str]:
    """The totals, the failures on the way, and what is unknown."""

    yield ""
    for sum_ in view.total.money:
        kinds = " + ".join(f"{kind} {of_kind(sum_, kind, digits)}" for kind in KINDS if kind in sum_.by_kind)
        missing = f" + {UNKNOWN}" if incomplete(view.total) else ""
        yield f"total  {digits.show(sum_.contracted_cost, sum_.currency)} {sum_.currency}{missing} = {kinds}{missing}"
        for basis, part in sum_.by_basis.items():
            if part and basis.value != "reported":
                yield f"  of it {basis} {digits.show(part, sum_.currency)} {sum_.currency}"
        if sum_.list_cost != sum_.contracted_cost:
            yield f"  at list prices {digits.show(sum_.list_cost, sum_.currency)} {sum_.currency}"
    yield from (f"note: {line}" for line in [*_failure_notes(view), *remarks(view.total), *rounding_notes(digits)])


def _failure_notes(view: RecordView) -> Iterator[str]:
    """Each failed attempt with the time until the step was resumed, then failed calls that no attempt mentions."""
    names = {step.step: step.name for step in view.steps}
    errors = {(step.step, attempt.number): attempt.error for step in view.steps for attempt in step.attempts}
    for failure in view.failures:
        subject = f"step {failure.step} {names[failure.step]}, attempt {failure.attempt} {failure.kind.value}"
        why = errors[failure.step, failure.attempt] if failure.kind.value == "failed" else instant(failure.at)
        resumed = f"; resumed after {duration(failure.resumed_at - failure.at)}" if failure.resumed_at else ""
        yield f"{subject} ({failure.cause.words}): {why}{resumed}"
    for call in view.calls:
        in_attempt = any(call.error in why for (step, _), why in errors.items() if why and step == call.step)
        if call.error and not in_attempt:
            why = f" ({call.cause.words})" if call.cause else ""
            yield f"call {call.turn}.{call.number} of {call.stage} {call.state}{why}: {call.error}"
