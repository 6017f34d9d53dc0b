"""Our record compared with bills of sums: exact for paid calls, bounded for wasted ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import NONE, Bill, BillRow, Count, total
from app.finance.reconciliation.by_request import UnattributedRetries
from app.finance.reconciliation.by_sum import carry
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.reconciliation_types import Certainty, DifferenceCause, Reconciliation
from app.pricing.charge_types import CallRecord, TokenUsage
from tests.finance.reconciliation.billing import HOUR, again, at, billed, call, failed, interrupted, request, summed

DAY = timedelta(days=1)


def causes(result: Reconciliation) -> list[DifferenceCause]:
    return [finding.cause for finding in result.findings]


def check_sums(result: Reconciliation, bill: Bill) -> None:
    """Checks what check_sums for every comparison: causes sum to the difference, and the whole bill is included."""
    for cell in result.cells:
        assert total(cell.causes.values()).tokens == cell.difference.tokens
    assert result.billed.tokens == total(row.count for row in bill.rows).tokens


def test_sums_of_what_was_paid_leave_nothing() -> None:
    calls = [call(1), call(2, 10), call(3, 4000), call(4, 20, model="model-b")]
    bill = summed(map(billed, calls))
    result = reconcile(calls, bill)
    assert (result.findings, result.unexplained_tokens, result.agreeing) == ((), 0, 4)
    assert [(cell.model, cell.since, cell.record) for cell in result.cells] == [
        ("model-a", at(0), Count(2, 300, 80, 20)),
        ("model-a", at(3600), Count(1, 300, 40, 10)),
        ("model-b", at(0), Count(1, 400, 40, 10)),
    ]
    check_sums(result, bill)


def test_an_hour_that_the_bill_lacks_is_counted() -> None:
    calls = [call(1), call(2, 4000)]
    result = reconcile(calls, summed([billed(call(1))]))
    assert causes(result) == [DifferenceCause.NOT_ON_BILL]
    assert (result.unexplained_tokens, result.difference.tokens) == (210, -210)
    assert [cell.unexplained for cell in result.cells] == [0, 210]


def test_an_hour_that_our_record_lacks_is_counted() -> None:
    result = reconcile([call(1)], summed(map(billed, [call(1), call(2, 4000)])))
    assert causes(result) == [DifferenceCause.UNKNOWN]
    assert result.unexplained_tokens == 210


def test_differences_of_two_hours_do_not_cancel() -> None:
    result = reconcile([call(2, 0)], summed([billed(call(2, 4000))]))
    assert (result.difference.tokens, result.unexplained_tokens) == (0, 420)


def test_calls_outside_of_an_export_are_not_compared() -> None:
    calls = [call(1, -5000), call(2), call(3, 9000)]
    result = reconcile(calls, summed([billed(call(2))], since=at(0), until=at(3600)))
    assert (result.findings, result.compared, result.outside) == ((), 1, 2)


def test_a_failed_call_may_account_for_one_request_of_its_size() -> None:
    first = failed(1, 0, 1)
    second = again(first, 5)
    paid = call(3, 20)
    rows = [request("x", 0.5, 100, output=7), billed(second), billed(paid)]
    result = reconcile([first, second, paid], summed(rows))
    assert [(finding.cause, finding.certainty) for finding in result.findings] == [
        (DifferenceCause.FAILED_CALL, Certainty.BOUNDED)
    ]
    assert (result.unexplained_tokens, result.difference.tokens) == (0, -3), "the estimate took 10 tokens of output"
    assert result.cells[0].certainty is Certainty.BOUNDED
    without = reconcile([first, second, paid], summed(rows[1:]))
    assert (causes(without), without.unexplained_tokens) == ([DifferenceCause.NEVER_BILLED], 0)
    twice = reconcile([first, second, paid], summed([*rows, rows[0]]))
    assert twice.unexplained_tokens == 100, "the output of a wasted call is unknown, so it may be all 14"
    other = reconcile([first, second, paid], summed([replace(rows[0], count=Count(1, 160, 0, 7)), *rows[1:]]))
    assert other.unexplained_tokens == 60, "a question of 100 tokens accounts for 100"


def test_a_wasted_call_accounts_for_one_request_in_one_sum() -> None:
    wasted = failed(1, 3599, 2)
    paid = again(wasted, 3700)
    rows = [request("x", 3599.5, 100), request("y", 3600.5, 100)]
    for row in rows:
        assert reconcile([wasted, paid], summed([row, billed(paid)])).unexplained_tokens == 0
    assert reconcile([wasted, paid], summed([*rows, billed(paid)])).unexplained_tokens == 110


def test_a_sum_says_how_many_requests_there_are_to_account_for() -> None:
    wasted = failed(1)
    paid = again(wasted, 5)
    bill = summed([billed(paid)])
    (row,) = bill.rows
    more = replace(bill, rows=(replace(row, count=row.count + Count(0, 100, 0, 10)),))
    assert reconcile([wasted, paid], more).unexplained_tokens == 110, "no further request, so no wasted call was billed"


def test_what_is_left_of_a_sum_lies_within_the_sizes_of_so_many_requests() -> None:
    """Two of questions of 100, 200, 400 and 800 tokens: 300 to 1,200 together, and every sum between counts as one."""
    wasted = [failed(number, number * 10.0, request_digest=f"q-{number}") for number in (1, 2, 4, 8)]
    paid = [again(record, record.started_at.minute * 60 + record.started_at.second + 5.0) for record in wasted]
    calls, rows = [*wasted, *paid], [*map(billed, paid)]
    for first, second, unexplained in ((200, 800, 0), (200, 801, 0), (100, 199, 1), (400, 801, 1), (100, 200, 0)):
        result = reconcile(calls, summed([*rows, request("x", 1, first), request("y", 1, second)]))
        assert result.unexplained_tokens == unexplained, (first, second)
    (finding,) = result.findings
    assert (finding.cause, finding.certainty, finding.call) == (DifferenceCause.FAILED_CALL, Certainty.BOUNDED, None)
    assert finding.note == "2 of these requests, of 300 to 1,200 input tokens, may have been billed: 4 failed_call"


def test_interrupted_calls_and_retries_account_for_requests() -> None:
    first = interrupted(1)
    second = again(first, 5, 10)
    repeated = [UnattributedRetries("llm", at(5), at(7), 1)]
    rows = [request("x", 0.5, 100), request("y", 6, 100, cached=0), billed(second)]
    result = reconcile([first, second], summed(rows), unattributed=repeated)
    assert causes(result) == [DifferenceCause.MIXED], "the sum does not say which tokens are whose"
    assert result.findings[0].note.endswith("1 interrupted_call, 1 sidecar_retry")
    assert result.unexplained_tokens == 0
    check_sums(result, summed(rows))


def test_a_retry_may_be_that_of_another_call_of_its_time() -> None:
    asked, other = call(1, 0, 10), call(5, 3, 10)
    repeated = [UnattributedRetries("llm", at(4), at(6), 1)]
    rows = [request("x", 1, 100), billed(asked), billed(other)]
    assert reconcile([asked, other], summed(rows), unattributed=repeated).unexplained_tokens == 0
    beyond = [request("x", 1, 99), billed(asked), billed(other)]
    assert reconcile([asked, other], summed(beyond), unattributed=repeated).unexplained_tokens == 1


def test_while_the_counter_was_lost_each_call_may_have_been_retried() -> None:
    asked = call(1, 0, 10)
    bill = summed([request("x", 1, 100), billed(asked)])
    assert reconcile([asked], bill).unexplained_tokens == 110
    assert reconcile([asked], bill, unattributed=[UnattributedRetries("llm", at(8), at(12))]).unexplained_tokens == 0


def test_estimates_may_be_off_and_say_so() -> None:
    estimated = [
        call(n, n, usage=TokenUsage(input_tokens=n * 100, output_tokens=12, basis=UsageBasis.ESTIMATED)) for n in (1, 2)
    ]
    bill = summed([request("x", 1, 130, cached=None), request("y", 2, 230, cached=None)])
    result = reconcile(estimated, bill)
    assert [(finding.cause, finding.difference.tokens) for finding in result.findings] == [
        (DifferenceCause.ESTIMATE, 60 - 4)
    ]
    assert result.unexplained_tokens == 0
    far = summed([request("x", 1, 13_000, cached=None), request("y", 2, 230, cached=None)])
    assert reconcile(estimated, far).unexplained_tokens > 10_000


def test_a_call_at_the_edge_of_two_hours_is_in_the_hour_of_the_bill() -> None:
    inside, edge, other = call(1, 10), call(2, 3599, 3), call(4, 5000)
    bill = summed([billed(inside), billed(edge, share=0.9), billed(other)])
    result = reconcile([inside, edge, other], bill)
    assert [(finding.cause, finding.difference.tokens) for finding in result.findings] == [
        (DifferenceCause.BUCKET_EDGE, -210),
        (DifferenceCause.BUCKET_EDGE, 210),
    ]
    assert (result.difference, result.unexplained_tokens) == (NONE, 0)
    assert reconcile([inside, edge, other], summed(map(billed, [inside, other]))).unexplained_tokens == 210
    early = reconcile([inside, edge, other], summed([billed(inside), billed(edge, share=0.1), billed(other)]))
    assert early.findings == ()


def test_a_call_at_the_edge_of_the_bills_period_may_be_on_the_next_bill() -> None:
    inside, edge = call(1, 10), call(2, 3599, 3)
    result = reconcile([inside, edge], summed([billed(inside)], since=at(0), until=at(3600)))
    assert (causes(result), result.unexplained_tokens) == ([DifferenceCause.PERIOD_EDGE], 0)
    before = call(3, -1, 2)
    result = reconcile([inside, before], summed(map(billed, [inside]), since=at(0), until=at(3600)))
    assert result.unexplained_tokens == 0
    late = replace(billed(before), since=at(0.5), until=at(0.5))
    result = reconcile([inside, before], summed([billed(inside), late], since=at(0), until=at(3600)))
    assert (causes(result), result.unexplained_tokens) == ([DifferenceCause.PERIOD_EDGE], 0)


def test_cached_tokens_that_the_record_does_not_know_are_not_compared() -> None:
    unknown, known = call(1, usage=TokenUsage(input_tokens=100, output_tokens=10)), call(2, 5000)
    bill = summed([request("x", 0.5, 100, cached=30), billed(known)])
    result = reconcile([unknown, known], bill)
    assert (result.unexplained_tokens, [cell.billed.cached_tokens for cell in result.cells]) == (0, [None, 40])


def test_what_is_left_has_no_more_cached_tokens_than_input() -> None:
    small, large = failed(1), failed(5, 10)
    paid = [again(small, 5), again(large, 15)]
    calls, rows = [small, large, *paid], [*map(billed, paid)]
    assert reconcile(calls, summed([*rows, request("x", 1, 100, cached=90)])).unexplained_tokens == 0
    odd = summed([*rows, replace(request("x", 1, 100), count=Count(1, 100, 300, 10))])
    assert reconcile(calls, odd).unexplained_tokens == 400, "200 too many, and as many too few of plain input"


def test_a_lost_paid_call_may_hide_behind_one_that_failed_and_no_further() -> None:
    """A bill of sums cannot show whether the remaining request is that of the failed call."""
    wasted = failed(3, 0)
    lost, kept = call(2, 20), call(5, 40)
    calls, bill = [wasted, again(wasted, 5), kept], summed(map(billed, [again(wasted, 5), kept, lost]))
    assert reconcile(calls, bill).unexplained_tokens == 100, "300 tokens of input, not 200"
    assert reconcile([*calls, lost], bill).unexplained_tokens == 0
    assert reconcile([again(wasted, 5), kept], bill).unexplained_tokens == 210


def test_a_bill_that_counts_no_requests() -> None:
    calls = [call(1), failed(2, 5), again(failed(2, 5), 9)]
    rows = [billed(calls[0]), billed(calls[2])]

    def uncounted(*more: BillRow) -> Bill:
        bill = summed([*rows, *more])
        return replace(bill, rows=tuple(replace(row, count=replace(row.count, requests=None)) for row in bill.rows))

    assert reconcile(calls, uncounted()).unexplained_tokens == 0
    assert reconcile(calls, uncounted(request("x", 6, 200))).unexplained_tokens == 0
    assert reconcile(calls, uncounted(request("x", 6, 50))).unexplained_tokens == 60


def test_models_without_a_price_are_named() -> None:
    result = reconcile([call(1)], summed([billed(call(1))]), lambda *_: False)
    assert (result.cells[0].unpriced, dict(result.unpriced)) == (110, {("conversation.openai", "model-a"): 110})


paid_calls = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 20_000), st.sampled_from([0.2, 5.0, 90.0]), st.floats(0, 1)),
    min_size=1,
    max_size=25,
)


def _paid(drawn: Sequence[tuple[int, int, float, float]]) -> list[CallRecord]:
    return [
        call(
            number,
            start,
            seconds,
            entered=size * 100,
            usage=TokenUsage(input_tokens=size * 100, output_tokens=size + 7, cached_tokens=size),
        )
        for number, (size, start, seconds, _) in enumerate(drawn)
    ]


@given(paid_calls, st.sampled_from([timedelta(minutes=1), HOUR, DAY]))
def test_sums_made_from_any_calls_agree(drawn: list[tuple[int, int, float, float]], width: timedelta) -> None:
    """Also if calls cross the edges of sums: each is then at most one sum further."""
    calls = _paid(drawn)
    bill = summed([billed(record, share=share) for record, (_, _, _, share) in zip(calls, drawn, strict=True)], width)
    result = reconcile(calls, bill)
    assert result.unexplained_tokens == 0
    assert set(causes(result)) <= {DifferenceCause.BUCKET_EDGE}
    assert result.difference == NONE
    check_sums(result, bill)


@given(paid_calls, st.sampled_from([timedelta(minutes=1), HOUR, DAY]), st.data())
def test_any_change_of_either_side_is_seen(
    drawn: list[tuple[int, int, float, float]], width: timedelta, data: st.DataObject
) -> None:
    calls = _paid(drawn)
    rows = [billed(record, share=share) for record, (_, _, _, share) in zip(calls, drawn, strict=True)]
    bill = summed(rows, width)
    chosen = data.draw(st.integers(0, len(calls) - 1))
    lost = [record for record in calls if record is not calls[chosen]]
    assert reconcile(lost, bill).unexplained_tokens > 0
    twice = [*calls, replace(calls[chosen], call_id="twice", execution_id="other")]
    assert reconcile(twice, bill).unexplained_tokens > 0
    more = data.draw(st.sampled_from([Count(0, 1, 0, 0), Count(0, 0, 1, 0), Count(0, 0, 0, -1)]))
    changed = data.draw(st.integers(0, len(bill.rows) - 1))
    off = [replace(row, count=row.count + more) if n == changed else row for n, row in enumerate(bill.rows)]
    result = reconcile(calls, replace(bill, rows=tuple(off)))
    assert result.unexplained_tokens > 0
    check_sums(result, replace(bill, rows=tuple(off)))


doubtful_calls = st.lists(
    st.tuples(
        st.integers(1, 9), st.integers(0, 300), st.sampled_from([0.2, 5.0, 50.0]), st.floats(0, 1), st.booleans()
    ),
    max_size=12,
)


@given(paid_calls, doubtful_calls, st.booleans(), st.data())
def test_what_may_be_true_is_never_unexplained(
    drawn: list[tuple[int, int, float, float]],
    doubtful: list[tuple[int, int, float, float, bool]],
    counted: bool,
    data: st.DataObject,
) -> None:
    """Failed calls between paid ones, across all edges, billed or not: the bounds leave room for the truth. And a bill
    beyond the bounds is unexplained by at least what is beyond them."""
    calls = _paid([(size, start % 300, seconds, share) for size, start, seconds, share in drawn])
    rows = [billed(record, share=share) for record, (_, _, _, share) in zip(calls, drawn, strict=True)]
    most = 0
    for number, (size, start, seconds, share, was_billed) in enumerate(doubtful):
        calls.append(failed(100 + number, start, seconds, entered=size * 100))
        most += size * 100 + size * 50 + 600 + 1000
        if was_billed:
            rows.append(request(f"x-{number}", start + seconds * share, size * 100, cached=0))
    bill = summed(rows, timedelta(minutes=1))
    if not counted:
        bill = replace(bill, rows=tuple(replace(row, count=replace(row.count, requests=None)) for row in bill.rows))
    result = reconcile(calls, bill)
    assert result.unexplained_tokens == 0
    check_sums(result, bill)
    more = data.draw(st.integers(0, len(bill.rows) - 1))
    off = [replace(row, count=row.count + Count(0, most + 7)) if n == more else row for n, row in enumerate(bill.rows)]
    assert reconcile(calls, replace(bill, rows=tuple(off))).unexplained_tokens >= 7


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 3), st.integers(-2, 2)), max_size=4),
    st.integers(0, 2),
    st.integers(0, 3),
)
def test_no_more_is_unexplained_along_the_sums_than_must_be(
    drawn: list[tuple[int, int, int, int]], besides: int, first: int
) -> None:
    """Held against trying everything that may be carried over the edges."""
    billed_, started = [entry[0] for entry in drawn], [entry[1] for entry in drawn]
    crossing = [first, *(entry[2] for entry in drawn)]
    at_home = [0] * len(crossing)
    shares = carry(billed_, started, crossing, at_home, lambda _, __: (0, besides))
    least = dict.fromkeys(range(first + 1), 0)
    for amount, began, most in zip(billed_, started, crossing[1:], strict=True):
        gaps = {
            gone: min(
                bad + min(abs(amount - come - began + gone - more) for more in range(besides + 1))
                for come, bad in least.items()
            )
            for gone in range(most + 1)
        }
        least = gaps
    assert sum(abs(share.unexplained) for share in shares) == min(least.values())
    come = [share.come for share in shares]
    assert [share.gone for share in shares[:-1]] == come[1:], "what goes over an edge comes over it"
    for share, amount, began in zip(shares, billed_, started, strict=True):
        assert share.come + began - share.gone + share.besides + share.unexplained == amount
        assert 0 <= share.besides <= besides


@pytest.mark.timeout(60)
def test_a_busy_day_takes_seconds() -> None:
    """A thousand wasted calls and thousands of paid calls, in sums of an hour."""
    paid = [call(n, n * 10.0, 15.0, entered=100 + n % 997) for n in range(8_000)]
    wasted = [failed(n, n * 80.0, entered=100 + n % 997, request_digest=f"q-{n}") for n in range(1_000)]
    rows = [
        *(billed(record, share=0.5) for record in paid),
        *(request("x", n * 80.0, 100 + n % 997) for n in range(500)),
    ]
    assert reconcile([*paid, *wasted], summed(rows)).unexplained_tokens == 0


@pytest.mark.timeout(60)
def test_a_year_by_the_hour_takes_seconds() -> None:
    paid = [call(n, n * 1800.0, 15.0, entered=100 + n % 997) for n in range(17_500)]
    wasted = [failed(n, n * 18_000.0, entered=100 + n % 997, request_digest=f"q-{n}") for n in range(1_750)]
    rows = [*(billed(record, share=0.5) for record in paid), *(request("x", n * 18_000.0, 100 + n) for n in range(800))]
    assert reconcile([*paid, *wasted], summed(rows)).unexplained_tokens == 0
