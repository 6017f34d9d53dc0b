"""Formatting: a value other than zero is never shown as zero, and estimates and unknowns are marked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.formatting import (
    clock_time,
    day,
    digits_for,
    duration,
    instant,
    iso,
    minute,
    money,
    percent,
    rounded,
    size,
    tokens,
    tokens_sum,
)
from app.domain.models import UsageBasis

AMOUNTS = st.decimals(-(10**9), 10**9, places=12)
LENGTHS = st.timedeltas(-timedelta(days=400), timedelta(days=40_000))
PARTS = st.lists(st.tuples(st.none() | st.integers(0, 10**12), st.sampled_from(UsageBasis)))
SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
AT = datetime(2026, 11, 30, 23, 59, 59, 999_600, tzinfo=UTC)


def number(text: str) -> Decimal:
    """The number in a formatted text, without the sign of a bound."""
    return Decimal(text.lstrip("<>").replace(",", ""))


@given(AMOUNTS, st.integers(0, 9))
def test_a_number_is_zero_only_when_it_is(amount: Decimal, places: int) -> None:
    shown = rounded(amount, places)
    assert (number(shown) == 0) == (amount == 0)
    assert abs(number(shown) - amount) <= Decimal(1).scaleb(-places)


@given(st.lists(st.tuples(AMOUNTS, st.sampled_from(["EUR", "USD"])), min_size=1), st.booleans())
def test_no_amount_of_a_table_is_shown_as_nothing(amounts: list[tuple[Decimal, str]], exact: bool) -> None:
    digits = digits_for(amounts, exact=exact)
    for amount, currency in amounts:
        shown = digits.show(amount, currency)
        assert (number(shown) == 0) == (amount == 0)
        if exact or not digits.rounded:
            assert number(shown) == amount
    assert bool(list(digits.notes())) == digits.rounded


def test_amounts_of_refunds_have_all_their_digits() -> None:
    assert [money(Decimal(text), "CHF") for text in ("9999.00", "0.1", "1E+3")] == [
        "9,999.00 CHF",
        "0.1 CHF",
        "1,000 CHF",
    ]


@given(PARTS)
def test_tokens_say_how_they_are_known(parts: list[tuple[int | None, UsageBasis]]) -> None:
    known = [(count, basis) for count, basis in parts if count is not None and basis is not UsageBasis.UNREPORTED]
    shown = tokens_sum(parts)
    assert ("?" in shown) == (len(known) < len(parts))
    assert ("~" in shown) == any(count and basis is not UsageBasis.REPORTED for count, basis in known)
    if known or not parts:
        assert number(shown.lstrip("~").removesuffix(" + ?")) == sum(count for count, _ in known)
    else:
        assert shown == "?"


@pytest.mark.parametrize(
    ("count", "known", "text"),
    [
        (1811, UsageBasis.REPORTED, "1,811"),
        (811, UsageBasis.ESTIMATED, "~811"),
        (0, UsageBasis.ESTIMATED, "0"),  # nobody can have worked at it
        (None, UsageBasis.REPORTED, "?"),
        (0, UsageBasis.UNREPORTED, "?"),
    ],
)
def test_one_count(count: int | None, known: UsageBasis, text: str) -> None:
    assert tokens(count, known) == text


@given(st.decimals(0, 1, places=9), st.none() | st.integers(0, 3))
def test_only_nothing_is_no_per_cent_and_only_all_a_hundred(share: Decimal, places: int | None) -> None:
    shown = number(percent(share, places).removesuffix(" %"))
    bound = percent(share, places)[0] in "<>"
    assert (shown == 0) == (share == 0)
    assert bound or (shown == 100) == (share == 1)


@pytest.mark.parametrize(
    ("share", "places", "text"),
    [
        ("0.00004", None, "<0.01 %"),
        ("0.0001", None, "0.01 %"),
        ("0", None, "0.00 %"),
        ("0.036", None, "3.60 %"),
        ("0.5", None, "50.0 %"),
        ("0.9999", None, ">99.9 %"),
        ("1", None, "100.0 %"),
        ("0.001", 0, "<1 %"),
        ("0.999", 0, ">99 %"),
        ("0.036", 1, "3.6 %"),
    ],
)
def test_shares(share: str, places: int | None, text: str) -> None:
    assert percent(Decimal(share), places) == text


@given(LENGTHS)
def test_a_duration_is_cut_and_never_nothing(length: timedelta) -> None:
    """The shown duration is at most the real one, and less than one of its last units shorter."""
    shown = duration(length)
    assert duration(length, estimated=True).lstrip("~") == shown
    seconds = abs(Decimal(length // timedelta(microseconds=1)) / 10**6)
    if shown in ("<1 ms", ">-1 ms"):
        assert 0 < seconds < SECONDS["ms"]
        return
    parts = re.findall(r"([\d.,]+) (ms|s|min|h|d)\b", shown)
    read = sum((number(figure) * SECONDS[unit] for figure, unit in parts), Decimal(0))
    last = SECONDS[parts[-1][1]] / 10 ** len(parts[-1][0].partition(".")[2])
    assert read <= seconds < read + last
    assert (read == 0) == (seconds == 0)
    assert shown.startswith("-") == (length < timedelta(0))


@given(LENGTHS, LENGTHS)
def test_a_longer_duration_is_never_read_as_a_shorter_one(one: timedelta, other: timedelta) -> None:
    first, second = sorted((abs(one), abs(other)))
    assert _read(duration(first)) <= _read(duration(second))


def _read(shown: str) -> Decimal:
    parts = re.findall(r"([\d.,]+) (ms|s|min|h|d)\b", shown.replace("<1 ms", "0.5 ms"))
    return sum((number(figure) * SECONDS[unit] for figure, unit in parts), Decimal(0))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "<1 ms"),
        (-0.0004, ">-1 ms"),
        (0.3121, "312 ms"),
        (0.9999, "999 ms"),
        (5, "5.00 s"),
        (-5, "-5.00 s"),
        (9.999, "9.99 s"),
        (59.999, "59.9 s"),
        (60, "1 min 0 s"),
        (133, "2 min 13 s"),
        (7_980, "2 h 13 min"),
        (30 * 3600, "1 d 6 h"),
        (1_234 * 86_400, "1,234 d 0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text


def test_instants_are_in_utc_and_cut() -> None:
    there = AT.astimezone(timezone(timedelta(hours=5)))
    for at in (AT, there):
        assert (instant(at), minute(at), day(at)) == ("2026-11-30 23:59:59", "2026-11-30 23:59", "2026-11-30")
        assert (clock_time(at), iso(at)) == ("23:59:59.999", "2026-11-30T23:59:59.999Z")
        assert (instant(at.isoformat()), minute(at.isoformat())) == (instant(at), minute(at))
    assert (instant(None), instant("")) == ("", "")


def test_bytes() -> None:
    assert [size(count) for count in (0, 9_999, 12_345)] == ["0 B", "9,999 B", "12.3 kB"]
