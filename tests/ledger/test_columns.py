"""Quantities and instants are stored as whole numbers and read back unchanged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Engine, cast, insert, select

from app.ledger.store.tables import WORKERS, quantity, whole
from app.pricing.charge_types import Unit

DECIMALS = {Unit.TOKENS: 0, Unit.WRITES: 0, Unit.SECONDS: 6, Unit.GB_MONTHS: 12, Unit.GB: 12}
units = st.sampled_from(Unit)
# Quantities that fit into eight bytes.
kept = st.integers(-(2**63), 2**63 - 1)


@given(units, kept)
def test_what_is_kept_is_what_is_read(unit: Unit, number: int) -> None:
    assert whole(quantity(number, unit), unit) == number


@given(units, st.data())
def test_what_is_read_is_what_was_kept(unit: Unit, data: st.DataObject) -> None:
    value = data.draw(st.decimals(-(10**6), 10**6, places=DECIMALS[unit]))
    assert quantity(whole(value, unit), unit) == value


@pytest.mark.parametrize(
    ("unit", "value", "number"),
    [
        (Unit.TOKENS, "811", 811),
        (Unit.WRITES, "40", 40),
        (Unit.SECONDS, "1.000001", 1_000_001),
        (Unit.GB_MONTHS, "0.000012", 12_000_000),
        (Unit.GB, "0.000000001", 1_000),
    ],
)
def test_each_unit_has_its_own_scale(unit: Unit, value: str, number: int) -> None:
    assert whole(Decimal(value), unit) == number


@pytest.mark.parametrize("unit", Unit)
def test_a_quantity_that_is_finer_is_an_error_and_never_rounded(unit: Unit) -> None:
    too_fine = Decimal(15).scaleb(-DECIMALS[unit] - 1)
    with pytest.raises(ValueError, match=f"more than {DECIMALS[unit]} decimals"):
        whole(too_fine, unit)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001 - given a zone
def test_an_instant_is_kept_to_the_microsecond(moment: datetime) -> None:
    bound = WORKERS.c.seen_at.type.process_bind_param(moment, None)  # type: ignore[attr-defined]
    assert WORKERS.c.seen_at.type.process_result_value(bound, None) == moment  # type: ignore[attr-defined]


def test_an_instant_is_the_same_number_in_any_database_and_zone(engine: Engine) -> None:
    moment = datetime(2026, 11, 22, 8, 0, 0, 1, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=-7)))
    rows = [{"worker": name, "started_at": at, "seen_at": at} for name, at in (("a", moment), ("b", elsewhere))]
    with engine.begin() as connection:
        connection.execute(insert(WORKERS), rows)
        found = connection.execute(select(WORKERS.c.seen_at)).scalars().all()
        numbers = connection.execute(select(cast(WORKERS.c.seen_at, BigInteger))).scalars().all()
    assert found == [moment, moment]
    assert {int(number) for number in numbers} == {1_795_334_400_000_001}


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        WORKERS.c.seen_at.type.process_bind_param(datetime(2026, 1, 1), None)  # type: ignore[attr-defined]  # noqa: DTZ001
