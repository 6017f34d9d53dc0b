"""Our record compared with bills that list each request: differences are explained by a cause, or unexplained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import NONE, Bill, BillFormat, BillRow, Count
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.reconciliation_schemas import reconciliation_view
from app.finance.reconciliation.reconciliation_texts import remarks, verdict
from app.finance.reconciliation.reconciliation_types import BillFinding, DifferenceCause, Reconciliation
from app.pricing.charge_types import CallRecord, TokenUsage
from tests.finance.reconciliation.billing import MODEL, at, bill_of, billed, call, interrupted, request, summed


def only(result: Reconciliation) -> BillFinding:
    (finding,) = result.findings
    return finding


def causes(result: Reconciliation) -> list[DifferenceCause]:
    return [finding.cause for finding in result.findings]


def test_calls_on_both_sides_leave_no_difference() -> None:
    calls = [call(1), call(2, 0.5), call(3, 4000)]
    result = reconcile(calls, bill_of(*map(billed, calls)))
    assert (result.unexplained_tokens, result.findings, result.agreeing) == (0, (), 3)
    assert result.difference == NONE
    assert [(cell.since, cell.record) for cell in result.cells] == [
        (at(0), Count(2, 300, 80, 20)),
        (at(3600), Count(1, 300, 40, 10)),
    ]
    assert verdict(result).endswith("they agree to the token.")


def test_an_empty_record_agrees_with_an_empty_bill() -> None:
    assert reconcile([], bill_of()).unexplained_tokens == 0


def test_a_call_that_is_not_on_the_bill_is_named_and_counted() -> None:
    result = reconcile([call(1), call(2)], bill_of(billed(call(1))))
    assert only(result).cause is DifferenceCause.NOT_ON_BILL
    assert only(result).call == call(2)
    assert result.unexplained_tokens == 210
    assert result.difference.tokens == -210


def test_a_request_that_no_call_accounts_for_is_named_and_counted() -> None:
    result = reconcile([call(1)], bill_of(billed(call(1)), request("row 7", 0.5, 200)))
    assert (only(result).cause, only(result).place) == (DifferenceCause.UNKNOWN, "row 7")
    assert result.unexplained_tokens == 210


def test_a_plus_and_a_minus_never_cancel() -> None:
    result = reconcile([call(1), call(2, 100)], bill_of(billed(call(1)), request("row 7", 200, 200)))
    assert (result.difference.tokens, result.unexplained_tokens) == (0, 420)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (TokenUsage(input_tokens=101, output_tokens=10, cached_tokens=40), 1),
        (TokenUsage(input_tokens=100, output_tokens=11, cached_tokens=40), 1),
        (
            TokenUsage(input_tokens=100, output_tokens=10, cached_tokens=41),
            2,
        ),  # one too few of one price, one too many of the other
    ],
)
def test_other_tokens_than_billed_are_named_to_the_token(usage: TokenUsage, tokens: int) -> None:
    result = reconcile([call(1, usage=usage)], bill_of(billed(call(1))))
    assert only(result).cause is DifferenceCause.DIFFERS
    assert result.unexplained_tokens == tokens


def test_cached_tokens_that_one_side_does_not_know_cannot_differ() -> None:
    unknown = replace(billed(call(1)), count=Count(1, 100, None, 10))
    assert reconcile([call(1)], bill_of(unknown)).findings == ()
    silent = call(1, usage=TokenUsage(input_tokens=100, output_tokens=10))
    assert reconcile([silent], bill_of(billed(call(1)))).findings == ()


def test_another_model_is_another_request() -> None:
    result = reconcile([call(1)], bill_of(replace(billed(call(1)), model="model-b")))
    assert sorted(causes(result)) == [DifferenceCause.NOT_ON_BILL, DifferenceCause.UNKNOWN]


def test_a_bill_may_name_the_dated_version_of_a_model() -> None:
    result = reconcile([call(1)], bill_of(replace(billed(call(1)), model=f"{MODEL}-2026-08-07")))
    assert result.findings == ()
    assert reconciliation_view(result).model_dump(mode="json")["same_model"] == {f"{MODEL}-2026-08-07": MODEL}


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


def test_an_estimate_is_paired_with_the_nearest_request() -> None:
    usages = [
        TokenUsage(input_tokens=100, output_tokens=12, basis=UsageBasis.ESTIMATED),
        TokenUsage(input_tokens=100, output_tokens=50, basis=UsageBasis.ESTIMATED),
    ]
    calls = [call(n, entered=100, usage=usage) for n, usage in enumerate(usages, start=1)]
    result = reconcile(calls, bill_of(request("row 1", 0.5, 130, output=48), request("row 2", 0.6, 131, output=10)))
    assert [(finding.cause, finding.call and finding.call.call_id) for finding in result.findings] == [
        (DifferenceCause.ESTIMATE, "c-2"),
        (DifferenceCause.ESTIMATE, "c-1"),
    ]
    assert (result.difference.tokens, result.unexplained_tokens) == (61 - 4, 0)
    (cell,) = result.cells
    assert (cell.reported.tokens, cell.estimated.tokens) == (0, 262)


def test_an_estimate_that_nothing_on_the_bill_comes_near_is_not_on_it() -> None:
    estimated = call(1, usage=TokenUsage(input_tokens=100, output_tokens=12, basis=UsageBasis.ESTIMATED))
    result = reconcile([estimated], bill_of(request("row 1", 0.5, 5000)))
    assert sorted(causes(result)) == [DifferenceCause.NOT_ON_BILL, DifferenceCause.UNKNOWN]


def test_an_answer_that_came_too_late_to_settle_was_paid_all_the_same() -> None:
    late = interrupted(
        1, usage=TokenUsage(input_tokens=100, output_tokens=10, cached_tokens=40), model=MODEL, ended_at=at(1)
    )
    assert reconcile([late], bill_of(billed(call(1)))).findings == ()
    assert causes(reconcile([late], bill_of())) == [DifferenceCause.NOT_ON_BILL]


def test_a_bill_of_part_of_the_time() -> None:
    calls = [call(1, -100), call(2, -0.5), call(3, 10), call(4, 59.5), call(5, 100)]
    whole = bill_of(*map(billed, calls))
    part = whole.within(at(5), at(59))
    result = reconcile(calls, part)
    assert (result.findings, result.compared, result.outside) == ((), 1, 4)
    crossing = reconcile(calls, whole.within(at(0.2), at(59.7)))
    assert [(finding.cause, finding.call and finding.call.call_id) for finding in crossing.findings] == [
        (DifferenceCause.PERIOD_EDGE, "c-2"),
        (DifferenceCause.PERIOD_EDGE, "c-4"),
    ]


def test_calls_of_another_provider_are_not_of_this_bill() -> None:
    other = call(2, provider="conversation.anthropic")
    result = reconcile([call(1), other], bill_of(replace(billed(call(1)), provider="openai")))
    assert (result.findings, result.compared, result.outside) == ((), 1, 0)
    assert result.others == {"conversation.anthropic": 1}
    said = "1 calls of conversation.anthropic are not on this bill and were left out: reconcile them with that"
    assert any(said in remark for remark in remarks(result))
    assert reconciliation_view(result).calls.other_providers == {"conversation.anthropic": 1}


def test_a_bill_without_a_provider_has_a_remark() -> None:
    calls = [call(1), call(2, 10, provider="conversation.anthropic")]
    result = reconcile(calls, bill_of(billed(calls[0]), format=BillFormat.CSV))
    assert result.unexplained_tokens > 0
    said = "the bill does not name its provider, so calls of conversation.anthropic and conversation.openai were"
    assert any(remark.startswith(said) for remark in remarks(result))
    assert reconcile(calls[:1], bill_of(billed(calls[0]))).whose == ("conversation.openai",)


@pytest.mark.parametrize("provider", ["openai", ""])
def test_nobody_bills_calls_of_the_echo_component(provider: str) -> None:
    calls = [call(1), *(call(number, provider="conversation.echo", model="") for number in range(2, 42))]
    result = reconcile(calls, bill_of(replace(billed(call(1)), provider=provider)))
    assert (result.unexplained_tokens, result.others) == (0, {"conversation.echo": 40})
    assert "40 calls of conversation.echo are not on this bill and were left out: nobody bills them" in set(
        remarks(result)
    )


@pytest.mark.parametrize(
    ("provider", "component", "held"),
    [
        ("azure", "conversation.openai", True),  # apiType azure
        ("groq", "conversation.openai", True),  # an address of its own, OpenAI's protocol
        ("anthropic", "conversation.openai", False),
        ("openai", "conversation.ollama", False),
        ("openai", "conversation.aws.bedrock", False),
        ("aws", "conversation.aws.bedrock", True),
    ],
)
def test_which_providers_bill_may_hold_which_components_calls(provider: str, component: str, *, held: bool) -> None:
    one = call(1, provider=component)
    result = reconcile([one], bill_of(format=BillFormat.CSV, providers=frozenset({provider})))
    assert (result.compared, len(result.findings)) == (int(held), int(held))


def test_the_sandbox_stands_for_all_providers_of_the_called_protocol() -> None:
    calls = [call(1, provider="conversation.ollama"), call(2, 10, provider="conversation.anthropic")]
    result = reconcile(calls, bill_of(billed(calls[0]), providers=frozenset({"openai"})))
    assert (result.unexplained_tokens, result.compared, result.others) == (0, 1, {"conversation.anthropic": 1})


def test_a_call_of_an_unknown_provider_is_on_this_bill_or_on_another() -> None:
    on_bill, on_other_bill = call(1, provider=""), call(2, 10, provider="")
    result = reconcile([on_bill, on_other_bill], bill_of(billed(on_bill)))
    assert (result.unexplained_tokens, result.unknown_provider, result.absent, result.agreeing) == (0, 2, 1, 1)
    assert [(finding.cause, finding.call and finding.call.call_id) for finding in result.findings] == [
        (DifferenceCause.UNKNOWN_PROVIDER, on_other_bill.call_id)
    ]
    assert any(remark.startswith("2 calls of an unknown provider") for remark in remarks(result))
    assert reconciliation_view(result).model_dump(mode="json")["calls"]["unknown_provider"] == {
        "calls": 2,
        "not_on_bill": 1,
    }


def test_a_call_of_an_unknown_provider_accounts_for_no_other_call() -> None:
    known, unknown = call(1), call(1, 0.2, call_id="unknown", execution_id="e-u", provider="")
    result = reconcile([known, unknown], bill_of(billed(known)))
    assert (result.unexplained_tokens, result.absent, result.agreeing) == (0, 1, 1)
    other = request("row 9", 0.5, 777)
    assert reconcile([unknown], bill_of(other)).unexplained_tokens == other.count.tokens


def test_a_call_of_an_unknown_provider_may_be_in_a_sum_or_not() -> None:
    known, unknown = call(1), call(2, 10, provider="")
    for rows in ([billed(known)], [billed(known), billed(unknown)]):
        result = reconcile([known, unknown], summed(rows))
        assert (result.unexplained_tokens, result.unknown_provider, result.absent) == (0, 1, 2 - len(rows))


def test_models_without_a_price_are_named() -> None:
    result = reconcile([call(1)], bill_of(billed(call(1))), lambda provider, model, when: model != MODEL)
    assert dict(result.unpriced) == {("conversation.openai", MODEL): 110}
    assert result.cells[0].unpriced == 110
    assert reconcile([call(1)], bill_of(billed(call(1))), lambda *_: True).unpriced == {}


def test_the_keys_are_stable() -> None:
    result = reconciliation_view(reconcile([call(1)], bill_of(request("row 7", 0.5, 200)))).model_dump(mode="json")
    assert list(result) == [
        *("verdict", "unexplained_tokens", "difference_tokens", "bill", "since", "until", "calls", "record", "billed"),
        *("difference", "causes", "compared", "not_compared", "money", "cells", "rows", "unpriced", "same_model"),
    ]
    assert result["cells"][0]["causes"].keys() == {"not_on_bill", "unknown"}
    assert "320 tokens are unexplained" in result["verdict"]


calls_at = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 4000), st.sampled_from([0.2, 1.0, 30.0]), st.integers(0, 40)),
    min_size=1,
    max_size=25,
)


def _paid(drawn: Sequence[tuple[int, int, float, int]]) -> list[CallRecord]:
    """Paid calls, many of them alike and at the same time."""
    return [
        call(
            number,
            start,
            seconds,
            entered=size * 100,
            usage=TokenUsage(input_tokens=size * 100, output_tokens=10, cached_tokens=cached),
        )
        for number, (size, start, seconds, cached) in enumerate(drawn)
    ]


def _bill(calls: Sequence[CallRecord], share: float) -> Bill:
    return bill_of(*(billed(record, share=share) for record in calls))


@given(calls_at, st.floats(0, 1), st.randoms(use_true_random=False))
def test_a_bill_made_from_any_calls_agrees(drawn: list[tuple[int, int, float, int]], share: float, random) -> None:  # type: ignore[no-untyped-def]
    calls = _paid(drawn)
    rows = [billed(record, share=share) for record in calls]
    random.shuffle(rows)
    result = reconcile(random.sample(calls, len(calls)), bill_of(*rows))
    assert (result.unexplained_tokens, result.findings, result.agreeing) == (0, (), len(calls))


@given(calls_at, st.floats(0, 1), st.data())
def test_any_change_of_either_side_is_seen(
    drawn: list[tuple[int, int, float, int]], share: float, data: st.DataObject
) -> None:
    calls, bill = _paid(drawn), _bill(_paid(drawn), share)
    chosen = data.draw(st.integers(0, len(calls) - 1))
    lost = [record for number, record in enumerate(calls) if number != chosen]
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


def test_ten_thousand_calls_take_seconds() -> None:
    calls = [call(n, n * 0.05, 2.0, entered=100 + n % 7) for n in range(10_000)]
    result = reconcile(calls, bill_of(*(billed(record, share=0.3) for record in calls)))
    assert result.unexplained_tokens == 0
