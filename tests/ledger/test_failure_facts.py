"""The facts of the failure cost, read from ledgers, equal those that plain loops over whole records find, for any
period."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event

from app.finance.failures.failure_figures import PREVENTED, Facts, FailureScope, SpendRole, failure_costs, model_money
from app.finance.rollup import Dimension, Group
from app.ledger.store.tables import METADATA, PRICES
from app.ledger.store.task_record import AttemptRecord, TaskRecord
from app.pricing.charge_types import NOT_REPORTED
from tests.finance.failures.crashes import TENANTS, records_of, tales
from tests.finance.failures.plain import facts_of
from tests.finance.failures.tasks import call, crashed, failure, own_charges, task
from tests.ledger.kit import Ledger

BYS: tuple[tuple[Dimension, ...], ...] = (
    (),
    (Dimension.TENANT,),
    (Dimension.STAGE,),
    (Dimension.TENANT, Dimension.STAGE),
)
FIRST = date(2026, 11, 22)  # of the stories
DAYS = (None, *(FIRST + timedelta(days=number) for number in range(5)))
PERIODS = [(since, until) for since, until in product(DAYS, DAYS) if not since or not until or since < until]


def filled(ledger: Ledger, seed: int, count: int = 12) -> list[TaskRecord]:
    """A ledger with random tasks, some recorded more than once, and the records as read from it."""
    with ledger.engine.begin() as connection:
        for table in METADATA.tables.values():
            if table is not PRICES:
                connection.execute(delete(table))
    dice = random.Random(seed)
    found = tales(seed, count)
    for told in found:
        for record in records_of(told, dice):
            ledger.save(record)
    return [ledger.records.record(told.task_id) for told in found]


def every(facts: Facts) -> list[tuple[FailureScope, ...]]:
    """All figures of these records."""
    return [failure_costs(facts, by) for by in BYS]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.sampled_from(PERIODS), st.sampled_from([None, *TENANTS]))
def test_the_ledger_tells_what_the_records_do(
    ledger: Ledger, seed: int, period: tuple[date | None, date | None], tenant: str | None
) -> None:
    records = filled(ledger, seed)
    tenants = frozenset({tenant}) if tenant else None
    assert every(ledger.records.failures(*period, tenants)) == every(facts_of(records, *period, tenants))


def test_the_random_ledgers_have_something_of_everything(ledger: Ledger) -> None:
    """The random tasks cover every case; otherwise the comparison would prove little."""
    facts = [facts_of(filled(ledger, seed)) for seed in range(24)]
    failures = [failure for each in facts for failure in each.failures]
    restarts = {(failure.crash, failure.restarts) for failure in failures}
    assert restarts == {(True, True), (True, False), (False, True), (False, False)}
    assert {len(failure.spent) for failure in failures} >= {0, 1}
    assert {failure.progress is None for failure in failures if failure.restarts} == {True, False}
    assert any(0 < spent.before < spent.clean for failure in failures for spent in failure.spent)
    sums = [sum_ for each in facts for sum_ in each.sums]
    here = {(sum_.role, sum_.crash) for sum_ in sums}
    # Few fail during a running model call; `tests/finance/failures/test_figures.py` has one.
    assert set(product(PREVENTED, (True, False))) - here <= {(SpendRole.UNDER_WAY, False)}
    assert {sum_.charge.currency for sum_ in sums} == {"USD", "EUR", None}
    assert any(each.wasted_spend for each in facts)


def test_tasks_at_the_periods_edges_are_counted_with_all_that_they_were_charged(ledger: Ledger) -> None:
    """On each day, one task ends that was charged on the day before; one task does not end."""
    day = timedelta(days=1)
    for number in range(3):
        ledger.save(moved(crashed(3, f"acme:T-{number}"), number * day, ends_after=day))
    ledger.save(replace(crashed(3, "acme:T-9"), ended_at=None))
    whole, second = ledger.records.failures(), ledger.records.failures(FIRST + 2 * day, FIRST + 3 * day)
    assert (whole.ended, second.ended) == ({"acme": 3}, {"acme": 1})
    (all_of_it,), (one,) = failure_costs(whole), failure_costs(second)
    assert [spend(all_of_it.clean), spend(one.clean)] == [Decimal("0.012"), Decimal("0.004")]
    assert (one.wasted.money[0].contracted_cost, one.crashes.restarts) == (Decimal("0.003"), 1)


def test_a_task_that_ended_at_midnight_ended_on_the_day_that_began(ledger: Ledger) -> None:
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    ledger.save(replace(crashed(3), ended_at=midnight))
    ledger.save(replace(crashed(3, "acme:T-2"), ended_at=midnight - timedelta(microseconds=1)))
    before, after = ledger.records.failures(FIRST, midnight.date()), ledger.records.failures(midnight.date())
    for facts in (before, after):
        (part,) = failure_costs(facts)
        assert (part.tasks, part.failures, spend(part.clean)) == (1, 1, Decimal("0.004"))


def test_what_the_workflow_itself_is_charged_at_its_end_is_no_work_after_a_failure(ledger: Ledger) -> None:
    gave_up = task(failures=(failure(3, 9),))
    ledger.save(replace(gave_up, charges=(*gave_up.charges, *own_charges(gave_up))))
    went_on = task("acme:T-2", failures=(failure(2, 9),))
    ledger.save(replace(went_on, charges=(*went_on.charges, *own_charges(went_on))))
    assert sorted((each.stage, each.restarts) for each in ledger.records.failures().failures) == [
        ("draft_refund", False),
        ("retrieve_account", True),
    ]


def test_progress_is_not_known_where_a_price_or_a_usage_is_not_or_currencies_mix(ledger: Ledger) -> None:
    unreported = NOT_REPORTED
    odd: tuple[dict[str, Any], ...] = ({}, {"model": "new"}, {"model": "model-e"}, {"usage": unreported})
    records = [
        task(f"acme:T-{number}", calls=(call(1), call(3, **changes)), failures=(failure(2, 3, 4),))
        for number, changes in enumerate(odd)
    ]
    ledger.save(*records)
    found = ledger.records.failures()
    assert [failure.progress for failure in found.failures] == [Decimal("0.25"), None, None, None]
    assert [len(failure.spent) for failure in found.failures] == [1, 1, 2, 1]
    assert every(found) == every(facts_of(records))


def spend(group: Group) -> Decimal:
    """The spend on model calls, in dollars."""
    return model_money(group)["USD"]


def moved(record: TaskRecord, by: timedelta, ends_after: timedelta) -> TaskRecord:
    """The same task, shifted by that time; it ends a while after its last charge."""
    steps = tuple(
        replace(step, attempts=tuple(moved_attempt(attempt, by) for attempt in step.attempts)) for step in record.steps
    )
    return replace(
        record,
        started_at=record.started_at + by,
        ended_at=record.started_at + by + ends_after,
        steps=steps,
        failures=tuple(replace(f, at=f.at + by, resumed_at=later(f.resumed_at, by)) for f in record.failures),
        charges=tuple(replace(charge, at=charge.at + by) for charge in record.charges),
    )


def moved_attempt(attempt: AttemptRecord, by: timedelta) -> AttemptRecord:
    """The same attempt, shifted by that time."""
    return replace(attempt, scheduled_at=attempt.scheduled_at + by, ended_at=later(attempt.ended_at, by))


def later(at: datetime | None, by: timedelta) -> datetime | None:
    """A time shifted by that much."""
    return None if at is None else at + by


def test_what_is_written_meanwhile_is_not_seen(ledger: Ledger) -> None:
    """All queries see the same state, although another task is recorded after the first query."""
    ledger.save(crashed(3))
    asked: list[str] = []

    def write_once(*_: object) -> None:
        asked.append("")
        if len(asked) == 3:
            Ledger(ledger.engine).save(crashed(3, "acme:T-2"))

    event.listen(ledger.engine, "after_cursor_execute", write_once)
    try:
        found = ledger.records.failures()
    finally:
        event.remove(ledger.engine, "after_cursor_execute", write_once)
    assert found.ended == {"acme": 1}
    assert len(found.failures) == 1
    assert failure_costs(found) == failure_costs(facts_of([crashed(3)]))
    assert ledger.records.failures().ended == {"acme": 2}


def test_a_ledger_without_tasks_tells_nothing(ledger: Ledger) -> None:
    assert ledger.records.failures() == Facts(ended={}, failures=(), wasted_spend=(), sums=())
