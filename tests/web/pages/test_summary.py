"""The summary of a task's page, and the texts and marks of figures."""

from __future__ import annotations

import pytest

from app.dapr.history.times import Span, TimePart
from app.domain import formatting
from app.domain.formatting import Digits
from app.domain.models import TaskStatus, UsageBasis
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED
from app.pricing.formula import NOTHING
from app.web.pages import page_texts
from app.web.pages.page_texts import record_digits
from app.web.pages.summary import Summary, make_summary, state_facts
from tests.records import at, call_record, calls, task_record


def summary_of(record: TaskRecord) -> Summary:
    return make_summary(record, record_digits(record))


def test_costs_are_split_by_kind_and_estimated_part() -> None:
    summary = summary_of(task_record(calls=tuple(call for call in calls() if call.number == 1)))
    (total,) = summary.totals
    assert total.text == "~0.003243 USD"
    assert {fact.name: fact.text for fact in total.parts} == {
        "model calls": "0.000916 USD",
        "compute": "0.000110 USD",
        "orchestration": "0.000017 USD",
        "wasted: work without a result": "0.002200 USD",
        "estimated part of all this": "0.002200 USD",
    }
    assert not summary.gaps


def test_a_task_without_wasted_work_says_so() -> None:
    (total,) = summary_of(task_record(calls=(call_record(),))).totals
    texts = {fact.name: fact.text for fact in total.parts}
    assert (texts["wasted: work without a result"], texts["estimated part of all this"]) == ("none", "none")
    assert not total.text.startswith("~")


def test_an_unpriced_charge_is_not_zero() -> None:
    summary = summary_of(task_record(calls=(call_record(model="nobody-knows-it"),)))
    assert summary.totals[0].text.endswith("USD + ?")
    assert summary.gaps == ("3 lines are unpriced: the price book has no price for nobody-knows-it.",)


def test_an_unnamed_model_is_described_by_its_component() -> None:
    summary = summary_of(task_record(calls=(call_record(model=""),)))
    assert "no price for the unnamed model of component llm." in summary.gaps[0]


def test_unreported_usage_is_not_zero() -> None:
    call = call_record(usage=NOT_REPORTED)
    summary = summary_of(task_record(calls=(call,)))
    assert summary.totals[0].text.endswith("USD + ?")
    assert summary.gaps == ("2 lines are unreported: the quantity was not counted.",)
    assert {fact.name: fact.text for fact in summary.tokens}["input"] == "?"


def test_tokens_of_all_and_of_wasted_calls() -> None:
    texts = {fact.name: fact.text for fact in summary_of(task_record()).tokens}
    assert texts == {
        "model calls": "4",
        "input": "~4,200",
        "of which cached": "300 + ?",
        "output": "~1,240",
        "wasted input": "~1,500",
        "wasted output": "~1,000",
    }


def test_no_part_of_zero_input_is_unknown() -> None:
    free = call_record(usage=NOTHING)
    texts = {fact.name: fact.text for fact in summary_of(task_record(calls=(call_record(), free))).tokens}
    assert texts["of which cached"] == "100"


def test_time_is_split_into_its_parts() -> None:
    shares = summary_of(task_record()).time
    assert [(share.name, share.text, share.percent) for share in shares] == [
        ("working", "10.0 s", 14.3),
        ("waiting for a person", "1 min 0 s", 85.7),
    ]


def test_the_state_comes_from_the_record_without_a_view() -> None:
    texts = {fact.name: fact.text for fact in state_facts(None, task_record())}
    assert texts == {
        "Status": "completed",
        "Outcome": "refunded",
        "Refund": "49.90 EUR for order AC-10442, refund R-1",
    }
    assert state_facts(None, None)[0].text == formatting.NOTHING
    assert state_facts(None, task_record(status=TaskStatus.FAILED, outcome=None, refund=None))[0].text == "failed"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], "0"),
        ([(10, UsageBasis.REPORTED), (5, UsageBasis.REPORTED)], "15"),
        ([(10, UsageBasis.REPORTED), (5, UsageBasis.ESTIMATED)], "~15"),
        ([(10, UsageBasis.REPORTED), (None, UsageBasis.REPORTED)], "10 + ?"),
        ([(0, UsageBasis.UNREPORTED)], "?"),
    ],
)
def test_sums_of_tokens_carry_the_marks_of_their_parts(parts: list[tuple[int | None, UsageBasis]], text: str) -> None:
    assert formatting.tokens_sum(parts) == text


def test_no_charge_is_an_empty_cell_and_not_zero() -> None:
    assert page_texts.money_cell((), Digits({}, rounded=False)).lines == ()


def test_a_cells_hint_has_all_digits() -> None:
    assert page_texts.money_cell(task_record().charges, Digits({}, rounded=False)).exact.startswith("0.00370097500 USD")


def test_a_pauses_text_names_what_the_task_waited_for() -> None:
    spans = [Span(TimePart.WAITING, at(0), at(1), label) for label in ("decision", "resume", "parcel", "")]
    texts = [page_texts.pause_text(span) for span in (*spans, Span(TimePart.BACK_OFF, at(0), at(1)))]
    assert texts == [
        "waiting for a person's decision",
        "parked until resumed",
        "waiting for parcel",
        "waiting for a person",
        "back-off before a retry",
    ]
