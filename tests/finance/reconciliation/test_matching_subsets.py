"""Subsets whose sum comes nearest to a wanted one, held against trying them all."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from app.finance.reconciliation.by_sum import good_subsets, nearest_subset

SIZES = st.lists(st.integers(0, 300), max_size=8)


@given(SIZES, st.data())
def test_the_nearest_sum_is_found(sizes: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(sizes)))
    wanted = data.draw(st.integers(-50, 1500))
    found = nearest_subset(sizes, number, wanted)
    assert found is not None
    assert len(set(found)) == number
    nearest = min(abs(sum(each) - max(0, wanted)) for each in combinations(sizes, number))
    assert abs(sum(sizes[position] for position in found) - max(0, wanted)) == nearest


def test_earlier_ones_are_preferred() -> None:
    assert nearest_subset([100, 200, 100, 200], 2, 300) == (0, 1)


def test_too_many_are_not_tried() -> None:
    assert nearest_subset(range(1, 2000), 1000, 500_000) is None


@given(SIZES, st.integers(0, 1500))
def test_the_best_sums_come_first(sizes: list[int], wanted: int) -> None:
    ways = good_subsets(sizes, 0, lambda known, size: known + size, lambda known: abs(known - wanted), most=5)
    sums = {sum(each) for number in range(len(sizes) + 1) for each in combinations(sizes, number)}
    assert [abs(known - wanted) for known, _ in ways] == sorted(abs(each - wanted) for each in sums)[:5]
    assert all(sum(chosen) == known for known, chosen in ways)
