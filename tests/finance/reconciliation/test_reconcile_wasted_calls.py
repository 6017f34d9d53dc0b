"""What wasted calls and sidecar retries may account for on a bill of requests."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import CallState
from app.finance.reconciliation.bill import EXECUTED_AGAIN, NONE, SHORTEST_PAUSE, BillRow, Count, total
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.reconciliation_schemas import reconciliation_view
from app.finance.reconciliation.reconciliation_types import BillFinding, Certainty, DifferenceCause, Reconciliation
from app.llm.journal import _CLOSE_LEFT
from app.pricing.charge_types import NOT_REPORTED, CallRecord
from tests.finance.reconciliation.billing import again, at, bill_of, billed, call, failed, interrupted, request, summed
from tests.paths import ROOT


def only(result: Reconciliation) -> BillFinding:
    (finding,) = result.findings
    return finding


def causes(result: Reconciliation) -> list[DifferenceCause]:
    return [finding.cause for finding in result.findings]


def test_an_interrupted_call_that_was_billed_is_named() -> None:
    first = interrupted(1)
    second = again(first, 5)
    result = reconcile([first, second], bill_of(request("row 1", 0.3, 100, cached=0), billed(second)))
    assert (only(result).cause, only(result).place) == (DifferenceCause.INTERRUPTED_CALL, "row 1")
    assert result.unexplained_tokens == 0
    assert only(result).record == Count(1, 100, None, 10), "what the step's answer used, as the ledger charges it"
    row = reconciliation_view(result).model_dump(mode="json")["rows"][0]
    assert (row["task_id"], row["stage"], row["call_id"]) == ("acme:T-1", "classify", "f-1")


def test_a_failed_call_that_was_billed_is_named() -> None:
    first = failed(1)
    second = again(first, 5)
    result = reconcile([first, second], bill_of(request("row 1", 0.3, 100, output=70), billed(second)))
    assert only(result).cause is DifferenceCause.FAILED_CALL
    assert only(result).difference == Count(0, 0, None, 60)


def test_a_wasted_call_that_was_not_billed_takes_its_estimate_back() -> None:
    first = failed(1)
    result = reconcile([first, again(first, 5)], bill_of(billed(again(first, 5))))
    assert only(result).cause is DifferenceCause.NEVER_BILLED
    assert (result.difference.tokens, result.unexplained_tokens) == (-110, 0)


def test_a_call_that_the_breaker_refused_accounts_for_nothing() -> None:
    refused = failed(1, seconds=0.01, error="breaker_open: model component llm: its circuit breaker is open")
    result = reconcile([refused, again(refused, 5)], bill_of(billed(again(refused, 5)), request("row 9", 0.0, 100)))
    assert causes(result) == [DifferenceCause.UNKNOWN]


@pytest.mark.parametrize(
    ("error", "record"),
    [
        ("breaker_open: its circuit breaker is open", Count(1, 100, None, 10)),  # so late, it refused the second one
        ("status: the provider answers with status 429", NONE),
    ],
)
def test_a_call_that_was_turned_away_at_last_may_have_been_billed_at_first(error: str, record: Count) -> None:
    """Its first request was cut, and billed; the sidecar paused, and was turned away the second time."""
    turned = failed(1, seconds=1.5, error=error)
    second = again(turned, 5)
    result = reconcile([turned, second], bill_of(request("row 1", 0.1, 100), billed(second)))
    assert (only(result).cause, only(result).record) == (DifferenceCause.FAILED_CALL, record)


def test_a_call_whose_last_request_was_refused_was_billed_once_at_most() -> None:
    turned = failed(1, seconds=1.5, error="status: the provider answers with status 429")
    second = again(turned, 5)
    rows = [request("row 1", 0.1, 100), request("row 2", 1.3, 100)]
    assert reconcile([turned, second], bill_of(rows[0], billed(second))).unexplained_tokens == 0
    assert reconcile([turned, second], bill_of(*rows, billed(second))).unexplained_tokens == 110


def test_a_wasted_call_accounts_for_no_other_question() -> None:
    """Its step was answered later, so the size of its question is known to the token."""
    first = failed(1)
    second = again(first, 5)
    result = reconcile([first, second], bill_of(request("row 1", 0.3, 101), billed(second)))
    assert sorted(causes(result)) == [DifferenceCause.NEVER_BILLED, DifferenceCause.UNKNOWN]
    assert result.unexplained_tokens == 111


def test_a_wasted_call_does_not_account_for_a_later_answer() -> None:
    """Without the journal's row of the second call, its request stays unexplained, although it is the same question
    and only half a second later."""
    first = failed(1, 0, 1)
    result = reconcile([first, replace(again(first, 1.5), request_digest="other")], bill_of(billed(again(first, 1.5))))
    assert result.unexplained_tokens == 0
    lost = reconcile([first, again(first, 1.2, state=CallState.STARTED, usage=first.usage)], bill_of())
    assert causes(lost) == [DifferenceCause.NEVER_BILLED]


def test_an_interrupted_call_does_not_account_for_a_row_that_the_journal_lost() -> None:
    """It says that its step was executed again, and the call that did so is missing."""
    first = interrupted(1)
    result = reconcile([first], bill_of(billed(again(first, 5))))
    assert sorted(causes(result)) == [DifferenceCause.NEVER_BILLED, DifferenceCause.UNKNOWN]
    assert EXECUTED_AGAIN in _CLOSE_LEFT.compile().params.values()
    gone = replace(first, error="the worker is gone")
    assert reconcile([gone], bill_of(request("row 1", 5, 100))).unexplained_tokens == 0
    assert reconcile([gone], bill_of(request("row 1", 700, 100))).unexplained_tokens > 0


def test_a_call_still_under_way_may_be_billed() -> None:
    running = call(
        1,
        seconds=None,
        state=CallState.STARTED,
        usage=NOT_REPORTED,
    )
    assert reconcile([running], bill_of()).findings == ()
    result = reconcile([running], bill_of(billed(call(1))))
    assert (only(result).cause, result.unexplained_tokens) == (DifferenceCause.RUNNING_CALL, 0)


def sidecar_retries(
    count: int | None, since: float = 0, until: float = 2, component: str = "llm"
) -> UnattributedRetries:
    """A number of requests that the sidecar repeated in a period."""
    return UnattributedRetries(component, at(since), at(until), count)


def test_sidecar_retries_are_named_up_to_their_number() -> None:
    asked = call(1, 0, 10)
    first, second, third = request("row 1", 1, 100, cached=0), request("row 2", 4, 100), request("row 3", 7, 100)
    result = reconcile([asked], bill_of(first, second), unattributed=[sidecar_retries(1)])
    assert (only(result).cause, only(result).place) == (DifferenceCause.SIDECAR_RETRY, "row 1")
    assert (only(result).certainty, only(result).call) == (Certainty.BOUNDED, asked)
    three = bill_of(first, second, third)
    assert reconcile([asked], three, unattributed=[sidecar_retries(1)]).unexplained_tokens == 110
    assert reconcile([asked], three, unattributed=[sidecar_retries(2)]).unexplained_tokens == 0
    strange = bill_of(second, request("row 9", 1, 101))
    assert reconcile([asked], strange, unattributed=[sidecar_retries(1)]).unexplained_tokens == 111


def test_a_retry_is_that_of_a_call_that_was_under_way_when_it_was_counted() -> None:
    """The sidecar counts its retries without naming the calls."""
    asked, other = call(1, 0, 10), call(2, 3, 10)
    rows = [request("row 1", 1, 100), billed(asked), billed(other)]
    result = reconcile([asked, other], bill_of(*rows), unattributed=[sidecar_retries(1, 4, 6)])
    assert (only(result).cause, only(result).call) == (DifferenceCause.SIDECAR_RETRY, asked)
    more = reconcile([asked, other], bill_of(*rows, request("row 2", 2, 100)), unattributed=[sidecar_retries(1, 4, 6)])
    assert more.unexplained_tokens == 110, "there are no more of them than were counted"
    apart = reconcile([asked, other], bill_of(*rows), unattributed=[sidecar_retries(1, 11, 12)])
    assert apart.unexplained_tokens == 110, "of another time"


def test_while_the_sidecars_counter_was_lost_a_call_may_have_been_retried() -> None:
    asked = call(1, 0, 10)
    rows = [request("row 1", 1, 100), billed(asked)]
    assert reconcile([asked], bill_of(*rows)).unexplained_tokens == 110
    result = reconcile([asked], bill_of(*rows), unattributed=[sidecar_retries(None, 8, 12)])
    assert (only(result).cause, only(result).certainty) == (DifferenceCause.SIDECAR_RETRY, Certainty.BOUNDED)
    elsewhere = [sidecar_retries(None, 11, 12), sidecar_retries(None, 1, 9, "other")]
    assert reconcile([asked], bill_of(*rows), unattributed=elsewhere).unexplained_tokens == 110


def test_two_requests_of_one_call_are_a_pause_apart() -> None:
    """A request that comes sooner is not a retry by the sidecar, whatever it counted."""
    asked = call(1, 0, 10)
    soon = bill_of(request("row 1", 4.5, 100), billed(asked))
    assert reconcile([asked], soon, unattributed=[sidecar_retries(9, 0, 12)]).unexplained_tokens == 110
    advice = (ROOT / "docs" / "operations.md").read_text()
    (pause,) = re.findall(r"duration: (\d+)s", advice)
    assert timedelta(seconds=int(pause)) > SHORTEST_PAUSE


def test_counted_retries_account_for_as_many_requests() -> None:
    calls = [call(1, 0, 10), call(2, 0, 10)]
    rows = [request("row 1", 1, 100), request("row 2", 1, 200), *map(billed, calls)]
    assert reconcile(calls, bill_of(*rows), unattributed=[sidecar_retries(1)]).unexplained_tokens in (110, 210)
    assert reconcile(calls, bill_of(*rows), unattributed=[sidecar_retries(2)]).unexplained_tokens == 0


def test_a_count_goes_to_the_call_that_has_no_other() -> None:
    """Both calls were under way at the first count, only the long one at the second, a minute later."""
    short, long = call(1, 0, 3), call(2, 0, 70)
    rows = [request("row 1", 0.5, 200), billed(short, share=0.9), request("row 2", 0.5, 100), billed(long, share=0.9)]
    both = [sidecar_retries(1), sidecar_retries(1, 60, 62)]
    assert reconcile([short, long], bill_of(*rows), unattributed=both).unexplained_tokens == 0
    assert reconcile([short, long], bill_of(*rows), unattributed=both[1:]).unexplained_tokens == 110
    more = bill_of(*rows, request("row 3", 1.5, 100))
    assert reconcile([short, long], more, unattributed=both).unexplained_tokens == 110


def test_the_right_one_of_two_like_calls_gets_the_retry() -> None:
    """By the earliest end alone, the second call would take the first one's request."""
    first, second = call(1, 0, 4), call(2, 2, 4, entered=100)
    rows = [request(f"row {n}", when, 100) for n, when in enumerate((0.5, 3, 5))]
    assert reconcile([first, second], bill_of(*rows), unattributed=[sidecar_retries(1, 0, 1)]).unexplained_tokens == 0


