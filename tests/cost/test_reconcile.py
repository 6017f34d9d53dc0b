"""Our record against bills that name each request: zero when they agree, named when it can be, counted when not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cost.bill import Bill, BillRow
from app.cost.calls import CallRecord
from app.cost.claims import EXECUTED_AGAIN, SHORTEST_PAUSE
from app.cost.counts import NONE, Count, total
from app.cost.reconcile import reconcile
from app.cost.reconcile_views import as_json, verdict
from app.cost.reconciliation import Cause, Certainty, Finding, Reconciliation
from app.cost.repeats import Unallocated
from app.cost.values import Usage
from app.gateway.journal import _CLOSE_LEFT
from app.models import CallState, Known
from tests.cost.billing import (
    MODEL,
    again,
    at,
    bill_of,
    billed,
    call,
    failed,
    interrupted,
    request,
)


def only(found: Reconciliation) -> Finding:
    (finding,) = found.findings
    return finding


def causes(found: Reconciliation) -> list[Cause]:
    return [finding.cause for finding in found.findings]


def test_what_is_on_both_sides_leaves_nothing() -> None:
    calls = [call(1), call(2, 0.5), call(3, 4000)]
    found = reconcile(calls, bill_of(*map(billed, calls)))
    assert (found.unexplained_tokens, found.findings, found.agreeing) == (0, (), 3)
    assert found.difference == NONE
    assert [(cell.since, cell.record) for cell in found.cells] == [
        (at(0), Count(2, 300, 80, 20)),
        (at(3600), Count(1, 300, 40, 10)),
    ]
    assert verdict(found).endswith("they agree to the token.")


def test_nothing_on_both_sides_is_nothing() -> None:
    assert reconcile([], bill_of()).unexplained_tokens == 0


def test_a_call_that_is_not_on_the_bill_is_named_and_counted() -> None:
    found = reconcile([call(1), call(2)], bill_of(billed(call(1))))
    assert only(found).cause is Cause.NOT_ON_BILL
    assert only(found).call == call(2)
    assert found.unexplained_tokens == 210
    assert found.difference.tokens == -210


def test_a_request_that_no_call_accounts_for_is_named_and_counted() -> None:
    found = reconcile([call(1)], bill_of(billed(call(1)), request("row 7", 0.5, 200)))
    assert (only(found).cause, only(found).place) == (Cause.UNKNOWN, "row 7")
    assert found.unexplained_tokens == 210


def test_a_plus_and_a_minus_never_cancel() -> None:
    found = reconcile([call(1), call(2, 100)], bill_of(billed(call(1)), request("row 7", 200, 200)))
    assert (found.difference.tokens, found.unexplained_tokens) == (0, 420)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (Usage(101, 10, cached_tokens=40), 1),
        (Usage(100, 11, cached_tokens=40), 1),
        (Usage(100, 10, cached_tokens=41), 2),  # one too few of one price, one too many of the other
    ],
)
def test_other_tokens_than_billed_are_named_to_the_token(usage: Usage, tokens: int) -> None:
    found = reconcile([call(1, usage=usage)], bill_of(billed(call(1))))
    assert only(found).cause is Cause.DIFFERS
    assert found.unexplained_tokens == tokens


def test_cached_tokens_that_one_side_does_not_know_cannot_differ() -> None:
    unknown = replace(billed(call(1)), count=Count(1, 100, None, 10))
    assert reconcile([call(1)], bill_of(unknown)).findings == ()
    silent = call(1, usage=Usage(100, 10, known=Known.REPORTED))
    assert reconcile([silent], bill_of(billed(call(1)))).findings == ()


def test_another_model_is_another_request() -> None:
    found = reconcile([call(1)], bill_of(replace(billed(call(1)), model="model-b")))
    assert sorted(causes(found)) == [Cause.NOT_ON_BILL, Cause.UNKNOWN]


def test_a_bill_may_name_the_dated_version_of_a_model() -> None:
    found = reconcile([call(1)], bill_of(replace(billed(call(1)), model=f"{MODEL}-2026-08-07")))
    assert found.findings == ()
    assert as_json(found)["same_model"] == {f"{MODEL}-2026-08-07": MODEL}


@pytest.mark.parametrize("away", [-2.0, 3.0])
def test_the_clocks_may_be_two_seconds_apart(away: float) -> None:
    early, late = at(away), at(away + (0.1 if away > 0 else -0.1))
    row = billed(call(1))
    assert reconcile([call(1)], bill_of(replace(row, since=early, until=early))).unexplained_tokens == 0
    assert reconcile([call(1)], bill_of(replace(row, since=late, until=late))).unexplained_tokens > 0


def test_a_bill_that_keeps_whole_seconds_is_read_so() -> None:
    """The request was made 2.9 s before its time ends; the bill's second began 2.9 s before the call."""
    first, second = call(1, 0.2), call(2, 3.9)
    rows = [request("row 1", 0, 100), request("row 2", 1, 200)]
    assert reconcile([first, second], bill_of(*rows)).unexplained_tokens == 0
    exact = [rows[0], replace(rows[1], since=at(1.000001), until=at(1.000001))]
    assert reconcile([first, second], bill_of(*exact)).unexplained_tokens > 0


