"""Corrections of charge lines: whatever was charged before, the valid lines are the wanted ones, and no line is ever
changed."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.store.charge_rows import ChargeLine, Key, corrected, line_of
from app.pricing.charge_types import Meter, Quantity, Work
from app.pricing.formula import charge_work
from tests.dapr.history.told import T0
from tests.pricing.makers import origin
from tests.records import price_book

INPUT = Key(1, 1, 1, "input", False)
OUTPUT = Key(1, 1, 1, "output", False)


def line(key: Key = INPUT, consumed_quantity: int | None = 100, **changes: Any) -> ChargeLine:
    """A hundred tokens that a provider reported, at price 1."""
    known = "unreported" if consumed_quantity is None else "reported"
    return ChargeLine(key, 0, 1, consumed_quantity, known, T0, "model-a")._replace(**changes)


def added(old: list[ChargeLine], *wanted: ChargeLine) -> list[tuple[int, int, int | None]]:
    """The added lines: correction, price, quantity."""
    return [(each.correction, each.price_no, each.consumed_quantity) for each in corrected(old, wanted)]


def test_what_is_new_is_booked() -> None:
    assert list(corrected([], [line(), line(OUTPUT, 5)])) == [line(), line(OUTPUT, 5)]


def test_what_is_there_is_not_booked_again() -> None:
    assert added([line(), line(OUTPUT)], line(OUTPUT), line()) == []


def test_another_quantity_takes_the_old_one_back_and_books_anew() -> None:
    assert added([line()], line(consumed_quantity=90, price_no=2)) == [(1, 1, -100), (2, 2, 90)]


def test_a_correction_is_corrected_in_its_turn() -> None:
    old = [line(), line(consumed_quantity=-100, correction=1), line(consumed_quantity=90, correction=2, price_no=2)]
    assert added(old, line(consumed_quantity=80, price_no=3)) == [(3, 2, -90), (4, 3, 80)]
    assert added(list(reversed(old)), line(consumed_quantity=90)) == [], "the order of the rows says nothing"


def test_a_quantity_that_is_known_otherwise_is_another_one() -> None:
    assert added([line()], line(usage_basis="estimated")) == [(1, 1, -100), (2, 1, 100)]


def test_what_is_not_known_is_taken_back_without_a_quantity() -> None:
    assert added([line(consumed_quantity=None)], line(consumed_quantity=7)) == [(1, 1, None), (2, 1, 7)]


def test_a_line_that_is_not_wanted_is_taken_back_and_may_come_again() -> None:
    assert added([line()]) == [(1, 1, -100)]
    gone = [line(), line(consumed_quantity=-100, correction=1)]
    assert added(gone) == []
    assert added(gone, line(price_no=2)) == [(2, 2, 100)], "at the price of the day"


def test_what_stands_keeps_the_price_it_was_billed_at() -> None:
    assert added([line(price_no=1)], line(price_no=2)) == []


def test_a_call_that_turns_out_to_have_been_another_model_s_is_booked_at_that_model_s_price() -> None:
    assert added([line(model="")], line(price_no=2)) == [(1, 1, -100), (2, 2, 100)]


def test_another_time_alone_changes_nothing() -> None:
    assert added([line()], line(at=T0 + timedelta(days=1))) == []


def test_a_line_that_takes_back_counts_against_the_one_before() -> None:
    assert [line(correction=number).times for number in range(4)] == [1, -1, 1, -1]


@pytest.mark.parametrize(("bytes_kept", "kept"), [(1, 1_000), (12_345, 12_345_000)])
def test_a_charge_becomes_a_line_under_its_task_s_step(bytes_kept: int, kept: int) -> None:
    (charge,) = charge_work(price_book(), Work(retained_bytes=Quantity(Decimal(bytes_kept))), origin(turn=2, number=3))
    made = line_of(charge, 4, 5)
    assert made == ChargeLine(Key(4, 2, 3, "retained_bytes", False), 0, 5, kept, "reported", charge.at, "")
    assert made.row(9) == {
        "task_no": 9,
        "step": 4,
        "turn": 2,
        "number": 3,
        "meter": Meter.RETAINED_BYTES,
        "wasted": False,
        "correction": 0,
        "price_no": 5,
        "consumed_quantity": kept,
        "usage_basis": "reported",
        "at": charge.at,
    }


keys = st.builds(
    Key, st.integers(0, 2), st.integers(0, 1), st.just(1), st.sampled_from(["input", "output"]), st.booleans()
)
states = st.dictionaries(
    keys,
    st.builds(
        ChargeLine,
        st.just(INPUT),
        st.just(0),
        st.integers(1, 3),
        st.none() | st.integers(0, 3),
        st.sampled_from(["reported", "estimated"]),
        st.just(T0),
        st.sampled_from(["", "model-a"]),
    ),
).map(lambda found: [made._replace(key=key) for key, made in found.items()])


@given(st.lists(states, max_size=6))
def test_whatever_was_wanted_before_what_stands_is_wanted_now(history: list[list[ChargeLine]]) -> None:
    """The sums over all lines are those of the last state: by line, and by usage basis and model."""
    book: list[ChargeLine] = []
    for wanted in history:
        new = list(corrected(book, wanted))
        assert not {(each.key, each.correction) for each in new} & {(each.key, each.correction) for each in book}
        book += new
        assert list(corrected(book, wanted)) == []
        assert _sums(book) == _sums(wanted)
        assert sorted(map(_thing, _standing(book)), key=str) == sorted(map(_thing, wanted), key=str)


def _thing(line: ChargeLine) -> tuple[Key, int | None, str, str]:
    return line.key, line.consumed_quantity, line.usage_basis, line.model


def _sums(lines: list[ChargeLine]) -> dict[tuple[Key, str, str], tuple[int, int]]:
    found: dict[tuple[Key, str, str], tuple[int, int]] = {}
    for each in lines:
        key = each.key, each.usage_basis, each.model
        quantity, times = found.get(key, (0, 0))
        found[key] = quantity + (each.consumed_quantity or 0), times + each.times
    return {key: sums for key, sums in found.items() if sums != (0, 0)}


def _standing(book: list[ChargeLine]) -> list[ChargeLine]:
    last = {key: max(each.correction for each in book if each.key == key) for key in {each.key for each in book}}
    return [each for each in book if each.correction == last[each.key] and each.times > 0]


@given(st.lists(states, min_size=1, max_size=6))
def test_a_price_is_kept_as_long_as_its_line_stands_unchanged(history: list[list[ChargeLine]]) -> None:
    """A valid line has the price of the state in which its quantity, usage basis or model last changed."""
    book: list[ChargeLine] = []
    billed: dict[Key, ChargeLine] = {}
    for wanted in history:
        book += corrected(book, wanted)
        billed = {
            each.key: billed[each.key] if each.key in billed and _thing(billed[each.key]) == _thing(each) else each
            for each in wanted
        }
    assert {each.key: each.price_no for each in _standing(book)} == {key: each.price_no for key, each in billed.items()}