Drawn = tuple[list[CallRecord], list[BillRow], list[CallRecord], list[BillRow], list[UnattributedRetries]]


@st.composite
def steps_with_wasted_calls(draw: st.DrawFn) -> Drawn:
    """Consecutive steps, each with its own size of question: wasted calls, billed or not, retried by the sidecar or
    not, then a paid call. Returns calls, bill, the paid calls, their rows, and the sidecar's counts."""
    calls: list[CallRecord] = []
    rows: list[BillRow] = []
    paid: list[CallRecord] = []
    own: list[BillRow] = []
    repeated: list[UnattributedRetries] = []
    for step in range(1, draw(st.integers(2, 6))):
        clock = step * 200.0
        first = failed(step)
        for number in range(1, draw(st.integers(1, 3))):
            made = draw(st.sampled_from([failed, interrupted]))(step, clock)
            retries = draw(st.integers(0, 2))
            asked = draw(st.integers(0, retries + 1))
            ended = made.ended_at and at(clock + 3)
            calls.append(replace(made, call_id=f"v-{step}-{number}", number=number, ended_at=ended))
            rows += [request(f"vain {step}.{number}.{n}", clock + 0.8 * n, step * 100) for n in range(asked)]
            repeated.append(sidecar_retries(retries, clock, clock + 1))
            clock += 5
        last = again(first, clock, 2.0, call_id=f"p-{step}", number=9)
        calls.append(last)
        paid.append(last)
        own.append(billed(last, share=0.9))
        if draw(st.booleans()):
            rows.append(request(f"retry {step}", clock + 0.1, step * 100, cached=0, output=99))
            repeated.append(sidecar_retries(1, clock, clock + 1))
    return calls, [*rows, *own], paid, own, repeated


