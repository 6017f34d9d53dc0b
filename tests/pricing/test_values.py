"""The values of the cost record: what they make of what they are given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.pricing.charge_types import Origin

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def origin(at: datetime) -> Origin:
    """Some task's, at that time."""
    return Origin(task_id="acme:T-1", tenant="acme", agent="agent", workflow="refund_ticket", at=at)


def test_a_cost_arises_at_a_time_in_utc_wherever_its_clock_stands() -> None:
    abroad = origin(NOON.astimezone(timezone(timedelta(hours=13))))
    assert abroad.at.tzinfo is UTC
    assert abroad.at.date() == NOON.date()
    assert origin(NOON).at is NOON


def test_a_time_without_a_zone_names_no_instant() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        origin(NOON.replace(tzinfo=None))