def test_an_interrupted_call_that_was_billed_is_named() -> None:
    first = interrupted(1)
    second = again(first, 5)
    found = reconcile([first, second], bill_of(request("row 1", 0.3, 100, cached=0), billed(second)))
    assert (only(found).cause, only(found).place) == (Cause.INTERRUPTED_CALL, "row 1")
    assert found.unexplained_tokens == 0
    assert only(found).record == Count(1, 100, None, 10), "what the step's answer used, as the ledger charges it"
    row = as_json(found)["rows"][0]
    assert (row["task_id"], row["stage"], row["call_id"]) == ("acme:T-1", "classify", "f-1")


def test_a_failed_call_that_was_billed_is_named() -> None:
    first = failed(1)
    second = again(first, 5)
    found = reconcile([first, second], bill_of(request("row 1", 0.3, 100, output=70), billed(second)))
    assert only(found).cause is Cause.FAILED_CALL
    assert only(found).difference == Count(0, 0, None, 60)


def test_a_call_in_vain_that_was_not_billed_takes_its_estimate_back() -> None:
    first = failed(1)
    found = reconcile([first, again(first, 5)], bill_of(billed(again(first, 5))))
    assert only(found).cause is Cause.NEVER_BILLED
    assert (found.difference.tokens, found.unexplained_tokens) == (-110, 0)


def test_a_call_that_the_breaker_refused_accounts_for_nothing() -> None:
    refused = failed(1, seconds=0.01, error="breaker_open: model component llm: its circuit breaker is open")
    found = reconcile([refused, again(refused, 5)], bill_of(billed(again(refused, 5)), request("row 9", 0.0, 100)))
    assert causes(found) == [Cause.UNKNOWN]


@pytest.mark.parametrize(
    "error", ["breaker_open: its circuit breaker is open", "status: the provider answers with status 429"]
)
def test_a_call_that_was_turned_away_at_last_may_have_been_billed_at_first(error: str) -> None:
    """Its first request was cut, and billed; the sidecar paused, and was turned away the second time."""
    turned = failed(1, seconds=1.5, error=error)
    second = again(turned, 5)
    found = reconcile([turned, second], bill_of(request("row 1", 0.1, 100), billed(second)))
    assert (only(found).cause, only(found).record) == (Cause.FAILED_CALL, NONE)
    allocated = replace(turned, retries=1)
    rows = [request("row 1", 0.1, 100), request("row 2", 1.3, 100)]
    assert reconcile([allocated, second], bill_of(rows[0], billed(second))).unexplained_tokens == 0
    assert reconcile([allocated, second], bill_of(*rows, billed(second))).unexplained_tokens == 110


def test_a_call_in_vain_accounts_for_no_other_question() -> None:
    """Its step was answered later, so the size of its question is known to the token."""
    first = failed(1)
    second = again(first, 5)
    found = reconcile([first, second], bill_of(request("row 1", 0.3, 101), billed(second)))
    assert sorted(causes(found)) == [Cause.NEVER_BILLED, Cause.UNKNOWN]
    assert found.unexplained_tokens == 111


def test_a_call_in_vain_does_not_account_for_the_answer_that_came_after_it() -> None:
    """Without the journal's row of the second call, its request stays unexplained, although it is the same question
    and only half a second later."""
    first = failed(1, 0, 1)
    found = reconcile([first, replace(again(first, 1.5), request_digest="other")], bill_of(billed(again(first, 1.5))))
    assert found.unexplained_tokens == 0
    lost = reconcile([first, again(first, 1.2, state=CallState.STARTED, usage=first.usage)], bill_of())
    assert causes(lost) == [Cause.NEVER_BILLED]


def test_an_interrupted_call_does_not_account_for_a_row_that_the_journal_lost() -> None:
    """It says that its step was executed again, and the call that did so is missing."""
    first = interrupted(1)
    found = reconcile([first], bill_of(billed(again(first, 5))))
    assert sorted(causes(found)) == [Cause.NEVER_BILLED, Cause.UNKNOWN]
    assert EXECUTED_AGAIN in _CLOSE_LEFT.compile().params.values()
    gone = replace(first, error="the worker is gone")
    assert reconcile([gone], bill_of(request("row 1", 5, 100))).unexplained_tokens == 0
    assert reconcile([gone], bill_of(request("row 1", 700, 100))).unexplained_tokens > 0