@given(steps_with_wasted_calls())
def test_whatever_wasted_calls_did_is_explained(drawn: Drawn) -> None:
    calls, rows, _, _, repeated = drawn
    result = reconcile(calls, bill_of(*rows), unattributed=repeated)
    assert result.unexplained_tokens == 0
    for cell in result.cells:
        assert total(cell.causes.values()).tokens == cell.difference.tokens
    assert result.billed == total(row.count for row in rows)


@given(steps_with_wasted_calls(), st.data())
def test_wasted_calls_excuse_no_paid_call(drawn: Drawn, data: st.DataObject) -> None:
    """A missing paid call is also noticed among wasted calls, because their times do not overlap with it."""
    calls, rows, paid, own, repeated = drawn
    chosen = data.draw(st.integers(0, len(paid) - 1))
    lacking = [record for record in calls if record is not paid[chosen]]
    assert reconcile(lacking, bill_of(*rows), unattributed=repeated).unexplained_tokens > 0
    less = reconcile(calls, bill_of(*(row for row in rows if row is not own[chosen])), unattributed=repeated)
    assert less.unexplained_tokens > 0
    twice = [*calls, replace(paid[chosen], call_id="twice", execution_id="other", request_digest="other")]
    assert reconcile(twice, bill_of(*rows), unattributed=repeated).unexplained_tokens > 0


