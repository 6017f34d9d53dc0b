"""Days and times as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
import typer

from app.cli.opening import day, instant


def test_days_are_written_in_five_ways() -> None:
    today = datetime.now(UTC).date()
    assert day("2026-11-30") == date(2026, 11, 30)
    assert day("2026-11") == date(2026, 11, 1)
    assert today <= day("today") <= datetime.now(UTC).date()
    assert day("Yesterday") in (today - timedelta(days=1), today)
    assert day("7d") in (today - timedelta(days=7), today - timedelta(days=6))


def test_times_are_days_or_moments() -> None:
    assert instant("2026-11") == datetime(2026, 11, 1, tzinfo=UTC)
    for text in ("2026-11-30T12:00", "2026-11-30t12:00:00", "2026-11-30T12:00:00Z"):
        assert instant(text) == datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-13", "2026-02-30", "26-1-1", "d", "-7d", "7 d", "9999999d", "\u0667d", "2026-W01-1"],
)
def test_what_is_no_day_says_what_one_looks_like(text: str) -> None:
    for read in (day, instant):
        with pytest.raises(typer.BadParameter, match=r"2026-11-30, 2026-11 \(its first day\), today, yesterday, or 7d"):
            read(text)
