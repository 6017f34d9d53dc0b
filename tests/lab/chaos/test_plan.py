"""The plan of outages depends only on the seed, and every process is killed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lab.chaos.plan import TWO_WORKER_VICTIMS, VICTIMS, Pace, count_freezes, count_kills, outages, two_worker_outages
from runtime.stack import NAMES, SECOND

SEEDS = st.integers(0, 10_000)


@given(SEEDS, st.floats(0.1, 400))
def test_the_same_seed_gives_the_same_plan_and_each_process_dies(seed: int, seconds: float) -> None:
    plan = outages(seed, seconds)
    assert plan == outages(seed, seconds)
    assert all(count_kills(plan).values())
    assert set(count_kills(plan)) == set(VICTIMS) < set(NAMES)


@given(SEEDS)
def test_another_seed_gives_another_plan(seed: int) -> None:
    assert outages(seed, 60) != outages(seed + 1, 60)


@given(SEEDS)
def test_outages_keep_their_pace(seed: int) -> None:
    pace = Pace(between=(4.0, 6.0), down=(0.5, 1.0), lease=20.0)
    plan = outages(seed, 300, pace)
    assert all(0.5 <= outage.down <= 1.0 and outage.victims for outage in plan)
    assert 2.0 <= plan[0].at <= 3.0
    for before, after in pairwise(plan):
        gap = round(after.at - before.at, 3)
        assert 3.99 <= gap <= 6.01 or 23.99 <= gap <= 26.01, "longer gaps only after a kill of the scheduler"


def test_worker_and_sidecar_are_killed_most_often_and_some_processes_together() -> None:
    plan = outages(7, 3600)
    counts = count_kills(plan)
    others = max(counts[name] for name in ("scheduler", "placement", "sandbox"))
    assert min(counts["worker"], counts["daprd"]) > 1.5 * others
    assert 0.1 < sum(len(outage.victims) > 1 for outage in plan) / len(plan) < 0.35
    assert max(len(outage.victims) for outage in plan) == 2


def test_some_outages_wait_for_the_lease_of_a_killed_scheduler() -> None:
    plan = outages(7, 3600)
    gaps = [after.at - before.at for before, after in pairwise(plan) if "scheduler" in before.victims]
    assert 0.2 < sum(gap < 20 for gap in gaps) / len(gaps) < 0.8


@given(SEEDS, st.floats(0.1, 400))
def test_with_two_workers_each_process_is_killed_and_frozen_one_at_a_time(seed: int, seconds: float) -> None:
    plan = two_worker_outages(seed, seconds)
    assert plan == two_worker_outages(seed, seconds)
    assert set(count_freezes(plan)) == set(TWO_WORKER_VICTIMS) < {*NAMES, *SECOND}
    assert {name for name, count in count_kills(plan).items() if count} == set(TWO_WORKER_VICTIMS)
    assert count_kills(plan)["scheduler"] == 0
    assert all(len(outage.victims) == 1 for outage in plan)
    assert all(after.at >= before.at + before.down for before, after in pairwise(plan))