def test_a_request_that_arrives_long_after_its_call_gave_up_is_named_as_late() -> None:
    """The connection stalled, and the provider processed the request after the call had given up."""
    first = failed(1, 0, 6)
    second = again(first, 17)
    result = reconcile([first, second], bill_of(request("row 1", 15.2, 100), billed(second)))
    finding = only(result)
    assert (finding.cause, finding.place, finding.call) == (DifferenceCause.FAILED_CALL, "row 1", finding.call)
    assert finding.call is not None
    assert finding.call.call_id == "f-1"
    assert finding.note == "its request reached the provider 9.2 s after the call had given up, and was billed"
    assert result.unexplained_tokens == 0


def test_requests_that_a_stalled_connection_delivers_at_once_belong_to_their_calls() -> None:
    """Each ticket's call gave up twice before the connection resumed; the third call was answered."""
    calls, rows = [], []
    for number in range(1, 9):
        first = failed(number, 0.1 * number, 6)
        second = replace(failed(number, 7 + 0.1 * number, 6), call_id=f"g-{number}", number=2)
        third = again(first, 14.9 + 0.1 * number, number=3, call_id=f"h-{number}")
        calls += [first, second, third]
        rows += [request(f"row {number} {turn}", 15.0 + 0.01 * turn, 100 * number) for turn in (1, 2)]
        rows.append(billed(third))
    result = reconcile(calls, bill_of(*rows))
    assert result.unexplained_tokens == 0
    assert Counter(causes(result)) == {DifferenceCause.FAILED_CALL: 16}
    assert {finding.call.call_id for finding in result.findings if finding.call} == {
        f"{c}-{n}" for c in "fg" for n in range(1, 9)
    }
    assert all(
        finding.call and finding.billed.input_tokens == finding.call.reserve_input for finding in result.findings
    )
    more = reconcile(calls, bill_of(*rows, request("row 9", 15.1, 800)))
    assert more.unexplained_tokens == 810, "no more of them than calls gave up"


