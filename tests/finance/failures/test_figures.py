"""What failures cost: each figure by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from app.dapr.history.causes import Cause
from app.domain.models import AnsweredBy
from app.finance.failures.failure_figures import SpendRole
from app.finance.failures.intervals import Interval, share_of_sum
from app.ledger.store.task_record import FailureKind
from app.pricing.charge_types import CostKind
from tests.finance.failures.figures import cents, part, spent, tokens, value
from tests.finance.failures.tasks import crashed, failed, failure, fleet, step, task
from tests.records import attempt_record


def test_a_crash_in_the_draft_repeats_its_call_and_would_have_repeated_the_first_stage() -> None:
    found = part(*fleet(crashed(3), of=4))
    assert (found.tasks, found.failures, found.crashes.failed, found.crashes.restarts) == (4, 1, 1, 1)
    assert (spent(found.clean), spent(found.wasted)) == (cents("0.016"), cents("0.003"))
    assert found.crashes.rate is not None
    assert found.crashes.rate.value == Decimal("0.25")
    assert found.crashes.progress is not None
    assert found.crashes.progress.mean == Decimal("0.25")  # 1,000 of 4,000 tokens
    replay = found.crashes.prevented[SpendRole.REPLAY]
    assert (spent(replay), int(tokens(replay))) == (cents("0.001"), 1_000)
    assert spent(replay, CostKind.COMPUTE) == cents("0.00004")  # two steps, a second each
    assert spent(replay, CostKind.ORCHESTRATION) == cents("0.000005")  # four writes
    assert [value(share) for share in found.durable] == [("USD", cents("0.003"), Decimal("0.1875"))]
    assert [value(share) for share in found.crashes.repeated] == [("USD", cents("0.004"), Decimal("0.25"))]
    (bound,) = found.crashes.bounds
    assert (bound.at_most, bound.by_progress) == (cents("0.004"), cents("0.001"))
    assert found.every == found.crashes


def test_an_answer_in_the_journal_is_not_asked_again() -> None:
    found = part(*fleet(crashed(3, answered=True), of=4))
    journal = found.crashes.prevented[SpendRole.JOURNAL]
    assert (spent(journal), int(tokens(journal))) == (cents("0.003"), 3_000)
    assert spent(journal, CostKind.COMPUTE) == 0  # the step was not over
    assert spent(found.crashes.prevented[SpendRole.REPLAY]) == cents("0.001")
    assert spent(found.wasted) == 0
    assert [value(share) for share in found.crashes.repeated] == [("USD", cents("0.004"), Decimal("0.25"))]
    assert found.crashes.progress is not None
    assert found.crashes.progress.mean == 1


def test_what_a_worker_asked_after_its_last_sign_of_life_was_asked_before_it_was_gone() -> None:
    told = crashed(3, answered=True)
    early = replace(told, failures=(failure(3, 0.5, 4),))  # the call was begun after one second
    assert spent(part(early).crashes.prevented[SpendRole.JOURNAL]) == cents("0.003")
    never = replace(told, failures=(failure(3, 0.5),))
    assert spent(part(never).crashes.prevented[SpendRole.JOURNAL]) == 0


def test_an_answer_that_its_own_step_brought_was_under_way() -> None:
    steps = tuple(step(number) for number in (1, 2, 3))
    told: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.TOOL_ERROR}
    # A lookup fails 15 seconds after the start of the draft's step, which has asked, and is not over.
    slow = (*steps[:2], step(3, attempts=(attempt_record(20, 30),)))
    beside = task(steps=slow, failures=(failure(2, 25, 26, **told),))
    every = part(beside).every
    assert {role: tokens(group) for role, group in every.prevented.items()} == {
        SpendRole.REPLAY: 1_000,
        SpendRole.JOURNAL: 0,
        SpendRole.UNDER_WAY: 3_000,
    }
    assert every.progress is not None
    assert every.progress.mean == 1


def test_retries_without_progress_are_one_restart_and_none_for_who_retries_in_place() -> None:
    found = part(*fleet(failed(2, times=3), of=2))
    assert (found.failures, found.every.failed, found.every.restarts) == (3, 1, 1)
    assert spent(found.every.prevented[SpendRole.REPLAY]) == cents("0.001")
    assert (found.crashes.failed, found.crashes.restarts, found.crashes.progress) == (0, 0, None)
    assert [value(share) for share in found.crashes.repeated] == [("USD", Decimal(0), Decimal(0))]
    assert [(each.kind, each.cause, each.failures, each.tasks) for each in found.causes] == [
        ("failed", "tool_error", 3, 1)
    ]


def test_retries_with_progress_in_between_are_a_restart_each() -> None:
    told: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.TOOL_ERROR}
    failures = (failure(3, 0.5, 1, **told), failure(3, 4, 5, attempt=2, **told))
    answered = (step(1), step(2), step(3, answered_by=AnsweredBy.JOURNAL))
    every = part(task(steps=answered, failures=failures)).every  # the call was begun after 1 second, in between
    assert every.restarts == 2
    assert spent(every.prevented[SpendRole.REPLAY]) == cents("0.002")
    assert spent(every.prevented[SpendRole.JOURNAL]) == cents("0.003")


def test_a_step_that_kills_its_worker_again_and_again_is_a_restart_each_time() -> None:
    failures = (failure(3, 0.25, 0.5), failure(3, 0.75, 0.9, execution=2), failure(3, 0.95, 1, execution=3))
    crashes = part(task(failures=failures)).crashes
    assert (crashes.failed, crashes.restarts) == (1, 3)
    assert spent(crashes.prevented[SpendRole.REPLAY]) == cents("0.003")


def test_steps_that_one_crash_took_side_by_side_are_one_restart() -> None:
    both = (failure(2, 12, 15), failure(3, 3, 5))  # lost 22 and 23 seconds after the start, resumed after 25
    assert part(task(failures=both)).crashes.restarts == 1
    apart = (failure(2, 12, 12.5), failure(3, 3, 5))
    assert part(task(failures=apart)).crashes.restarts == 2


def test_a_failure_after_which_nothing_was_done_counts_and_repeats_nothing() -> None:
    told: dict[str, Any] = {"kind": FailureKind.FAILED, "cause": Cause.BUG}
    found = part(*fleet(task(failures=(failure(3, 9, **told),)), of=2))
    assert (found.every.failed, found.every.restarts, found.every.progress) == (1, 0, None)
    assert all(tokens(group) == 0 for group in found.every.prevented.values())
    went_on = part(task(failures=(failure(2, 9, **told),)))  # the draft was begun one second later
    assert went_on.every.restarts == 1


def test_nothing_spent_has_no_share_and_nothing_ended_no_rate() -> None:
    tools = part(task(calls=(), failures=(failure(2, 3, 4),)))
    assert (tools.durable, tools.crashes.repeated, tools.crashes.bounds) == ((), (), ())
    assert (tools.crashes.restarts, tools.crashes.unknown) == (1, 1)
    nothing = part()
    assert (nothing.tasks, nothing.crashes.rate, nothing.crashes.progress) == (0, None, None)


def test_what_a_task_that_has_not_ended_cost_is_not_among_it() -> None:
    running = replace(crashed(3), ended_at=None)
    assert part(running, task("acme:T-2")) == part(task("acme:T-2"))


def test_lost_compute_is_told_apart_from_lost_calls() -> None:
    steps = (step(1), step(2), step(3, lost=timedelta(seconds=2)))
    found = part(task(steps=steps, failures=(failure(3, 3, 4),)))
    assert spent(found.wasted, CostKind.COMPUTE) == cents("0.00004")
    assert spent(found.wasted) == 0


def test_intervals_are_those_of_what_each_task_lost() -> None:
    """A thousand tokens again in one task; in another, a thousand again and three thousand in vain."""
    found = part(*fleet(crashed(1, answered=True), crashed(3, "acme:T-2"), of=10))
    assert found.durable[0].share == share_of_sum(Decimal("0.075"), [3], 10)
    assert found.crashes.repeated[0].share == share_of_sum(Decimal("0.125"), [1, 4], 10)


def test_the_bound_takes_the_mean_of_the_progress() -> None:
    three = [crashed(3, "acme:T-1"), crashed(3, "acme:T-2"), crashed(3, "acme:T-3", answered=True)]
    found = part(*fleet(*three, of=6)).crashes
    assert found.progress is not None
    assert (found.progress.mean, found.progress.median) == (Decimal("0.5"), Decimal("0.25"))
    assert (found.bounds[0].at_most, found.bounds[0].by_progress) == (cents("0.012"), cents("0.006"))


def test_the_most_frequent_cause_is_the_first() -> None:
    records = (failed(2, 3, "acme:T-1"), crashed(3, "acme:T-2"), failed(2, 1, "acme:T-3"))
    assert [(each.cause, each.failures, each.tasks) for each in part(*records).causes] == [
        ("tool_error", 4, 2),
        ("worker_gone", 1, 1),
    ]


def test_an_interval_surrounds_its_figure_and_narrows_with_more_failures() -> None:
    def width(tasks: int) -> Decimal:
        records = [crashed(3, f"acme:C-{number}") for number in range(tasks)]
        every = part(*fleet(*records, of=4 * tasks)).every
        for figure in (every.rate, every.repeated[0].share):
            assert isinstance(figure, Interval)
            assert figure.low < figure.value == Decimal("0.25") < figure.high
        assert every.repeated[0].share is not None
        return every.repeated[0].share.high - every.repeated[0].share.low

    assert width(5) > width(20) > width(80) > 0


def test_what_was_prevented_and_what_was_measured_make_the_whole() -> None:
    records = fleet(crashed(3), crashed(1, "acme:T-2", answered=True), failed(2, 2, "acme:T-3"), of=9)
    found = part(*records)
    for runner in (found.crashes, found.every):
        parts_of_it = [spent(found.wasted), *(spent(group) for group in runner.prevented.values())]
        assert sum(parts_of_it) == runner.repeated[0].contracted_cost
    assert (
        found.every.repeated[0].contracted_cost
        > found.crashes.repeated[0].contracted_cost
        > found.durable[0].contracted_cost
        > 0
    )
