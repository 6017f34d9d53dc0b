"""The values of the cost record: conversions and checks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.pricing.charge_types import Origin

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def origin(at: datetime) -> Origin:
    """The origin of a cost at this time."""
    return Origin(task_id="acme:T-1", tenant="acme", agent="agent", workflow="refund_ticket", at=at)


def test_a_cost_has_a_time_in_utc() -> None:
    abroad = origin(NOON.astimezone(timezone(timedelta(hours=13))))
    assert abroad.at.tzinfo is UTC
    assert abroad.at.date() == NOON.date()
    assert origin(NOON).at is NOON


def test_a_time_without_a_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        origin(NOON.replace(tzinfo=None))
