"""Queries of the ledger: each report is the sum of the charges, by any dimension; a missing record is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event

from app.dapr.history.parse import parse
from app.domain.errors import TaskNotFound
from app.domain.models import CallState, UsageBasis
from app.finance.rollup import Dimension
from app.ledger.recording.projection import with_usages
from app.ledger.store import database
from app.ledger.store.call_rows import oldest_first
from app.pricing.charge_types import Charge
from app.pricing.formula import effective_charges
from tests.dapr.history.told import Told, at
from tests.ledger.conftest import Databases
from tests.ledger.kit import MODELS, Ledger, between, by_id, sums_of, two_currencies
from tests.ledger.stories import Snapshot, story
from tests.ledger.test_projection import ASKED, call, lost_call, one_step
from tests.records import PROVIDER

TENANTS = ("acme", "lumen", "zeta")
FIRST, LAST = date(2026, 11, 21), date(2026, 11, 28)
days = st.none() | st.dates(FIRST, LAST)
dimensions = st.lists(st.sampled_from(Dimension), unique=True, max_size=5)
tenants = st.none() | st.frozensets(st.sampled_from([*TENANTS, "nobody"]))


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def filled(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Ledger]:
    """Ninety tasks of three tenants on four days, billed by two books, with many corrections."""
    engine = database.connect(databases.migrated(request.param))
    ledger, dice = Ledger(engine), random.Random(7)
    books = two_currencies(1), two_currencies(3)
    stories = [story(seed, f"{TENANTS[seed % 3]}:T-{seed}", MODELS) for seed in range(90)]
    turns = [(dice.randrange(len(told.turns)), dice.choice([-1, len(told.turns) // 2])) for told in stories]
    for number, book in enumerate(books):
        for told, stops in zip(stories, turns, strict=True):
            ledger.keep(
                told.at(
                    sorted(stop % len(told.turns) for stop in stops)[number], timedelta(seconds=dice.randint(0, 4))
                ),
                book,
            )
    yield ledger
    engine.dispose()


@pytest.fixture(scope="module")
def everything(filled: Ledger) -> list[Charge]:
    """All charges of the ledger."""
    return list(filled.records.charges())


def test_there_is_something_to_be_seen(filled: Ledger) -> None:
    """The ledger covers every case; otherwise the following tests would prove nothing."""
    found = list(filled.records.charges())
    assert sum(charge.takes_back for charge in found) > 10
    assert len({charge.at.date() for charge in found}) > 3
    assert {charge.currency for charge in found} == {"USD", "EUR", None}
    assert {charge.usage_basis for charge in found} == {
        UsageBasis.REPORTED,
        UsageBasis.ESTIMATED,
        UsageBasis.UNREPORTED,
    }
    assert len({charge.book_digest for charge in found}) == 2
    assert {charge.outcome for charge in found} == {"", "refunded", "declined", "answered"}


@pytest.mark.parametrize("dimension", Dimension)
def test_a_report_by_any_dimension_is_the_sum_of_the_charges(filled: Ledger, dimension: Dimension) -> None:
    report = filled.records.report([dimension])
    assert report == sums_of(filled.records.charges(), [dimension])
    assert len(report.groups) > (1 if dimension not in (Dimension.AGENT, Dimension.WORKFLOW) else 0)


@given(dimensions, days, days, tenants)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_report_by_anything_of_any_days_and_tenants_is_the_sum_of_those_charges(
    filled: Ledger,
    everything: list[Charge],
    by: list[Dimension],
    since: date | None,
    until: date | None,
    seen: frozenset[str] | None,
) -> None:
    wanted = [charge for charge in between(everything, since, until) if seen is None or charge.tenant in seen]
    assert filled.records.report(by, since, until, seen) == sums_of(wanted, by)


@given(days, days, tenants)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_charges_of_any_days_and_tenants_are_those_of_the_whole(
    filled: Ledger, everything: list[Charge], since: date | None, until: date | None, seen: frozenset[str] | None
) -> None:
    wanted = [charge for charge in between(everything, since, until) if seen is None or charge.tenant in seen]
    assert list(filled.records.charges(since, until, seen)) == wanted


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_tenant_s_report_knows_nothing_of_others(filled: Ledger, tenant: str) -> None:
    report = filled.records.report([Dimension.TENANT, Dimension.TASK], tenants=frozenset({tenant}))
    assert {group.key[0] for group in report.groups} == {tenant}
    assert len(report.groups) == 30
    assert report.total == filled.records.report(tenants=frozenset({tenant})).total
    assert {charge.tenant for charge in filled.records.charges(tenants=frozenset({tenant}))} == {tenant}
    assert {each.tenant for each in filled.records.calls(tenants=frozenset({tenant}))} == {tenant}


def test_nobody_s_report_is_empty(filled: Ledger) -> None:
    assert filled.records.report(tenants=frozenset()).total.charges == 0
    assert list(filled.records.charges(tenants=frozenset())) == []
    assert filled.records.calls(tenants=frozenset()) == ()


def test_days_of_reports_that_follow_each_other_share_nothing_and_leave_nothing_out(filled: Ledger) -> None:
    edges = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    parts = [filled.records.report([], since, until).total for since, until in pairwise(edges)]
    assert sum(part.charges for part in parts) == filled.records.report().total.charges
    assert sum(part.charges > 0 for part in parts) > 3


def test_a_day_begins_at_midnight_in_utc(ledger: Ledger) -> None:
    """A charge exactly at midnight and one a microsecond before belong to different days."""
    midnight = 16 * 3600
    told = Told().turn(1).started(0).scheduled(1, 1, "classify", "k1").turn(midnight).completed(midnight, 1, ASKED)
    calls = call(start=midnight - 1e-6), call(start=midnight, number=2, state=CallState.FAILED)
    ledger.keep(Snapshot(parse("acme:T-1", told.events), calls, at(midnight + 9)))
    next_day = date(2026, 11, 23)
    for since, until, numbers in ((None, next_day, {0, 1}), (next_day, None, {2})):
        found = list(ledger.records.charges(since, until))
        assert {charge.number for charge in found} == numbers
        assert ledger.records.report([], since, until).total.charges == len(found)
        assert ledger.records.report([Dimension.TASK], since, until).total.charges == len(found)
    assert [group.key for group in ledger.records.report([Dimension.DAY]).groups] == [("2026-11-22",), ("2026-11-23",)]


def test_an_empty_ledger_says_nothing(ledger: Ledger) -> None:
    report = ledger.records.report([Dimension.TENANT])
    assert (report.groups, report.total.charges, report.total.money) == ((), 0, ())
    assert (list(ledger.records.charges()), ledger.records.calls()) == ([], ())
    assert ledger.records.models_in_use() == frozenset()
    with pytest.raises(TaskNotFound, match="acme:T-9 has no record"):
        ledger.records.record("acme:T-9")


def test_charges_come_in_the_order_of_tasks_and_steps_each_line_before_its_correction(filled: Ledger) -> None:
    found = list(filled.records.charges())
    tasks = list(dict.fromkeys(charge.task_id for charge in found))
    assert [charge.task_id for charge in found] == [task for task in tasks for each in found if each.task_id == task]
    seen: set[str] = set()
    for charge in found:
        assert charge.correction_of is None or charge.correction_of in seen
        seen.add(charge.id)


def test_two_readers_at_once_see_the_same(filled: Ledger) -> None:
    first, second = filled.records.charges(), filled.records.charges()
    assert all(one == other for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("by", [Dimension.TASK, Dimension.TENANT, None])
def test_a_price_that_comes_while_a_reader_reads_is_found(ledger: Ledger, by: Dimension | None) -> None:
    """A reader that has loaded the prices finds charges whose prices are saved just before its query."""
    ledger.keep(story(1).end, two_currencies(1))
    ledger.records.report()
    elsewhere = create_engine(ledger.engine.url)

    more = [story(2, "acme:T-2").end]

    def save_more(*given: Any) -> None:
        if "charges" in given[2] and more:
            Ledger(elsewhere).keep(more.pop(), two_currencies(3))

    event.listen(ledger.engine, "before_cursor_execute", save_more)
    found = list(ledger.records.charges()) if by is None else ledger.records.report([by]).groups
    elsewhere.dispose()
    assert len({charge.book_digest for charge in ledger.records.charges()}) == 2
    assert len(found) > (1 if by is not Dimension.TENANT else 0)


# Model calls


def test_calls_are_those_of_the_records(filled: Ledger) -> None:
    """The estimates of usage are those that were charged."""
    task_ids = {charge.task_id for charge in filled.records.charges()}
    records = [filled.records.record(task_id) for task_id in sorted(task_ids)]
    assert filled.records.calls() == oldest_first(each for record in records for each in record.calls)


@given(st.integers(0, 80), st.integers(0, 80), tenants)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_guessed_of_a_call_does_not_depend_on_what_is_asked_for(
    filled: Ledger, first: int, last: int, seen: frozenset[str] | None
) -> None:
    since, until = (datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=hours) for hours in (first, last))
    everything = filled.records.calls()
    assert filled.records.calls(since, until, seen) == tuple(
        each for each in everything if since <= each.started_at < until and (seen is None or each.tenant in seen)
    )


def test_a_call_lost_before_midnight_is_guessed_from_the_answer_after_it(ledger: Ledger) -> None:
    midnight = 16 * 3600
    ledger.journal([lost_call(start=midnight - 1), call(start=midnight + 1, number=2)])
    until = datetime(2026, 11, 23, tzinfo=UTC)
    (lost,) = ledger.records.calls(until=until)
    assert (lost.model, lost.usage.input_tokens, lost.usage.output_tokens) == ("sandbox-small", 900, 80)
    assert [each.number for each in ledger.records.calls(since=until)] == [2]


def test_another_task_s_model_is_no_hint(ledger: Ledger) -> None:
    """Nor was it when the task was charged."""
    ledger.journal([call(), lost_call("k2", task_id="acme:T-2", call_id="c2")])
    assert [each.model for each in ledger.records.calls()] == ["sandbox-small", ""]
    assert with_usages([lost_call("k2")])[0].model == ""


def test_models_in_use_are_those_that_answered(ledger: Ledger) -> None:
    ledger.journal([call(), lost_call(number=2), call("k2", model="other", provider="")])
    assert ledger.records.models_in_use() == {(PROVIDER, "sandbox-small"), ("", "other")}
    started_at = max(each.started_at for each in ledger.records.calls())
    assert ledger.records.models_in_use(started_at) != frozenset()
    assert ledger.records.models_in_use(started_at + timedelta(seconds=1)) == frozenset()


def test_usage_that_cannot_be_is_not_believed(ledger: Ledger) -> None:
    ledger.journal([call()])
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE model_calls SET cached_tokens = 901")
    (found,) = ledger.records.calls()
    assert (found.usage.basis, found.usage.input_tokens) == (UsageBasis.UNREPORTED, None)


def test_a_record_shows_corrections_and_what_stands(ledger: Ledger) -> None:
    ledger.keep(Snapshot(parse("acme:T-1", one_step().events), (lost_call(model="sandbox-small"),), at(9)))
    calls = lost_call(model="sandbox-small"), call(number=2)
    record = ledger.keep(Snapshot(parse("acme:T-1", one_step().events), calls, at(9)))
    found = ledger.records.record("acme:T-1")
    assert len(found.charges) == len(record.charges) + 4
    assert by_id(effective_charges(found.charges)) == by_id(record.charges)
