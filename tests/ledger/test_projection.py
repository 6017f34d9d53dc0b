"""The projection of histories (hand-made and random) and journal rows to a task's record: what happened and what is
charged; nothing is charged twice or without a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dapr.history.model import AttemptOutcome
from app.dapr.history.parse import parse
from app.dapr.history.times import Span, TimePart
from app.domain.errors import FailureCause, with_code
from app.domain.models import AnsweredBy, CallState, Category, DecisionState, Outcome, TaskStatus, UsageBasis
from app.finance.rollup import rollup
from app.ledger.recording.projection import Written, project, with_usages
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED, CallRecord, Charge, CostKind, Meter, TokenUsage
from app.pricing.formula import NOTHING
from tests.dapr.history.told import Told, at
from tests.ledger.kit import NAMING, is_over, projected
from tests.ledger.stories import Snapshot, story
from tests.records import MODEL, PROVIDER, call_record, price_book

ZERO = timedelta(0)
ASKED = '{"use": {"answered_by": "provider"}}'
REFUNDED = (
    '{"outcome": "refunded", "category": "damaged", "refund_id": "R-1", "decided_by": null,'
    ' "refund": {"order_id": "AC-1", "amount": "49.90", "currency": "EUR"}}'
)
seeds = st.integers(0, 10**6)


def record_of(told: Told, *calls: CallRecord, later: float = 1000) -> TaskRecord:
    """The record of a hand-made history."""
    return project(parse("acme:T-1", told.events), Written(calls), price_book(), NAMING, at(later))


def call(key: str = "k1", start: float = 1.2, **changes: Any) -> CallRecord:
    """A settled call of a step that took half a second."""
    return call_record(key, **{"started_at": at(start), "ended_at": at(start + 0.5)} | changes)


def lost_call(key: str = "k1", start: float = 1.2, **changes: Any) -> CallRecord:
    """A call without an answer and without a known cause: a model may have worked on it."""
    values = {"state": CallState.FAILED, "usage": NOT_REPORTED, "model": "", "error": "", "finish_reason": ""}
    return call(key, start, **values | changes)


def one_step(name: str = "classify", text: str | None = ASKED) -> Told:
    """A run of two turns with one step from 1 to 3."""
    return Told().turn(1).started(0, name="refund_ticket").scheduled(1, 1, name, "k1").turn(3).completed(3, 1, text)


def lines(charges: Sequence[Charge], kind: CostKind = CostKind.MODEL) -> list[tuple[str, int, bool, int | None, str]]:
    """The charges: meter, call number, wasted, whole quantity, usage basis."""
    return [
        (*(charge.meter.value, charge.number, charge.wasted), _whole(charge), charge.usage_basis.value)
        for charge in charges
        if charge.kind is kind
    ]


def _whole(charge: Charge) -> int | None:
    return None if charge.consumed_quantity is None else int(charge.consumed_quantity)


def quantity(charges: Sequence[Charge], line: Meter) -> Decimal:
    """The sum of a meter."""
    return sum((charge.consumed_quantity or Decimal(0) for charge in charges if charge.meter is line), Decimal(0))


# What happened


def test_steps_are_numbered_named_and_put_into_their_stages() -> None:
    told = one_step().scheduled(3, 2, "lookup_order", "k2").turn(5).completed(5, 2, "{}").scheduled(5, 3, "else", "k3")
    steps = record_of(told).steps
    assert [(step.step, step.execution_id, step.name, step.stage, step.tool) for step in steps] == [
        (1, "k1", "classify", "classify", ""),
        (2, "k2", "lookup_order", "draft_refund", "lookup_order"),
        (3, "k3", "else", "else", "else"),
    ]
    assert [step.answered_by for step in steps] == [AnsweredBy.PROVIDER, None, None]


@pytest.mark.parametrize("text", [None, "{}", "no JSON: answered_by", '{"use": {"answered_by": "a wizard"}}', "[]"])
def test_a_step_without_a_model_in_its_result_is_a_tool_unless_the_journal_knows_a_call(text: str | None) -> None:
    assert record_of(one_step("classify", text)).steps[0].tool == "classify"
    step = record_of(one_step("classify", text), call()).steps[0]
    assert (step.tool, step.answered_by) == ("", None)


def test_each_attempt_is_there_with_the_innermost_reason_of_its_failure() -> None:
    told = Told().turn(1).started(0).scheduled(1, 1, key="k1").turn(3).failed(2, 1, "TaskFailed", "outer")
    inner = told.events[-1].taskFailed.failureDetails.innerFailure
    inner.errorType, inner.errorMessage = "SystemUnavailable", "orders\0 does not answer"
    told.pauses(3, 2, due=9, key="k1").turn(9).fired(9, 2).scheduled(9, 3, key="k1")
    (step,) = record_of(told).steps
    assert [(each.number, each.outcome, each.error) for each in step.attempts] == [
        (1, AttemptOutcome.FAILED, "SystemUnavailable: orders\N{REPLACEMENT CHARACTER} does not answer"),
        (2, AttemptOutcome.OPEN, ""),
    ]
    assert [(each.scheduled_at, each.ended_at) for each in step.attempts] == [(at(1), at(2)), (at(9), None)]


def test_the_time_is_split_and_the_pauses_are_listed() -> None:
    told = one_step().waits(3, 2, "Decision").turn(103).raised(103, "decision").ended(104, text=REFUNDED)
    record = record_of(told)
    assert record.pauses == (Span(TimePart.WAITING, at(3), at(103), "decision"),)
    assert record.parts == {
        TimePart.IDLE: timedelta(seconds=1),
        TimePart.ACTIVE: timedelta(seconds=3),
        TimePart.WAITING: timedelta(seconds=100),
    }


@given(seeds)
@settings(max_examples=60)
def test_parts_sum_to_the_wall_time_and_shares_to_the_active_time(seed: int) -> None:
    """Whether steps overlap or not, at each moment of a task."""
    told = story(seed)
    for turn in range(len(told.turns)):
        known = told.at(turn, timedelta(seconds=seed % 3))
        record = projected(known)
        end = record.ended_at or known.moment
        assert sum(record.parts.values(), ZERO) == end - record.started_at
        if record.ended_at:
            own = [charge for charge in record.charges_of(None) if charge.meter is Meter.COMPUTE]
            steps = sum((step.active for step in record.steps), ZERO)
            assert (
                steps + timedelta(microseconds=int(quantity(own, Meter.COMPUTE).scaleb(6)))
                == record.parts[TimePart.ACTIVE]
            )
            assert (
                quantity(record.charges, Meter.COMPUTE).scaleb(6)
                == record.parts[TimePart.ACTIVE] // timedelta.resolution
            )


def test_steps_side_by_side_share_the_time() -> None:
    told = Told().turn(1).started(0).scheduled(1, 1, key="k1").scheduled(1, 2, key="k2").turn(5).completed(5, 2)
    told.turn(6).completed(6, 1).ended(7)
    record = record_of(told)
    assert [step.active.total_seconds() for step in record.steps] == [3, 2]
    assert [charge.consumed_quantity for charge in record.charges if charge.meter is Meter.COMPUTE] == [3, 2, 1]


# The status of the task


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (one_step(), TaskStatus.RUNNING),
        (one_step().waits(3, 2, "Decision"), TaskStatus.WAITING),
        (one_step().waits(3, 2, "Resume"), TaskStatus.PARKED),
        (one_step().waits(3, 2, "decision").turn(5).raised(5, "decision"), TaskStatus.RUNNING),
        (one_step().waits(3, 2, "decision").turn(5).suspended(5), TaskStatus.PAUSED),
        (one_step().waits(3, 2, "decision").turn(5).suspended(5).turn(6).resumed(6), TaskStatus.WAITING),
        (one_step().stalled(5), TaskStatus.PARKED),
        (one_step().ended(5, status=1), TaskStatus.COMPLETED),
        (one_step().ended(5, status=3), TaskStatus.FAILED),
        (one_step().ended(5, status=4), TaskStatus.TERMINATED),
        (one_step().ended(5, status=5), TaskStatus.TERMINATED),
    ],
)
def test_the_status_is_what_a_person_calls_it(told: Told, status: TaskStatus) -> None:
    record = record_of(told)
    assert record.status is status
    assert (record.ended_at is not None) is status.ended is record.final


def test_the_result_says_how_it_ended() -> None:
    record = record_of(one_step().ended(5, text=REFUNDED))
    assert (record.outcome, record.category, record.refund_id) == (Outcome.REFUNDED, Category.DAMAGED.value, "R-1")
    assert record.refund is not None
    assert (str(record.refund.amount), record.refund.currency) == ("49.90", "EUR")
    assert {charge.outcome for charge in record.charges} == {"refunded"}


@pytest.mark.parametrize(("status", "text"), [(3, REFUNDED), (1, '{"total": 3}'), (1, "no JSON"), (1, None)])
def test_what_is_no_result_of_ours_says_nothing(status: int, text: str | None) -> None:
    record = record_of(one_step().ended(5, status=status, text=text))
    assert (record.outcome, record.category, record.refund, record.refund_id) == (None, "", None, None)
    assert {charge.outcome for charge in record.charges} == {""}


def test_a_run_that_has_not_begun_has_no_record() -> None:
    with pytest.raises(ValueError, match="acme:T-1 is pending"):
        record_of(Told())


def test_the_tenant_is_the_journal_s_else_the_one_in_the_task_s_id() -> None:
    assert record_of(one_step()).tenant == "acme"
    assert record_of(one_step(), call(tenant="lumen")).tenant == "lumen"


def test_a_task_is_final_when_none_of_its_calls_is_under_way() -> None:
    over = one_step().ended(5)
    assert record_of(over, call(), lost_call(number=2)).final
    assert not record_of(over, call(), call(number=2, state=CallState.STARTED, ended_at=None)).final


# What is charged for the work


def test_writes_are_the_events_that_a_step_left_and_the_rest_is_the_workflow_s() -> None:
    told = Told().turn(1).started(0).scheduled(1, 1, key="k1").turn(3).failed(2, 1)
    told.pauses(3, 2, due=9, key="k1").turn(9).fired(9, 2).scheduled(9, 3, key="k1").turn(11).completed(10, 3).ended(12)
    record = record_of(told)
    assert record.events == len(told.events) == 12
    assert [step.writes for step in record.steps] == [4]
    assert [charge.consumed_quantity for charge in record.charges if charge.meter is Meter.STEP_WRITES] == [2, 2, 8]
    assert [charge.wasted for charge in record.charges if charge.meter is Meter.STEP_WRITES] == [False, True, False]
    assert record.turns == 4


@given(seeds)
@settings(max_examples=60)
def test_every_event_is_written_once_and_every_byte_kept_once(seed: int) -> None:
    known = story(seed).end
    record = projected(known)
    assert quantity(record.charges, Meter.STEP_WRITES) == known.run.events
    assert quantity(record.charges, Meter.RETAINED_BYTES).scaleb(9) == known.run.size
    assert len([charge for charge in record.charges if charge.meter is Meter.RETAINED_BYTES]) == 1


def test_a_step_is_charged_once_it_is_completed_and_the_workflow_s_own_at_the_end() -> None:
    told = one_step().scheduled(3, 2, key="k2").turn(5).failed(5, 2).waits(5, 3, "decision")
    charged = {charge.execution_id for charge in record_of(told).charges}
    assert charged == {"k1"}
    ended = record_of(told.turn(9).raised(9, "decision").ended(9))
    assert {charge.execution_id for charge in ended.charges} == {"k1", "k2", ""}
    (own,) = {charge.at for charge in ended.charges_of(None)}
    assert own == at(9)


def test_a_step_that_the_end_overtook_is_charged_for_the_one_event_that_it_left() -> None:
    told = one_step().scheduled(3, 2, key="k2").ended(8, status=5)
    record = record_of(told)
    assert record.steps[1].attempts[0].outcome is AttemptOutcome.LOST
    assert record.steps[1].writes == 1
    second = [(charge.meter, charge.consumed_quantity) for charge in record.charges_of(record.steps[1])]
    assert second == [(Meter.COMPUTE, Decimal(5)), (Meter.STEP_WRITES, Decimal(1))]


def rerun_of_first(told: Told) -> Told:
    """Marks the last schedule as executed again."""
    told.events[-1].taskScheduled.rerunParentInstanceInfo.instanceID = "first"
    return told


def test_what_a_rerun_inherits_was_charged_where_it_was_done() -> None:
    told = one_step().turn(9)
    record = record_of(rerun_of_first(told.scheduled(50, 2, key="k2")).turn(60).completed(60, 2).ended(61))
    assert record.rerun_of == "first"
    assert [step.writes for step in record.steps] == [0, 2]
    assert record.charges_of(record.steps[0]) == ()
    assert record.steps[0].active == ZERO
    assert quantity(record.charges, Meter.STEP_WRITES) == record.events, "copying them was a write"


def test_a_step_that_a_rerun_goes_on_with_is_charged_at_the_rerun_s_time() -> None:
    told = Told().turn(1).started(0).scheduled(1, 1, key="k1").turn(3).failed(2, 1)
    record = record_of(
        rerun_of_first(told.scheduled(90_000, 2, key="k1")).turn(90_010).completed(90_009, 2).ended(90_011)
    )
    (step,) = record.steps
    assert [attempt.scheduled_at for attempt in step.attempts] == [at(1), at(90_000)]
    assert step.writes == 2
    assert {charge.at for charge in record.charges_of(step)} == {at(90_000)}


# What is charged for model calls


def test_a_settled_call_is_charged_once_as_it_was_reported() -> None:
    (charged, *_) = record_of(one_step(), call()).charges
    assert lines(record_of(one_step(), call()).charges) == [
        ("input", 1, False, 800, "reported"),
        ("cached_input", 1, False, 100, "reported"),
        ("output", 1, False, 80, "reported"),
    ]
    assert (charged.task_id, charged.tenant, charged.stage, charged.step, charged.tool) == (
        *("acme:T-1", "acme", "classify", "classify", ""),
    )
    assert (charged.turn, charged.model, charged.provider, charged.component) == (1, MODEL, PROVIDER, "llm")
    assert charged.at == at(1.2)
    assert charged.contracted_cost == Decimal("0.00032")


def test_a_call_under_way_is_not_charged_yet() -> None:
    started = call(state=CallState.STARTED, ended_at=None, usage=NOT_REPORTED, model="")
    assert lines(record_of(one_step(), started).charges) == []


def test_a_call_that_was_lost_is_a_rerun_with_the_settled_call_s_usage() -> None:
    calls = lost_call(), call(number=2, usage=TokenUsage(input_tokens=700, output_tokens=70))
    assert lines(record_of(one_step(), *calls).charges) == [
        ("input", 1, True, 700, "estimated"),
        ("output", 1, True, 70, "estimated"),
        (
            "input",
            2,
            False,
            700,
            "estimated",
        ),  # cached input has another price, and the number of cached tokens is not known
        ("output", 2, False, 70, "reported"),
    ]


def test_without_a_settled_call_it_is_the_reserve() -> None:
    interrupted = lost_call(state=CallState.INTERRUPTED, ended_at=None)
    assert lines(record_of(one_step(), interrupted).charges) == [
        ("input", 1, True, 950, "estimated"),
        ("output", 1, True, 1000, "estimated"),
    ]


def test_where_no_model_worked_it_is_nothing() -> None:
    refused = lost_call(error=with_code(FailureCause.BREAKER_OPEN, "no"))
    record = record_of(one_step(), refused, call(number=2))
    assert lines(record.charges)[:2] == [
        ("input", 1, True, 0, "estimated"),
        ("output", 1, True, 0, "estimated"),
    ]
    group = rollup(record.charges).total
    assert (group.unpriced, group.unreported) == (0, 0)


def test_where_no_model_worked_and_nobody_says_which_nothing_lacks_a_price() -> None:
    refused = lost_call(error=with_code(FailureCause.BREAKER_OPEN, "no"))
    assert lines(record_of(one_step(), refused).charges) == []


def test_a_call_that_found_no_sidecar_was_put_to_nobody_and_is_no_charge() -> None:
    nobody = lost_call(error=with_code(FailureCause.SIDECAR_GONE, "no"), provider="")
    assert lines(record_of(one_step(), nobody).charges) == []


def test_a_lost_call_is_not_taken_for_one_of_another_providers_model() -> None:
    lost, settled = lost_call(provider="conversation.openai"), call(number=2, provider="conversation.anthropic")
    first, second = record_of(one_step(), lost, settled).calls
    assert (first.model, second.model) == ("", settled.model)
    lost = lost_call(provider="conversation.anthropic")
    first, _ = record_of(one_step(), lost, settled).calls
    assert first.model == settled.model


def test_an_answer_that_came_too_late_is_charged_as_it_was_reported() -> None:
    late = call(state=CallState.INTERRUPTED, number=2)
    charged = lines(record_of(one_step(), call(), late).charges)
    assert charged[3:] == [
        ("input", 2, True, 800, "reported"),
        ("cached_input", 2, True, 100, "reported"),
        ("output", 2, True, 80, "reported"),
    ]


def test_another_turn_s_answer_says_nothing_of_a_lost_call() -> None:
    calls = lost_call(turn=2), call(usage=TokenUsage(input_tokens=700, output_tokens=70))
    assert ("input", 1, True, 950, "estimated") in lines(record_of(one_step(), *calls).charges)


def test_the_model_of_a_lost_call_is_the_one_that_answered_the_step_or_else_the_component() -> None:
    calls = with_usages(
        (
            lost_call("k1"),
            call("k1", number=2, component="spare", model="answered-the-step"),
            lost_call("k2"),
            call("k3", model="answered-elsewhere"),
            lost_call("k4", component="silent"),
        )
    )
    assert [each.model for each in calls] == [
        "answered-the-step",
        "answered-the-step",
        "answered-elsewhere",
        "answered-elsewhere",
        "",
    ]


def test_a_call_to_an_unknown_model_is_charged_unpriced() -> None:
    charged = record_of(one_step(), lost_call()).charges
    assert [
        (charge.model, charge.price_id, charge.contracted_cost) for charge in charged if charge.kind is CostKind.MODEL
    ] == [
        ("", None, None),
        ("", None, None),
    ]


def test_two_workers_that_took_the_same_number_are_both_charged() -> None:
    """Two workers each counted the step's calls before the other had written its own."""
    calls = lost_call(call_id="a"), lost_call(call_id="b"), call(call_id="c", number=3)
    record = record_of(one_step(), *calls)
    assert [each.number for each in record.calls] == [1, 2, 3]
    assert len({charge.id for charge in record.charges}) == len(record.charges)


