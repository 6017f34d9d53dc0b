"""The chaos test in short: every process is killed under load, and nothing is lost, doubled or paid without a name.

`make chaos` is the long form, and measures what a worker without the journal pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.chaos import arm, plan
from lab.chaos.arm import Work, postgres_options
from lab.chaos.evidence import Evidence, Row
from lab.chaos.load import make_tickets
from lab.chaos.plan import Outage, Pace
from lab.chaos.tokens import Excess
from lab.chaos.verdict import judge
from tests.live import make_stack

pytestmark = pytest.mark.runtime

# Of this seed: sandbox, sidecar and worker die, then the scheduler, and, while it is away, the sidecar and placement.
SEED = 76
TICKETS = make_tickets(SEED, 60)
PLAN = plan.outages(SEED, 1, Pace(between=(3.5, 6.0), down=(0.0, 1.0)))
LOAD_SECONDS = PLAN[-1].at
LATENCY_SECONDS = 0.7
# Of two workers with a sidecar each, one at a time stands still, or dies.
TWIN_PLAN = (
    Outage(2.0, ("daprd",), 4.0, frozen=True),
    Outage(7.0, ("worker-2",), 3.0, frozen=True),
    Outage(11.0, ("daprd-2",), 0.5),
    Outage(13.0, ("worker",), 0.5),
)


def worked(folder: Path, work: Work, **made: Any) -> Evidence:
    """One run on a stack of its own; what it says of itself is shown when the test fails."""
    return arm.run(make_stack(folder, latency_seconds=LATENCY_SECONDS, **made), work, print)


@pytest.fixture(scope="module")
def clean_bill(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Row]:
    """What the tickets cost when nothing fails; a run in which nothing must be found either."""
    found = worked(tmp_path_factory.mktemp("clean"), Work(TICKETS, load_seconds=8, settle_seconds=60))
    verdict = judge(found, found.bill)
    assert verdict.held, verdict.broken
    assert (dict(verdict.tokens.excess), verdict.repeated) == ({}, 0)
    return found.bill


@pytest.mark.timeout(900)
def test_whatever_is_killed_nothing_is_lost_doubled_or_paid_without_a_name(
    tmp_path: Path, clean_bill: Sequence[Row]
) -> None:
    found = worked(tmp_path, Work(TICKETS, LOAD_SECONDS, PLAN, settle_seconds=150))
    verdict = judge(found, clean_bill)
    assert verdict.held, verdict.broken
    assert verdict.killed == plan.count_kills(PLAN)
    assert min(verdict.killed.values()) >= 1
    spent = verdict.tokens
    print(f"killed {dict(verdict.killed)}, {verdict.repeated} executions repeated, excess {dict(spent.excess)}")
    assert spent.excess_requests[Excess.INTERRUPTED] + spent.excess_requests[Excess.FAILED] > 0, "nothing was at stake"
    assert verdict.repeated > 0
    assert verdict.resume_times


@pytest.mark.timeout(900)
def test_of_two_workers_with_a_sidecar_each_any_may_die_or_stand_still(
    tmp_path: Path, clean_bill: Sequence[Row]
) -> None:
    with postgres_options() as stack_options:
        found = worked(tmp_path, Work(TICKETS, TWIN_PLAN[-1].at, TWIN_PLAN, settle_seconds=240), **stack_options)
    verdict = judge(found, clean_bill)
    assert verdict.held, verdict.broken
    assert verdict.frozen == plan.count_freezes(TWIN_PLAN)
    assert {name: count for name, count in verdict.killed.items() if count} == {"daprd-2": 1, "worker": 1}
    print(f"{verdict.repeated} executions repeated, excess {dict(verdict.tokens.excess)}")
    assert len({each.worker for each in found.executions}) >= 3, "both workers and the new one had a part in it"