def test_a_call_still_under_way_may_be_billed() -> None:
    running = call(1, seconds=None, state=CallState.STARTED, usage=Usage(None, None, known=Known.UNREPORTED))
    assert reconcile([running], bill_of()).findings == ()
    found = reconcile([running], bill_of(billed(call(1))))
    assert (only(found).cause, found.unexplained_tokens) == (Cause.RUNNING_CALL, 0)


def test_sidecar_retries_are_named_up_to_their_number() -> None:
    asked = call(1, 0, 10, retries=1)
    first, second, third = request("row 1", 1, 100, cached=0), request("row 2", 4, 100), request("row 3", 7, 100)
    found = reconcile([asked], bill_of(first, second))
    assert (only(found).cause, only(found).place) == (Cause.SIDECAR_RETRY, "row 1")
    assert reconcile([asked], bill_of(first, second, third)).unexplained_tokens == 110
    assert reconcile([replace(asked, retries=2)], bill_of(first, second, third)).unexplained_tokens == 0
    assert reconcile([asked], bill_of(second, request("row 9", 1, 101))).unexplained_tokens == 111


def test_a_retry_that_was_put_down_to_another_call_of_that_time_is_found() -> None:
    """The sidecar says how many calls it asked again, and not which."""
    asked, other = call(1, 0, 10), call(2, 3, 10, retries=1)
    rows = [request("row 1", 1, 100), billed(asked), billed(other)]
    found = reconcile([asked, other], bill_of(*rows))
    assert (only(found).cause, only(found).certainty) == (Cause.SIDECAR_RETRY, Certainty.BOUNDED)
    assert only(found).call == asked
    more = reconcile([asked, other], bill_of(*rows, request("row 2", 2, 100)))
    assert more.unexplained_tokens == 110, "there are no more of them than were counted"
    later = reconcile([asked, replace(other, started_at=at(60), ended_at=at(70))], bill_of(*rows))
    assert later.unexplained_tokens > 0, "of another time"


def test_while_the_sidecars_count_was_lost_a_call_may_have_been_asked_again() -> None:
    asked = call(1, 0, 10)
    rows = [request("row 1", 1, 100), billed(asked)]
    assert reconcile([asked], bill_of(*rows)).unexplained_tokens == 110
    found = reconcile([asked], bill_of(*rows), unallocated=[Unallocated("llm", at(8), at(12))])
    assert (only(found).cause, only(found).certainty) == (Cause.SIDECAR_RETRY, Certainty.BOUNDED)
    elsewhere = [Unallocated("llm", at(11), at(12)), Unallocated("other", at(1), at(9))]
    assert reconcile([asked], bill_of(*rows), unallocated=elsewhere).unexplained_tokens == 110


def test_two_requests_of_one_call_are_a_pause_apart() -> None:
    """What comes sooner is no repetition by the sidecar, whatever was counted: somebody else asked."""
    asked = call(1, 0, 10)
    soon = bill_of(request("row 1", 4.5, 100), billed(asked))
    assert reconcile([asked], soon, unallocated=[Unallocated("llm", at(0), at(12))]).unexplained_tokens == 110
    policies = (Path(__file__).parents[2] / "resiliency" / "llm.yaml").read_text()
    (pause,) = re.findall(r"duration: (\d+)s", policies)
    assert timedelta(seconds=int(pause)) > SHORTEST_PAUSE


def test_counted_retries_that_found_no_call_account_for_as_many() -> None:
    calls = [call(1, 0, 10), call(2, 0, 10)]
    rows = [request("row 1", 1, 100), request("row 2", 1, 200), *map(billed, calls)]
    one, two = ([Unallocated("llm", at(0), at(2), count)] for count in (1, 2))
    assert reconcile(calls, bill_of(*rows), unallocated=one).unexplained_tokens == 210
    assert reconcile(calls, bill_of(*rows), unallocated=two).unexplained_tokens == 0


def test_the_right_one_of_two_like_calls_gets_the_retry() -> None:
    """By the earliest end alone, the second call would take the first one's request."""
    first, second = call(1, 0, 4, retries=1), call(2, 2, 4, entered=100)
    rows = [request(f"row {n}", when, 100) for n, when in enumerate((0.5, 3, 5))]
    assert reconcile([first, second], bill_of(*rows)).unexplained_tokens == 0