def test_a_late_request_is_known_by_its_size_to_the_token_and_by_its_time() -> None:
    first = failed(1, 0, 6)
    second = again(first, 17)
    for strange in (request("row 1", 15, 101), request("row 1", 6 + 16 * 60, 100), request("row 1", -3, 100)):
        result = reconcile([first, second], bill_of(strange, billed(second)))
        assert DifferenceCause.UNKNOWN in causes(result), strange
        assert result.unexplained_tokens == strange.count.tokens


@pytest.mark.parametrize(
    "error",
    ["status: the provider answers with status 429", "refused_connection: no", "breaker_open: no", "sidecar_gone: no"],
)
def test_a_call_that_no_model_worked_at_is_late_for_nothing(error: str) -> None:
    first = failed(1, 0, 0.2, error=error)
    second = again(first, 5)
    result = reconcile([first, second], bill_of(request("row 1", 3.5, 100), billed(second)))
    assert causes(result) == [DifferenceCause.UNKNOWN]


def test_a_turn_without_an_answer_has_no_late_requests() -> None:
    """The journal may have lost the call that brought it, and the row may be that one's."""
    first, second = failed(1, 0, 6), replace(failed(1, 7, 6), call_id="g-1", number=2)
    row = request("row 1", 20, 100)
    assert reconcile([first, second], bill_of(row)).unexplained_tokens == 110
    running = replace(second, state=CallState.STARTED, error="", ended_at=None, call_id="r-1", started_at=at(19))
    result = reconcile([first, second, running], bill_of(row, request("row 2", 20, 100)))
    assert result.unexplained_tokens == 0, "the turn continues: the next call is in flight"


def test_a_call_whose_worker_was_lost_may_be_late_once_its_turn_was_repeated() -> None:
    first = interrupted(1)
    second = again(first, 5)
    result = reconcile([first, second], bill_of(request("row 1", 9.5, 100), billed(second)))
    assert (only(result).cause, result.unexplained_tokens) == (DifferenceCause.INTERRUPTED_CALL, 0)
    assert "after the call had given up" in only(result).note


def test_a_request_in_a_calls_own_time_is_its_own_before_it_is_anothers_late_one() -> None:
    late, own = failed(1, 0, 6), failed(2, 14, 6, entered=100, request_digest="q-1")
    answers = [again(late, 30), again(own, 31)]
    result = reconcile([late, own, *answers], bill_of(request("row 1", 15, 100), *map(billed, answers)))
    named = {finding.cause: finding.call.call_id for finding in result.findings if finding.call}
    assert named == {DifferenceCause.FAILED_CALL: "f-2", DifferenceCause.NEVER_BILLED: "f-1"}


def test_a_late_request_may_be_on_the_next_bill() -> None:
    first = failed(1, -7, 6)
    second = again(first, -0.5, 0.1)
    result = reconcile([first, second], bill_of(request("row 1", 2, 100), since=at(0), until=at(3600)))
    assert (only(result).cause, result.unexplained_tokens) == (DifferenceCause.FAILED_CALL, 0)
    bill = summed([request("row 1", 2, 100)], since=at(0), until=at(3600))
    assert reconcile([first, second], bill).unexplained_tokens == 0
