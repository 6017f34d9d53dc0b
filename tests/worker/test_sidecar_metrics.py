"""Parsing metrics pages, and the changes between two readings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.worker import sidecar_metrics
from app.worker.sidecar_metrics import Gap, Reading, Repeated

BORN = datetime(2026, 5, 4, 11, tzinfo=UTC)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
LABELS = 'app_id="agent",flow_direction="outbound",name="systems",namespace="default"'
PAGE = f"""# HELP dapr_resiliency_activations_total Number of times a policy has been activated.
# TYPE dapr_resiliency_activations_total counter
dapr_resiliency_activations_total{{{LABELS},policy="retry",status="",target="Conversation_llm"}} 4
dapr_resiliency_activations_total{{{LABELS},policy="timeout",status="",target="Conversation_llm"}} 50
dapr_resiliency_activations_total{{{LABELS},policy="circuitbreaker",status="open",target="Conversation_llm"}} 60
dapr_resiliency_activations_total{{{LABELS},policy="retry",status="",target="app_accounts"}} 70
dapr_resiliency_activations_total{{app_id="agent",name="old",policy="retry",target="Conversation_llm"}} 1
dapr_resiliency_activations_total{{{LABELS},policy="retry",status="",target="Conversation_other_one"}} 2
dapr_resiliency_count{{{LABELS},policy="retry",status="",target="Conversation_llm"}} 80
process_start_time_seconds 1.79534090856e+09
"""


def reading(seconds: float, born: float | None = 0, **retried: int) -> Reading:
    """A reading `seconds` after noon of a daprd that started `born` seconds after eleven."""
    started = None if born is None else BORN.timestamp() + born
    return Reading(NOON + timedelta(seconds=seconds), started, retried)


def test_a_page_has_the_repeated_calls_of_each_component() -> None:
    assert sidecar_metrics.parse(PAGE, NOON) == Reading(NOON, 1795340908.56, {"llm": 5, "other_one": 2})


def test_a_page_without_repeats() -> None:
    assert sidecar_metrics.parse("# TYPE go_threads gauge\ngo_threads 7\n", NOON) == Reading(NOON, None, {})


def test_an_invalid_page_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        sidecar_metrics.parse("dapr_resiliency_activations_total{<html> what", NOON)


def test_repeats_are_the_difference_of_two_readings() -> None:
    earlier, later = reading(0, llm=3, quiet=2), reading(2, llm=5, quiet=2, fresh=1)
    assert sidecar_metrics.changes_between(earlier, later) == [
        Repeated("fresh", earlier.at, later.at, 1),
        Repeated("llm", earlier.at, later.at, 2),
    ]


@pytest.mark.parametrize("born", [None, 0])
def test_a_counter_that_went_down_is_another_daprd(born: float | None) -> None:
    changes = sidecar_metrics.changes_between(reading(0, born, llm=3), reading(2, born, llm=1))
    assert [type(change) for change in changes] == [Gap, Repeated]


def test_a_restarted_daprd_counts_from_zero_and_its_last_counts_are_lost() -> None:
    earlier, later = reading(0, llm=1), reading(9, 3605, llm=4)
    expected: list[Gap | Repeated] = [Gap(earlier.at, later.at), Repeated("llm", earlier.at, later.at, 4)]
    assert sidecar_metrics.changes_between(earlier, later) == expected


def test_a_boot_time_that_moves_is_no_restart() -> None:
    assert sidecar_metrics.changes_between(reading(0, 0.0, llm=1), reading(2, 1.0, llm=1)) == []


def test_counts_before_the_first_reading_belong_to_earlier_workers() -> None:
    unwritten = BORN - timedelta(seconds=6)
    assert sidecar_metrics.gaps_at_start(reading(0)) == [Gap(unwritten, BORN, predecessors=True)]
    assert sidecar_metrics.gaps_at_start(reading(0, llm=2)) == [Gap(unwritten, NOON, predecessors=True)]
