"""Matching pairs as many requests with calls as possible: compared with trying all pairings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.models import UsageBasis
from app.finance.reconciliation.bill import BillRow, claims_of
from app.finance.reconciliation.by_request import Matching, Rank, Slot, UnattributedRetries
from app.pricing.charge_types import CallRecord, TokenUsage
from tests.finance.reconciliation.billing import at, call, failed, request

SIZES = st.sampled_from([100, 101, 130])
CALLS = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4), SIZES, st.booleans()), max_size=4)
COUNTS = st.lists(st.tuples(st.integers(0, 8), st.sampled_from([1, 1, None])), max_size=2)
REQUESTS = st.lists(st.tuples(st.integers(0, 12), SIZES), max_size=5)


def calls_from(calls: Sequence[tuple[int, int, int, bool]], *, reported: bool) -> list[CallRecord]:
    """Calls, some of them failed; the usage of the paid ones is reported by the provider, or estimated."""
    records = []
    for number, (start, seconds, size, fails) in enumerate(calls):
        usage = (
            TokenUsage(input_tokens=size, output_tokens=10, cached_tokens=40)
            if reported
            else TokenUsage(input_tokens=size, output_tokens=10, basis=UsageBasis.ESTIMATED)
        )
        paid = call(number, start, seconds, entered=size, usage=usage)
        records.append(failed(number, start, seconds, entered=size) if fails else paid)
    return records


def matching_of(
    calls: Sequence[CallRecord], rows: Sequence[BillRow], counts: Sequence[tuple[int, int | None]] = ()
) -> Matching:
    counted = [UnattributedRetries("llm", at(since), at(since + 2), count) for since, count in counts]
    matching = Matching(claims_of(calls), rows, timedelta(0), counted)
    matching.run()
    return matching


def most(matching: Matching, slots: Sequence[Slot]) -> int:
    """How many of these slots can be filled at once, by trying every order of the requests."""
    fits = [set(matching.fitting(slot, tight=False)) for slot in slots]
    rows = list(range(len(matching.rows))) + [-1] * len(slots)
    tried = {order[: len(slots)] for order in permutations(rows, min(len(rows), len(slots)))}
    return max((sum(row in fit for row, fit in zip(order, fits, strict=False)) for order in tried), default=0)


@given(CALLS.filter(lambda calls: len(calls) <= 3), REQUESTS.filter(lambda rows: len(rows) <= 4), COUNTS, st.booleans())
def test_as_many_slots_of_the_first_ranks_are_filled_as_possible(
    calls: list[tuple[int, int, int, bool]],
    requests: list[tuple[int, int]],
    counts: list[tuple[int, int | None]],
    reported: bool,
) -> None:
    rows = [request(f"row {number}", when + 0.5, size) for number, (when, size) in enumerate(requests)]
    matching = matching_of(calls_from(calls, reported=reported), rows, counts)
    slots = list(matching.slots())
    for rank in Rank:
        upto = [slot for slot in slots if slot.rank <= rank]
        if len(upto) > 4:
            break
        assert sum(slot in matching.row_of for slot in upto) == most(matching, upto), rank


@given(CALLS, REQUESTS, COUNTS, st.booleans())
def test_each_request_and_each_slot_is_in_at_most_one_pair(
    calls: list[tuple[int, int, int, bool]],
    requests: list[tuple[int, int]],
    counts: list[tuple[int, int | None]],
    reported: bool,
) -> None:
    rows = [request(f"row {number}", when + 0.5, size) for number, (when, size) in enumerate(requests)]
    matching = matching_of(calls_from(calls, reported=reported), rows, counts)
    assert {index: slot for slot, index in matching.row_of.items()} == matching.slot_of
    for slot, index in matching.row_of.items():
        assert index in set(matching.fitting(slot, tight=False))
    assert {*matching.free_rows, *matching.slot_of} == set(range(len(rows)))


def test_an_exchange_reaches_through_several_calls() -> None:
    """Three estimated calls: pairing the nearest requests leaves the last without one, unless two are exchanged."""
    usages = [TokenUsage(input_tokens=size, output_tokens=10, basis=UsageBasis.ESTIMATED) for size in (100, 100, 100)]
    calls = [
        call(1, 0, 3, entered=100, usage=usages[0]),
        call(2, 2, 3, entered=100, usage=usages[1]),
        call(3, 4, 3, entered=100, usage=usages[2]),
    ]
    rows = [request("row 1", 1, 140), request("row 2", 2.5, 100), request("row 3", 4.5, 100)]
    assert matching_of(calls, rows).free_rows == []
