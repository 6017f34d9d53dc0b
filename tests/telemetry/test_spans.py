"""The planned spans of a task: names, parents, times, attributes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.dapr.history.model import AttemptOutcome
from app.dapr.history.times import Span, TimePart
from app.domain.models import AnsweredBy, CallState, Outcome, TaskStatus, UsageBasis
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED, Charge, TokenUsage
from app.telemetry.spans import PlannedSpan, SpanKind, plan
from tests.records import (
    START,
    at,
    attempt_record,
    call_record,
    interrupted_call,
    price_book,
    step_record,
    task_record,
)

TEXT = "Herr Braun, IBAN DE89 3704 0044 0532 0130 00"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def nanoseconds(seconds: float) -> int:
    return round((at(seconds).timestamp()) * 1_000_000) * 1_000


def spans_named(spans: Sequence[PlannedSpan], name: str) -> list[PlannedSpan]:
    return [span for span in spans if span.name == name]


def span_named(spans: Sequence[PlannedSpan], name: str) -> PlannedSpan:
    (span,) = spans_named(spans, name)
    return span


def call_span(**changes: Any) -> PlannedSpan:
    """The span of the only model call of a task."""
    record = task_record(calls=(call_record(**changes),))
    return next(span for span in plan(record) if span.kind is SpanKind.CLIENT)


def test_a_task_is_a_tree_of_steps_calls_and_pauses() -> None:
    spans = plan(task_record())
    names = {span.span_id: span.name for span in spans}
    tree = [(span.name, names.get(span.parent_id or 0, "")) for span in spans]
    task = "invoke_agent refund-agent"
    assert tree == [
        (task, ""),
        ("classify", task),
        ("execute_tool retrieve_account", task),
        ("draft_refund", task),
        ("execute_tool lookup_order", task),
        ("draft_refund", task),
        ("execute_tool notify_customer", task),
        ("execute_tool close_case", task),
        ("chat sandbox-small", "classify"),
        ("chat sandbox-small", "draft_refund"),
        ("chat sandbox-small", "draft_refund"),
        ("chat sandbox-small", "draft_refund"),
        ("waiting decision", task),
    ]
    assert len(names) == len(spans)
    assert len({span.trace_id for span in spans}) == 1


def test_a_call_hangs_below_the_step_that_made_it() -> None:
    spans = plan(task_record())
    first, second = spans_named(spans, "draft_refund")
    parents = [span.parent_id for span in spans_named(spans, "chat sandbox-small")]
    assert parents == [span_named(spans, "classify").span_id, first.span_id, first.span_id, second.span_id]


def test_times_are_those_of_the_record() -> None:
    spans = plan(task_record())
    times = {span.name: (span.start, span.end) for span in spans}
    assert times["invoke_agent refund-agent"] == (nanoseconds(0), nanoseconds(70))
    assert times["execute_tool lookup_order"] == (nanoseconds(6.3), nanoseconds(6.8))
    assert times["waiting decision"] == (nanoseconds(7.4), nanoseconds(67.4))
    assert (spans[8].start, spans[8].end) == (nanoseconds(0.2), nanoseconds(0.5))


def test_no_microsecond_is_lost() -> None:
    start = START + timedelta(microseconds=123_457)
    span = plan(task_record(started_at=start))[0]
    assert span.start % 1_000_000_000 == 123_457_000


def test_a_call_says_what_the_conventions_ask_for() -> None:
    span = plan(task_record())[8]
    assert span.kind is SpanKind.CLIENT
    assert not span.failed
    conventional = {name: value for name, value in span.attributes.items() if name.startswith("gen_ai.")}
    assert conventional == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": "acme:T-1",
        "gen_ai.request.model": "sandbox-small",
        "gen_ai.response.model": "sandbox-small",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 80,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 20,
    }


def test_a_call_says_what_the_conventions_lack() -> None:
    own = {name: value for name, value in plan(task_record())[10].attributes.items() if name.startswith("refund_agent")}
    assert own == {
        "refund_agent.tenant": "acme",
        "refund_agent.task.id": "acme:T-1",
        "refund_agent.stage": "draft_refund",
        "refund_agent.call.state": "settled",
        "refund_agent.call.turn": 1,
        "refund_agent.call.number": 2,
        "refund_agent.call.wasted": False,
        "refund_agent.component": "llm",
        "refund_agent.prompt.version": "p1",
        "refund_agent.worker": "w-2",
        "refund_agent.tokens.basis": "reported",
        "refund_agent.cost.amount": "0.000458",
        "refund_agent.cost.currency": "USD",
        "refund_agent.cost.basis": "reported",
        "refund_agent.price": "prices.yaml/sandbox",
        "refund_agent.price_book": price_book().digest,
    }


def test_a_task_says_what_it_was_and_what_all_of_it_cost() -> None:
    span = plan(task_record())[0]
    assert span.attributes["gen_ai.operation.name"] == "invoke_agent"
    assert span.attributes["gen_ai.agent.name"] == "refund-agent"
    assert span.attributes["gen_ai.workflow.name"] == "refund_ticket"
    assert span.attributes["refund_agent.task.status"] == "completed"
    assert span.attributes["refund_agent.task.outcome"] == "refunded"
    assert span.attributes["refund_agent.task.category"] == "damaged"
    assert span.attributes["refund_agent.task.active_seconds"] == 10.0
    assert span.attributes["refund_agent.task.cost.basis"] == "estimated"
    assert span.attributes["refund_agent.task.cost.currency"] == "USD"
    assert span.attributes["refund_agent.price_book"] == price_book().digest
    assert "refund_agent.task.rerun_of" not in span.attributes


def test_a_tool_is_a_tool_and_a_model_step_is_not() -> None:
    spans = plan(task_record())
    tool, stage = span_named(spans, "execute_tool lookup_order"), span_named(spans, "classify")
    assert tool.attributes["gen_ai.tool.name"] == "lookup_order"
    assert tool.attributes["gen_ai.tool.type"] == "function"
    assert tool.attributes["refund_agent.stage"] == "draft_refund"
    assert stage.attributes["refund_agent.answered_by"] == "provider"
    assert not [name for name in stage.attributes if name.startswith("gen_ai.")]


def test_costs_of_the_spans_sum_to_the_charges() -> None:
    record = task_record()
    spans = plan(record)
    amounts = [span.attributes.get("refund_agent.cost.amount", "0") for span in spans]
    charged = sum((charge.contracted_cost or Decimal(0) for charge in record.charges), Decimal(0))
    assert sum((Decimal(str(amount)) for amount in amounts), Decimal(0)) == charged
    assert Decimal(str(spans[0].attributes["refund_agent.task.cost.amount"])) == charged
    assert charged > 0


def test_corrections_count_as_corrected() -> None:
    record = task_record()
    first = record.charges[0]
    corrected = (*record.charges, *_correction(first, amount=Decimal("0.5")))
    span = plan(replace(record, charges=corrected))[8]
    was = plan(record)[8].attributes["refund_agent.cost.amount"]
    assert first.contracted_cost is not None
    expected = Decimal(str(was)) - first.contracted_cost + Decimal("0.5")
    assert Decimal(str(span.attributes["refund_agent.cost.amount"])) == expected


def _correction(charge: Charge, amount: Decimal) -> tuple[Charge, Charge]:
    assert charge.consumed_quantity is not None
    assert charge.contracted_cost is not None
    back = replace(
        charge, correction=1, consumed_quantity=-charge.consumed_quantity, contracted_cost=-charge.contracted_cost
    )
    return back, replace(charge, correction=2, contracted_cost=amount)


def test_currencies_are_never_added() -> None:
    record = task_record()
    euros = tuple(replace(charge, currency="EUR") if charge.model else charge for charge in record.charges)
    task, call = (plan(replace(record, charges=euros))[place].attributes for place in (0, 8))
    assert call["refund_agent.cost.currency"] == "EUR"
    assert task["refund_agent.task.cost.amounts"] == ("0.003574 EUR", "0.000126975 USD")
    assert "refund_agent.task.cost.amount" not in task


def test_what_is_unpriced_has_no_amount() -> None:
    span = call_span(model="nobody-knows-it")
    assert span.attributes["refund_agent.cost.basis"] == "unpriced"
    assert "refund_agent.cost.amount" not in span.attributes
    assert "refund_agent.price" not in span.attributes


def test_tokens_that_are_not_reported_are_absent() -> None:
    span = call_span(usage=NOT_REPORTED)
    assert not [name for name in span.attributes if name.startswith("gen_ai.usage.")]
    assert span.attributes["refund_agent.tokens.basis"] == "unreported"
    assert span.attributes["refund_agent.cost.basis"] == "unreported"
    partly = call_span(usage=TokenUsage(input_tokens=7, output_tokens=None))
    assert partly.attributes["gen_ai.usage.input_tokens"] == 7
    assert "gen_ai.usage.output_tokens" not in partly.attributes


def test_unreported_numbers_are_absent() -> None:
    span = call_span(usage=TokenUsage(input_tokens=0, output_tokens=0, basis=UsageBasis.UNREPORTED))
    assert not [name for name in span.attributes if name.startswith("gen_ai.usage.")]


def test_an_interrupted_call_ends_when_its_successor_begins() -> None:
    span = plan(task_record())[9]
    assert span.failed
    assert span.attributes["error.type"] == "interrupted"
    assert span.attributes["refund_agent.call.end_known"] is False
    assert span.attributes["refund_agent.call.wasted"] is True
    assert span.attributes["refund_agent.tokens.basis"] == "estimated"
    assert "gen_ai.response.model" not in span.attributes
    assert (span.start, span.end) == (nanoseconds(1.3), nanoseconds(5.8))


def test_of_several_successors_the_first_ends_it() -> None:
    calls = (interrupted_call("e-3", 1.3), interrupted_call("e-3", 2, number=2), call_record("e-3", 5, number=3))
    other_turn = call_record("e-3", 7, turn=2)
    spans = [span for span in plan(task_record(calls=(*calls, other_turn))) if span.kind is SpanKind.CLIENT]
    assert [span.end for span in spans[:2]] == [nanoseconds(2), nanoseconds(5)]


def test_an_interrupted_call_without_successor_ends_with_its_step() -> None:
    record = task_record(calls=(interrupted_call("e-3", 1.3),))
    span = next(span for span in plan(record) if span.kind is SpanKind.CLIENT)
    assert span.end == nanoseconds(6.2)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("status: the provider answers with status 500", "status"),
        ("no_answer_in_time: " + TEXT, "no_answer_in_time"),
        (TEXT, "_OTHER"),
        ("other: " + TEXT, "_OTHER"),
    ],
)
def test_a_failed_call_says_its_cause_and_no_text(error: str, expected: str) -> None:
    span = call_span(
        state=CallState.FAILED,
        error=error,
        finish_reason="",
        usage=NOT_REPORTED,
    )
    assert span.failed
    assert span.attributes["error.type"] == expected
    assert "gen_ai.response.finish_reasons" not in span.attributes


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (f"SystemUnavailable: {TEXT}", "SystemUnavailable"),
        (TEXT, "_OTHER"),
        (f"{TEXT}: why", "_OTHER"),
        ("Braun", "_OTHER"),
        ("", "_OTHER"),
    ],
)
def test_a_step_that_failed_says_its_type_and_no_text(error: str, expected: str) -> None:
    failed = attempt_record(0.1, outcome=AttemptOutcome.FAILED, error=error)
    step = step_record("retrieve_account", attempts=(attempt_record(0, outcome=AttemptOutcome.FAILED), failed))
    spans = plan(task_record(steps=(step,), calls=(), status=TaskStatus.FAILED, outcome=None))
    assert spans[1].failed
    assert spans[1].attributes["error.type"] == expected
    assert spans[1].attributes["refund_agent.step.attempts"] == 2
    assert spans[0].failed
    assert spans[0].attributes["error.type"] == expected


def test_a_step_that_succeeded_in_the_end_did_not_fail() -> None:
    failed = attempt_record(0.1, outcome=AttemptOutcome.FAILED, error="SystemUnavailable: down")
    step = step_record("retrieve_account", attempts=(failed, attempt_record(9, number=2)))
    pause = Span(TimePart.BACK_OFF, at(0.6), at(9))
    spans = plan(task_record(steps=(step,), calls=(), pauses=(pause,)))
    assert not spans[1].failed
    assert (spans[1].start, spans[1].end) == (nanoseconds(0.1), nanoseconds(9.5))
    assert "error.type" not in spans[1].attributes
    assert (spans[2].name, spans[2].attributes["refund_agent.pause"]) == ("back_off", "back_off")


def test_a_failed_task_needs_no_failed_step() -> None:
    span = plan(task_record(status=TaskStatus.FAILED, outcome=None))[0]
    assert span.failed
    assert span.attributes["error.type"] == "_OTHER"
    assert "refund_agent.task.outcome" not in span.attributes


def test_a_task_that_a_person_ended_did_not_fail() -> None:
    span = plan(task_record(status=TaskStatus.TERMINATED, outcome=None))[0]
    assert not span.failed
    assert span.attributes["refund_agent.task.status"] == "terminated"


def test_a_step_that_only_the_journal_knows_has_the_times_of_its_calls() -> None:
    step = step_record(attempts=(), writes=0)
    spans = plan(task_record(steps=(step,)))
    assert (spans[1].start, spans[1].end) == (nanoseconds(0.2), nanoseconds(0.5))
    assert spans[1].attributes["refund_agent.step.attempts"] == 0


def test_a_call_without_its_step_belongs_to_the_task_and_so_does_its_cost() -> None:
    record = task_record()
    spans = plan(replace(record, steps=record.steps[1:]))
    assert spans[7].parent_id == spans[0].span_id
    amounts = [Decimal(str(span.attributes.get("refund_agent.cost.amount", "0"))) for span in spans]
    assert sum(amounts) == Decimal(str(spans[0].attributes["refund_agent.task.cost.amount"]))


def test_an_answer_of_the_journal_is_seen_at_its_step() -> None:
    step = step_record(answered_by=AnsweredBy.JOURNAL)
    span = plan(task_record(steps=(step,)))[1]
    assert span.attributes["refund_agent.answered_by"] == "journal"


def test_unended_work_ends_with_the_record() -> None:
    step = step_record(attempts=(attempt_record(0.1, ended_at=None, outcome=AttemptOutcome.OPEN),))
    call = call_record(state=CallState.STARTED, ended_at=None, finish_reason="")
    record = task_record(
        ended_at=None, status=TaskStatus.RUNNING, outcome=None, steps=(step,), calls=(call,), pauses=()
    )
    assert [span.end for span in plan(record)] == [nanoseconds(70.5)] * 3


def test_clocks_that_disagree_make_no_negative_span() -> None:
    call = call_record(start=5, ended_at=at(4))
    spans = plan(task_record(calls=(call,)))
    assert all(span.end >= span.start for span in spans)


def test_planning_twice_gives_the_same_spans() -> None:
    assert plan(task_record()) == plan(task_record())


def test_two_pauses_of_one_kind_are_two_spans() -> None:
    pauses = (Span(TimePart.BACK_OFF, at(1), at(2)), Span(TimePart.BACK_OFF, at(3), at(4)))
    spans = spans_named(plan(task_record(pauses=pauses)), "back_off")
    assert len({span.span_id for span in spans}) == 2


def test_other_tasks_and_other_runs_have_other_spans() -> None:
    tasks = [task_record(), task_record(task_id="acme:T-2"), task_record(execution_id="run-2")]
    spans = [span for record in tasks for span in plan(replace(record, calls=()))]
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    assert len({span.trace_id for span in spans}) == 2


def test_a_task_continues_the_sidecars_trace() -> None:
    task, *others = plan(task_record(trace_parent=SAMPLED))
    assert task.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert task.parent_id == 0xB7AD6B7169203331
    assert task.remote_parent
    assert {span.trace_id for span in others} == {task.trace_id}
    assert not any(span.remote_parent for span in others)


def test_no_text_is_in_any_span() -> None:
    failed = attempt_record(0.1, outcome=AttemptOutcome.FAILED, error=f"Refused: {TEXT}")
    calls = (interrupted_call(error=TEXT), call_record(state=CallState.FAILED, error=TEXT))
    steps = (step_record(attempts=(failed,)), step_record("draft_refund", 3))
    record: TaskRecord = task_record(steps=steps, calls=calls, status=TaskStatus.FAILED, outcome=None)
    assert TEXT not in repr(plan(record))
    assert "AC-10442" not in repr(plan(task_record()))  # nor the order, nor what was paid back
    assert "49.90" not in repr(plan(task_record()))


def test_texts_are_there_only_when_switched_on() -> None:
    record = task_record(outcome=Outcome.ANSWERED)
    assert not any("gen_ai.output.messages" in span.attributes for span in plan(record))
    spans = plan(record, lambda call: f"[{call.number}]" if call.state is CallState.SETTLED else None)
    assert [span.attributes.get("gen_ai.output.messages") for span in spans[8:12]] == ["[1]", None, "[2]", "[1]"]