def test_an_estimate_is_held_against_the_nearest_request() -> None:
    usages = [Usage(100, 12, known=Known.ESTIMATED), Usage(100, 50, known=Known.ESTIMATED)]
    calls = [call(n, entered=100, usage=usage) for n, usage in enumerate(usages, start=1)]
    found = reconcile(calls, bill_of(request("row 1", 0.5, 130, output=48), request("row 2", 0.6, 131, output=10)))
    assert [(each.cause, each.call and each.call.call_id) for each in found.findings] == [
        (Cause.ESTIMATE, "c-2"),
        (Cause.ESTIMATE, "c-1"),
    ]
    assert (found.difference.tokens, found.unexplained_tokens) == (61 - 4, 0)
    (cell,) = found.cells
    assert (cell.reported.tokens, cell.estimated.tokens) == (0, 262)


def test_an_estimate_that_nothing_on_the_bill_comes_near_is_not_on_it() -> None:
    estimated = call(1, usage=Usage(100, 12, known=Known.ESTIMATED))
    found = reconcile([estimated], bill_of(request("row 1", 0.5, 5000)))
    assert sorted(causes(found)) == [Cause.NOT_ON_BILL, Cause.UNKNOWN]


def test_an_answer_that_came_too_late_to_settle_was_paid_all_the_same() -> None:
    late = interrupted(1, usage=Usage(100, 10, cached_tokens=40), model=MODEL, ended_at=at(1))
    assert reconcile([late], bill_of(billed(call(1)))).findings == ()
    assert causes(reconcile([late], bill_of())) == [Cause.NOT_ON_BILL]


def test_a_bill_of_part_of_the_time() -> None:
    calls = [call(1, -100), call(2, -0.5), call(3, 10), call(4, 59.5), call(5, 100)]
    whole = bill_of(*map(billed, calls))
    part = whole.within(at(5), at(59))
    found = reconcile(calls, part)
    assert (found.findings, found.compared, found.outside) == ((), 1, 4)
    crossing = reconcile(calls, whole.within(at(0.2), at(59.7)))
    assert [(each.cause, each.call and each.call.call_id) for each in crossing.findings] == [
        (Cause.PERIOD_EDGE, "c-2"),
        (Cause.PERIOD_EDGE, "c-4"),
    ]


def test_calls_of_another_provider_are_not_of_this_bill() -> None:
    other = call(2, provider="conversation.anthropic")
    found = reconcile([call(1), other], bill_of(replace(billed(call(1)), provider="openai")))
    assert (found.findings, found.compared, found.outside) == ((), 1, 1)


def test_models_without_a_price_are_named() -> None:
    found = reconcile([call(1)], bill_of(billed(call(1))), lambda provider, model, when: model != MODEL)
    assert dict(found.unpriced) == {("conversation.openai", MODEL): 110}
    assert found.cells[0].unpriced == 110
    assert reconcile([call(1)], bill_of(billed(call(1))), lambda *_: True).unpriced == {}


def test_the_keys_are_stable() -> None:
    found = as_json(reconcile([call(1)], bill_of(request("row 7", 0.5, 200))))
    assert list(found) == [
        *("verdict", "unexplained_tokens", "difference_tokens", "bill", "since", "until", "calls", "record", "billed"),
        *("difference", "causes", "cells", "rows", "unpriced", "same_model"),
    ]
    assert found["cells"][0]["causes"].keys() == {"not_on_bill", "unknown"}
    assert "320 tokens are unexplained" in found["verdict"]


calls_at = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 4000), st.sampled_from([0.2, 1.0, 30.0]), st.integers(0, 40)),
    min_size=1,
    max_size=25,
)


def _paid(drawn: Sequence[tuple[int, int, float, int]]) -> list[CallRecord]:
    """Paid calls, many of them alike and at the same time."""
    return [
        call(number, start, seconds, entered=size * 100, usage=Usage(size * 100, 10, cached_tokens=cached))
        for number, (size, start, seconds, cached) in enumerate(drawn)
    ]


def _bill(calls: Sequence[CallRecord], share: float) -> Bill:
    return bill_of(*(billed(each, share=share) for each in calls))


@given(calls_at, st.floats(0, 1), st.randoms(use_true_random=False))
def test_a_bill_made_from_any_calls_agrees(drawn: list[tuple[int, int, float, int]], share: float, random) -> None:  # type: ignore[no-untyped-def]
    calls = _paid(drawn)
    rows = [billed(each, share=share) for each in calls]
    random.shuffle(rows)
    found = reconcile(random.sample(calls, len(calls)), bill_of(*rows))
    assert (found.unexplained_tokens, found.findings, found.agreeing) == (0, (), len(calls))


