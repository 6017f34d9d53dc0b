"""The decision log: a decision stays as first saved, its result is saved once, and a rebuild loses no note."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.domain.models import Decision, DecisionState, Refund, SettledDecision
from app.ledger.store.decision_log import Decisions, view_of
from app.ledger.store.writer import Writer
from tests.ledger.kit import Ledger
from tests.records import task_record

TASK = "acme:T-1"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = "2026-11-22T12:00:05.000+00:00"
OTHER = Refund.model_validate({"order_id": "O-1", "amount": "9999.00", "currency": "CHF"})


@pytest.fixture
def trail(ledger: Ledger) -> Iterator[Decisions]:
    writer = Writer(ledger.engine)
    yield Decisions(ledger.engine, writer, lambda: NOW)
    writer.close()


def decision(decision_id: str = "d-1", **more: object) -> Decision:
    values = {"verdict": "approve", "by": "kim", "question": 1, "decision_id": decision_id, "refund": OTHER}
    return Decision.model_validate(values | more)


def settled(state: DecisionState, code: str = "", decision_id: str = "d-1") -> SettledDecision:
    values = decision(decision_id).model_dump() | {"at": LATER, "state": state, "code": code}
    return SettledDecision.model_validate(values | {"most": "59.90", "currency": "EUR"})


def test_what_is_written_down_comes_back(trail: Decisions) -> None:
    trail.record(TASK, decision(), "  asked kim@example.org\x00\x1b[31m twice ")
    (made,) = trail.of(TASK)
    assert (made.by, made.verdict, made.refund, made.question) == ("kim", "approve", OTHER, 1)
    assert (made.at, made.state) == ("2026-11-22T12:00:00.000+00:00", DecisionState.HANDED_OVER)
    assert made.note == "asked [e-mail]  [31m twice"
    assert trail.of("acme:T-2") == ()


def test_what_became_of_it_is_noted_and_the_rest_stays(trail: Decisions) -> None:
    trail.record(TASK, decision(), "why not")
    trail.settle(TASK, [settled(DecisionState.REFUSED, "currency_differs")])
    (made,) = trail.of(TASK)
    assert (made.state, made.code, made.note, made.settled_at) == (
        DecisionState.REFUSED,
        "currency_differs",
        "why not",
        LATER,
    )
    assert made.words == "order O-1 was paid in EUR, not in CHF: 59.90 EUR at most"
    assert made.at == "2026-11-22T12:00:00.000+00:00"


@pytest.mark.parametrize(
    ("before", "after", "stays"),
    [
        (DecisionState.ACCEPTED, DecisionState.REFUSED, False),  # refused by the books when the refund was to be posted
        (DecisionState.ACCEPTED, DecisionState.TOO_LATE, True),
        (DecisionState.ACCEPTED, DecisionState.HANDED_OVER, True),
        (DecisionState.REFUSED, DecisionState.ACCEPTED, True),
        (DecisionState.TOO_LATE, DecisionState.REFUSED, True),
    ],
)
def test_what_is_known_is_not_overwritten_by_what_is_known_less_well(
    trail: Decisions, before: DecisionState, after: DecisionState, stays: bool
) -> None:
    trail.record(TASK, decision(), "")
    trail.settle(TASK, [settled(before)])
    trail.settle(TASK, [settled(after, "books_refuse_exceeds_refundable")])
    assert trail.of(TASK)[0].state is (before if stays else after)


def test_a_record_that_is_made_again_keeps_the_notes(trail: Decisions, ledger: Ledger) -> None:
    trail.record(TASK, decision(), "why not")
    trail.record_refusal(TASK, decision("d-0", question=None), "", "no_role")
    told = (view_of(TASK, settled(DecisionState.ACCEPTED)), view_of(TASK, settled(DecisionState.ACCEPTED, "", "d-2")))
    record = replace(task_record(), decisions=told)
    for _ in range(2):
        ledger.save(record)
    found = ledger.records.record(TASK).decisions
    assert [(each.decision_id, each.state, each.note) for each in found] == [
        ("d-1", DecisionState.ACCEPTED, "why not"),
        ("d-0", DecisionState.REFUSED, ""),
        ("d-2", DecisionState.ACCEPTED, ""),
    ]