def test_a_call_whose_step_the_history_does_not_hold_is_charged_all_the_same() -> None:
    unseen = call("gone", stage="draft_refund", turn=2)
    record = record_of(one_step().ended(5), call(), unseen)
    assert [(step.step, step.execution_id, step.name, step.stage, step.tool, step.writes) for step in record.steps] == [
        (1, "k1", "classify", "classify", "", 2),
        (2, "gone", "draft_refund", "draft_refund", "", 0),
    ]
    assert len(lines(record.charges_of(record.steps[1]))) == 3
    assert lines(record.charges_of(record.steps[1]), CostKind.COMPUTE) == []
    assert quantity(record.charges, Meter.STEP_WRITES) == record.events


@given(seeds)
@settings(max_examples=80)
def test_every_call_that_is_over_is_charged_and_no_line_twice(seed: int) -> None:
    told = story(seed)
    for turn in range(len(told.turns)):
        known = told.at(turn, timedelta(seconds=seed % 5))
        record = projected(known)
        assert len({charge.id for charge in record.charges}) == len(record.charges)
        charged = {(charge.execution_id, charge.number) for charge in record.charges if charge.number}
        free = {(each.execution_id, each.number) for each in record.calls if each.usage == NOTHING and not each.model}
        assert charged == {(each.execution_id, each.number) for each in known.calls if is_over(each)} - free
        lost = {(charge.execution_id, charge.number) for charge in record.charges if charge.number and charge.wasted}
        assert lost == {(each.execution_id, each.number) for each in known.calls if each.wasted} - free
        assert all(each.usage.basis is not UsageBasis.UNREPORTED for each in record.calls if each.wasted)