@given(calls_at, st.floats(0, 1), st.data())
def test_any_change_of_either_side_is_seen(
    drawn: list[tuple[int, int, float, int]], share: float, data: st.DataObject
) -> None:
    calls, bill = _paid(drawn), _bill(_paid(drawn), share)
    chosen = data.draw(st.integers(0, len(calls) - 1))
    lost = [each for number, each in enumerate(calls) if number != chosen]
    assert reconcile(lost, bill).unexplained_tokens > 0
    twice = [*calls, replace(calls[chosen], call_id="twice", execution_id="other")]
    assert reconcile(twice, bill).unexplained_tokens > 0
    rows = [row for number, row in enumerate(bill.rows) if number != chosen]
    assert reconcile(calls, bill_of(*rows)).unexplained_tokens > 0
    assert reconcile(calls, bill_of(*bill.rows, replace(bill.rows[chosen], place="twice"))).unexplained_tokens > 0
    changed = [*rows, _one_more(bill.rows[chosen], data.draw(st.sampled_from(["input", "cached", "output"])))]
    assert reconcile(calls, bill_of(*changed)).unexplained_tokens > 0


def _one_more(row: BillRow, line: str) -> BillRow:
    more = {"input": Count(0, 1, 0, 0), "cached": Count(0, 0, 1, 0), "output": Count(0, 0, 0, 1)}
    return replace(row, count=row.count + more[line])


@st.composite
def steps_in_vain(draw: st.DrawFn) -> tuple[list[CallRecord], list[BillRow], list[CallRecord], list[BillRow]]:
    """Steps one after the other, each with its own size of question: calls in vain, billed or not, retried or not,
    then a paid one. Returns calls and bill, and what of them was paid."""
    calls: list[CallRecord] = []
    rows: list[BillRow] = []
    paid: list[CallRecord] = []
    own: list[BillRow] = []
    for step in range(1, draw(st.integers(2, 6))):
        clock = step * 200.0
        first = failed(step)
        for number in range(1, draw(st.integers(1, 3))):
            made = draw(st.sampled_from([failed, interrupted]))(step, clock)
            retries = draw(st.integers(0, 2))
            asked = draw(st.integers(0, retries + 1))
            calls.append(replace(made, call_id=f"v-{step}-{number}", number=number, retries=retries))
            rows += [request(f"vain {step}.{number}.{n}", clock + 0.2 * n, step * 100) for n in range(asked)]
            clock += 5
        last = again(first, clock, call_id=f"p-{step}", number=9, retries=draw(st.integers(0, 1)))
        calls.append(last)
        paid.append(last)
        own.append(billed(last, share=0.9))
        if last.retries and draw(st.booleans()):
            rows.append(request(f"retry {step}", clock + 0.1, step * 100, cached=0, output=99))
    return calls, [*rows, *own], paid, own


@given(steps_in_vain())
def test_whatever_calls_in_vain_did_is_explained(
    drawn: tuple[list[CallRecord], list[BillRow], list[CallRecord], list[BillRow]],
) -> None:
    calls, rows, _, _ = drawn
    found = reconcile(calls, bill_of(*rows))
    assert found.unexplained_tokens == 0
    for cell in found.cells:
        assert total(cell.causes.values()).tokens == cell.difference.tokens
    assert found.billed == total(row.count for row in rows)


@given(steps_in_vain(), st.data())
def test_calls_in_vain_excuse_no_paid_call(
    drawn: tuple[list[CallRecord], list[BillRow], list[CallRecord], list[BillRow]], data: st.DataObject
) -> None:
    """Also among calls in vain, a paid call that one side lacks is seen: their times do not reach into its own."""
    calls, rows, paid, own = drawn
    chosen = data.draw(st.integers(0, len(paid) - 1))
    assert reconcile([each for each in calls if each is not paid[chosen]], bill_of(*rows)).unexplained_tokens > 0
    less = reconcile(calls, bill_of(*(row for row in rows if row is not own[chosen])))
    assert less.unexplained_tokens > 0
    twice = [*calls, replace(paid[chosen], call_id="twice", execution_id="other", request_digest="other", retries=0)]
    assert reconcile(twice, bill_of(*rows)).unexplained_tokens > 0


def test_ten_thousand_calls_take_seconds() -> None:
    calls = [call(n, n * 0.05, 2.0, entered=100 + n % 7) for n in range(10_000)]
    found = reconcile(calls, bill_of(*(billed(each, share=0.3) for each in calls)))
    assert found.unexplained_tokens == 0
