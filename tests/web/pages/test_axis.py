"""The time axis: long pauses are shortened, everything else is to scale."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.formatting import elapsed
from app.web.pages.timeline import Axis, make_axis
from tests.records import START, at

DAY = 86_400


def widths(axis: Axis) -> tuple[float, float]:
    """The width of the parts drawn to scale, and that of the breaks."""
    drawn = [piece.right - piece.left for piece in axis.pieces if not piece.shortened]
    return sum(drawn), sum(piece.right - piece.left for piece in axis.breaks)


def make(end: float, *pauses: tuple[float, float]) -> Axis:
    return make_axis(START, at(end), [(at(first), at(last)) for first, last in pauses])


def test_without_pauses_the_axis_is_to_scale() -> None:
    axis = make(10)
    assert [axis.x(at(seconds)) for seconds in (-5, 0, 2.5, 10, 12)] == [0, 0, 25, 100, 100]
    assert not axis.breaks


def test_a_short_pause_stays_to_scale() -> None:
    axis = make(10, (4, 7))
    assert (axis.x(at(4)), axis.x(at(7))) == (40, 70)


def test_a_long_pause_is_shortened_and_the_work_keeps_its_room() -> None:
    axis = make(3 * DAY + 10, (8, 3 * DAY + 8))
    assert widths(axis) == pytest.approx((94, 6))
    assert axis.x(at(4)) == pytest.approx(94 * 0.4)
    assert axis.x(at(8)) == pytest.approx(94 * 0.8)
    assert axis.x(at(3 * DAY + 8)) == pytest.approx(94 * 0.8 + 6)


def test_the_second_longest_pause_is_measured_against_what_is_left() -> None:
    axis = make(3 * DAY + 3610, (2, 3 * DAY), (3 * DAY + 5, 3 * DAY + 3605))
    assert len(axis.breaks) == 2
    shorter, longer = sorted(piece.right - piece.left for piece in axis.breaks)
    assert shorter == pytest.approx(6)
    assert 8 < longer < 11, "days against an hour"


def test_a_pause_of_more_than_a_third_of_what_is_drawn_is_shortened() -> None:
    assert len(make(10, (3, 6.3)).breaks) == 0
    assert len(make(10, (3, 7)).breaks) == 1
    assert len(make(1011, (1, 1001), (1003, 1008)).breaks) == 2


def test_many_pauses_that_are_long_only_together_are_shortened_too() -> None:
    axis = make(310, *((number * 30 + 1, number * 30 + 30) for number in range(10)))
    assert widths(axis)[0] >= 50


def test_a_task_that_only_waited_is_one_break() -> None:
    assert widths(make(60, (0, 60))) == (0, 100)


def test_a_task_without_any_length_has_an_axis() -> None:
    axis = make(0)
    assert 0 <= axis.x(START) <= 100
    assert axis.ticks() == ()


_lengths = st.lists(st.tuples(st.booleans(), st.one_of(st.floats(0, 2), st.floats(0, 1e6))), min_size=1, max_size=12)


def end_and_pauses(lengths: list[tuple[bool, float]]) -> tuple[datetime, list[tuple[datetime, datetime]]]:
    """The end and the pauses of a task with these periods: (is a pause, seconds)."""
    now, pauses = START, []
    for is_pause, seconds in lengths:
        start, now = now, now + timedelta(seconds=seconds)
        if is_pause:
            pauses.append((start, now))
    return now, pauses


@given(_lengths)
def test_any_axis_goes_from_edge_to_edge_and_never_back(lengths: list[tuple[bool, float]]) -> None:
    end, pauses = end_and_pauses(lengths)
    axis = make_axis(START, end, pauses)
    assert axis.pieces[0].left == 0
    assert axis.pieces[-1].right == pytest.approx(100) or end == START
    for piece, following in pairwise(axis.pieces):
        assert (piece.ended_at, piece.right) == (following.started_at, following.left)
    moments = sorted({START, end, *(moment for pause in pauses for moment in pause)})
    places = [axis.x(moment) for moment in moments]
    assert places == sorted(places)


@given(_lengths)
def test_work_has_at_least_a_fifth_of_the_drawing(lengths: list[tuple[bool, float]]) -> None:
    end, pauses = end_and_pauses(lengths)
    rest = sum((last - first for first, last in pauses), timedelta(0))
    if end - START <= rest:
        return
    axis = make_axis(START, end, pauses)
    paused = sum(axis.x(last) - axis.x(first) for first, last in pauses)
    assert 100 - paused >= 100 * (1 - 0.42) / 3 - 1e-6


@given(_lengths)
def test_a_longer_pause_is_never_narrower(lengths: list[tuple[bool, float]]) -> None:
    end, pauses = end_and_pauses(lengths)
    axis = make_axis(START, end, pauses)
    drawn = sorted((last - first, axis.x(last) - axis.x(first)) for first, last in pauses)
    for one, other in pairwise(width for _, width in drawn):
        assert one <= other + 1e-6


def test_four_seconds_are_narrower_than_eight_minutes() -> None:
    axis = make(500, (2, 6), (10, 490))
    assert axis.x(at(6)) - axis.x(at(2)) < axis.x(at(490)) - axis.x(at(10))


@given(_lengths)
def test_labels_of_ticks_never_overlap(lengths: list[tuple[bool, float]]) -> None:
    end, pauses = end_and_pauses(lengths)
    ticks = make_axis(START, end, pauses).ticks()
    for one, other in pairwise(ticks):
        assert one.right <= other.left
    assert len(ticks) <= 20


@pytest.mark.parametrize(
    ("since", "step", "text"),
    [
        (0, 1, "0 s"),
        (0.25, 0.05, "0.25 s"),
        (12, 2, "12 s"),
        (65, 5, "1:05"),
        (65.5, 0.5, "1:05.5"),
        (3600, 600, "1:00:00"),
        (2 * DAY + 3661, 1, "2 d 1:01:01"),
    ],
)
def test_times_since_the_start(since: float, step: float, text: str) -> None:
    assert elapsed(timedelta(seconds=since), timedelta(seconds=step)) == text