@given(seeds)
@settings(max_examples=20)
def test_the_same_sources_give_the_same_record(seed: int) -> None:
    known = story(seed).end
    again = Snapshot(parse(known.run.instance_id, story(seed).events), known.calls, known.moment)
    assert projected(known) == projected(again)


# What people decided


def decision(decision_id: str, **more: Any) -> str:
    """An event as the task service raises it."""
    body = {"verdict": "approve", "by": "kim", "question": 1, "decision_id": decision_id, "refund": None}
    return json.dumps(body | more)


def test_a_history_tells_who_decided_and_what_became_of_it() -> None:
    settled = {"decision_id": "d-1", "question": 1, "verdict": "approve", "by": "kim", "at": at(9).isoformat()}
    output = json.loads(REFUNDED) | {"decisions": [settled | {"state": "accepted"}]}
    told = one_step().waits(3, 2, "decision").turn(9).raised(8, "decision", decision("d-1"))
    told.raised(8.5, "decision", decision("d-2", by="ann")).ended(10, text=json.dumps(output))
    first, second = record_of(told).decisions
    assert (first.decision_id, first.by, first.at) == ("d-1", "kim", at(8).isoformat(timespec="milliseconds"))
    assert (first.state, first.settled_at) == (DecisionState.ACCEPTED, at(9).isoformat())
    assert (second.by, second.state, second.code) == ("ann", DecisionState.TOO_LATE, "ended")


def test_what_a_run_has_not_said_yet_is_open() -> None:
    told = one_step().waits(3, 2, "decision").turn(9).raised(8, "decision", decision("d-1"))
    (made,) = record_of(told).decisions
    assert (made.state, made.settled_at) == (DecisionState.HANDED_OVER, None)


@pytest.mark.parametrize("text", [None, "{}", "no JSON", '{"verdict": "pay", "by": "kim"}', '["approve"]'])
def test_an_event_that_is_no_decision_is_none(text: str | None) -> None:
    told = one_step().waits(3, 2, "decision").turn(9).raised(8, "decision", text)
    assert record_of(told).decisions == ()


def test_a_decision_that_was_raised_by_hand_has_the_same_name_each_time() -> None:
    settled = {"decision_id": "", "question": None, "verdict": "reject", "by": "kim", "at": at(9).isoformat()}
    output = json.loads(REFUNDED) | {"decisions": [settled | {"state": "accepted"}]}
    by_hand = '{"verdict": "reject", "by": "kim"}'
    told = one_step().waits(3, 2, "decision").turn(9).raised(8, "decision", by_hand)
    before = record_of(told).decisions[0]
    after = record_of(told.ended(10, text=json.dumps(output))).decisions[0]
    assert before.decision_id == after.decision_id
    assert after.state is DecisionState.ACCEPTED
