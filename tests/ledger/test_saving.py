"""Saving records: they are read back unchanged, saving twice changes nothing, and the daily sums equal the charges."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from app.dapr.history.parse import parse
from app.domain.models import CallState, TaskStatus
from app.domain.money import ZERO
from app.finance.rollup import Dimension, Group
from app.ledger.recording.projection import Naming
from app.ledger.store import database
from app.ledger.store.task_record import TaskRecord
from app.pricing.formula import effective_charges
from app.workflow.activities import STAGE_OF
from tests.dapr.history.told import Told, at
from tests.ledger.conftest import Databases
from tests.ledger.kit import MODELS, Ledger, by_id, projected, sums_of, two_currencies
from tests.ledger.stories import Snapshot, Story, story
from tests.ledger.test_projection import ASKED, call, lost_call, one_step
from tests.live import until

HALF_A_MINUTE = 30
seeds = st.integers(0, 10**6)


def snapshot(told: Told, *calls: object, later: float = 1000) -> Snapshot:
    """The snapshot of a hand-made history."""
    return Snapshot(parse("acme:T-1", told.events), calls, at(later))  # type: ignore[arg-type]


def story_with(wanted: Callable[[TaskRecord], bool], task_id: str = "acme:T-1") -> tuple[Story, int]:
    """The first story with a turn whose record has the wanted property, and that turn."""
    for seed in range(500):
        told = story(seed, task_id, MODELS)
        for turn in range(len(told.turns) - 1):
            if wanted(projected(told.at(turn))) and projected(told.end).outcome is not None:
                return told, turn
    raise AssertionError("no story is like this")


def waits(record: TaskRecord) -> bool:
    """Whether it waits for a person, with a few charges made."""
    return record.status is TaskStatus.WAITING and len(record.charges) > 10


# Saved records are read back unchanged


def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    dice = random.Random(1)
    for seed in range(25):
        told = story(seed, f"acme:T-{seed}", MODELS)
        known = told.at(dice.randrange(len(told.turns)), timedelta(microseconds=1))
        wanted = ledger.keep(known, two_currencies())
        found = ledger.records.record(told.task_id)
        assert by_id(found.charges) == by_id(wanted.charges)
        assert replace(found, charges=()) == replace(wanted, charges=())


def test_amounts_are_exact(ledger: Ledger) -> None:
    told = story(3, models=("model-b",))
    wanted = ledger.keep(told.end, two_currencies())
    found = by_id(ledger.records.record(told.task_id).charges)
    amounts = {key: charge.contracted_cost for key, charge in by_id(wanted.charges).items()}
    assert {key: charge.contracted_cost for key, charge in found.items()} == amounts
    assert any(amount is not None and len(amount.as_tuple().digits) > 6 for amount in amounts.values())


def test_a_text_that_no_database_keeps_stops_no_record(ledger: Ledger) -> None:
    told = Told().turn(1).started(0).scheduled(1, 1, key="k1").turn(3).failed(3, 1, message="a\0b").ended(4)
    ledger.keep(snapshot(told))
    assert ledger.records.record("acme:T-1").steps[0].attempts[0].error == "RuntimeError: a\N{REPLACEMENT CHARACTER}b"


# Saving twice changes nothing


def test_the_same_again_changes_nothing(ledger: Ledger) -> None:
    known = [story(seed, f"acme:T-{seed}", MODELS).end for seed in range(10)]
    ledger.tickets(*(each.run.instance_id for each in known))
    for each in known:
        ledger.keep(each)
    before = ledger.content()
    for each in known:
        ledger.keep(each)
    ledger.save(*(projected(each) for each in known))
    assert ledger.content() == before


def test_a_task_s_end_is_news_once(ledger: Ledger) -> None:
    told, turn = story_with(waits)
    assert ledger.save(projected(told.at(turn))) == frozenset()
    assert ledger.save(projected(told.end)) == {told.task_id}
    assert ledger.save(projected(told.end)) == frozenset()


def test_a_task_is_noted_as_recorded_when_nothing_of_it_can_change(ledger: Ledger) -> None:
    ledger.tickets("acme:T-1", "acme:T-2")
    running = call(number=2, state=CallState.STARTED, ended_at=None)
    ledger.save(projected(snapshot(one_step())))
    ledger.save(projected(snapshot(one_step().ended(5), running)))
    assert ledger.recorded() == set()
    ledger.save(projected(snapshot(one_step().ended(5), call())))
    assert ledger.recorded() == {"acme:T-1"}


def test_no_record_at_all_is_nothing_to_do(ledger: Ledger) -> None:
    assert ledger.save() == frozenset()


# Later knowledge


def test_the_sums_move_to_the_outcome_when_it_is_known(ledger: Ledger) -> None:
    told, turn = story_with(waits)
    ledger.keep(told.at(turn))
    assert [group.key for group in ledger.records.report([Dimension.OUTCOME]).groups] == [("",)]
    wanted = ledger.keep(told.end)
    assert wanted.outcome is not None
    report = ledger.records.report([Dimension.OUTCOME])
    assert report == sums_of(wanted.charges, [Dimension.OUTCOME])
    assert [group.key for group in report.groups] == [(wanted.outcome.value,)]
    ledger.check()


def test_an_estimate_that_was_wrong_is_taken_back_and_booked_anew(ledger: Ledger) -> None:
    ledger.keep(snapshot(one_step(), lost_call(model="sandbox-small")))
    wanted = ledger.keep(snapshot(one_step(), lost_call(model="sandbox-small"), call(number=2)))
    found = ledger.records.record("acme:T-1").charges
    lost = [
        (each.meter.value, each.correction, str(each.consumed_quantity))
        for each in found
        if each.number == 1 and each.wasted
    ]
    assert lost == [
        ("input", 0, "950"),
        ("input", 1, "-950"),
        ("input", 2, "900"),
        ("output", 0, "1000"),
        ("output", 1, "-1000"),
        ("output", 2, "80"),
    ]
    assert sum((each.contracted_cost or ZERO for each in found), ZERO) == sum(
        (each.contracted_cost or ZERO for each in wanted.charges), ZERO
    )
    assert by_id(effective_charges(found)) == by_id(wanted.charges)
    ledger.check()


def test_a_model_that_is_known_later_gives_its_price_to_what_was_unpriced(ledger: Ledger) -> None:
    """A task is parked while the provider does not answer, so the model's name is not known yet."""
    refused = lost_call()
    ledger.keep(snapshot(one_step().waits(3, 2, "resume"), refused))
    assert ledger.records.report().total.unpriced == 2
    wanted = ledger.keep(
        snapshot(one_step().waits(3, 2, "resume").turn(9).raised(9, "resume"), refused, call(number=2))
    )
    assert ledger.records.report().total.unpriced == 0
    assert by_id(ledger.charges_of("acme:T-1")) == by_id(wanted.charges)
    ledger.check()


def test_what_was_billed_keeps_its_price_and_what_is_new_has_today_s(ledger: Ledger) -> None:
    told, turn = story_with(waits)
    before, today = two_currencies(1), two_currencies(3)
    old = by_id(ledger.keep(told.at(turn), before).charges)
    new = by_id(ledger.keep(told.end, today).charges)
    found = by_id(ledger.charges_of(told.task_id))
    assert found.keys() == new.keys()
    same = {
        key
        for key in old
        if (old[key].consumed_quantity, old[key].usage_basis) == (new[key].consumed_quantity, new[key].usage_basis)
    }
    assert {key: charge.contracted_unit_price for key, charge in found.items() if key in same} == {
        key: charge.contracted_unit_price for key, charge in old.items() if key in same
    }
    assert {charge.book_digest for key, charge in found.items() if key not in same} == {today.digest}
    assert any(charge.book_digest == before.digest for charge in found.values())
    ledger.check()


def test_a_step_s_number_may_turn_out_to_be_another_step_s(ledger: Ledger) -> None:
    """The journal had a call before the history had its step; meanwhile two more steps were scheduled."""
    asked = call("k3", stage="draft_refund", start=6)
    told = one_step()
    ledger.keep(snapshot(told, call(), asked))
    told.scheduled(3, 2, "retrieve_account", "k2").turn(5).completed(5, 2, "{}")
    told.scheduled(5, 3, "draft_refund", "k3").turn(8).completed(8, 3, ASKED)
    wanted = ledger.keep(snapshot(told, call(), asked))
    for dimension in Dimension:
        assert ledger.records.report([dimension]) == sums_of(wanted.charges, [dimension])
    ledger.check()


def test_a_stage_that_is_called_otherwise_by_now_takes_its_sums_along(ledger: Ledger) -> None:
    told, turn = story_with(waits)
    ledger.keep(told.at(turn))
    wanted = ledger.keep(told.end, naming=Naming(STAGE_OF | {"classify": "triage"}, "resume"))
    assert ledger.records.report([Dimension.STAGE]) == sums_of(wanted.charges, [Dimension.STAGE])
    ledger.check()


# Records that are older than the saved one


def test_what_is_behind_changes_nothing(ledger: Ledger) -> None:
    """Two workers record a task: the one that read its history before the end saves last."""
    told, turn = story_with(waits)
    ledger.tickets(told.task_id)
    ledger.keep(told.end)
    before = ledger.content()
    assert ledger.save(projected(told.at(turn)), projected(story(1, "acme:T-2").end)) == {"acme:T-2"}
    after = ledger.content()
    assert [row for row in after["tasks"] if row[1] == told.task_id] == list(before["tasks"])
    assert set(before["charges"]) <= set(after["charges"])
    assert by_id(ledger.charges_of(told.task_id)) == by_id(projected(told.end).charges)
    ledger.check()


def test_a_later_run_of_the_same_task_is_not_behind(ledger: Ledger) -> None:
    told, turn = story_with(waits)
    ledger.keep(told.end)
    fresh = replace(projected(told.at(turn)), execution_id="another run")
    ledger.save(fresh)
    assert ledger.records.record(told.task_id).execution_id == "another run"
    ledger.check()


# Random tasks in random states


def exact(groups: Sequence[Group]) -> dict[str, Decimal]:
    """The cost of groups, summed here and not by the product."""
    found: dict[str, Decimal] = {}
    for group in groups:
        for money in group.money:
            found[money.currency] = found.get(money.currency, ZERO) + money.contracted_cost
    return {currency: amount for currency, amount in found.items() if amount}


@given(st.lists(st.tuples(seeds, st.lists(st.integers(0, 30), max_size=3)), min_size=1, max_size=4), st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stages_sum_to_tasks_tasks_to_tenants_tenants_to_the_total(
    ledger: Ledger, tasks: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    """Exactly, for random tasks that are saved in random states and finally in their last one."""
    mark = len(ledger.records.report([Dimension.TENANT]).groups)
    tenants = (f"a{mark}", f"b{mark}")
    saved: dict[str, TaskRecord] = {}
    for number, (seed, stops) in enumerate(tasks):
        told = story(seed, f"{tenants[number % 2]}:T-{number}", MODELS)
        for turn in [min(stop, len(told.turns) - 1) for stop in stops] + [len(told.turns) - 1]:
            record = ledger.keep(told.at(turn, timedelta(seconds=seed % 4)), two_currencies())
            if saved.get(told.task_id, record).events <= record.events:
                saved[told.task_id] = record
    wanted = [charge for record in saved.values() for charge in record.charges]
    seen = frozenset(tenants)
    assert by_id(effective_charges(ledger.records.charges(tenants=seen))) == by_id(wanted)
    by = data.draw(st.lists(st.sampled_from(Dimension), unique=True, max_size=4))
    assert ledger.records.report(by, tenants=seen) == sums_of(wanted, by)
    total = ledger.records.report(tenants=seen).total
    levels = (
        [Dimension.TENANT],
        [Dimension.TASK],
        [Dimension.TASK, Dimension.STAGE],
        [Dimension.STAGE, Dimension.METER],
    )
    for level in levels:
        assert exact(ledger.records.report(level, tenants=seen).groups) == exact([total])
    assert exact(sums_of(wanted, [Dimension.STAGE]).groups) == exact([total])
    ledger.check()


# Several processes save at the same time


def in_threads(*jobs: Callable[[], None]) -> None:
    """Runs functions in parallel threads and raises their errors."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result(HALF_A_MINUTE)


def test_savers_of_the_same_tenants_tasks_do_not_wait_for_each_other_in_a_circle(ledger: Ledger) -> None:
    """Parallel savers add to the same daily sums, each in a different order."""
    stories = [story(seed, f"{'ab'[seed % 2]}:T-{seed}", MODELS, days=1) for seed in range(48)]
    ledger.prices.numbers(charge for told in stories for charge in projected(told.end, two_currencies()).charges)
    together = Barrier(3)

    def saver(number: int) -> None:
        mine = stories[number::3]
        own, dice = Ledger(ledger.engine), random.Random(number)
        for state in ("under way", "ended"):
            batch = [told.end if state == "ended" else told.at(len(told.turns) // 2) for told in mine]
            dice.shuffle(batch)
            together.wait(HALF_A_MINUTE)
            for start in range(0, len(batch), 4):
                own.save(*(projected(known, two_currencies()) for known in batch[start : start + 4]))

    in_threads(*(partial(saver, number) for number in range(3)))
    wanted = [charge for told in stories for charge in projected(told.end, two_currencies()).charges]
    assert by_id(effective_charges(ledger.records.charges())) == by_id(wanted)
    ledger.check()


def test_savers_of_the_same_tasks_at_once_charge_them_once(ledger: Ledger) -> None:
    """A saver may fail and then retries as the projector does. One with an older record changes nothing."""
    stories = [story(seed, f"acme:T-{seed}", MODELS, days=1) for seed in range(16)]
    wanted = {told.task_id: projected(told.end, two_currencies()) for told in stories}
    ledger.prices.numbers(charge for record in wanted.values() for charge in record.charges)
    together = Barrier(3)
    news: list[str] = []

    def saver(number: int) -> None:
        own = Ledger(ledger.engine)
        for told in stories:
            halfway = projected(told.at(len(told.turns) // 2), two_currencies())
            states = [halfway] if number == 2 else [halfway, wanted[told.task_id]]
            for state in states:
                together.wait(HALF_A_MINUTE) if state is halfway else None
                news.extend(patiently(partial(own.save, state)))

    in_threads(*(partial(saver, number) for number in range(3)))
    assert sorted(news) == sorted(wanted)
    for task_id, record in wanted.items():
        assert by_id(ledger.charges_of(task_id)) == by_id(record.charges)
        assert ledger.records.record(task_id).status is record.status
    ledger.check()


def patiently(attempt: Callable[[], frozenset[str]]) -> frozenset[str]:
    """Saves, and retries if another saver was first."""
    for _ in range(20):
        try:
            return attempt()
        except IntegrityError:
            continue
    raise AssertionError("never came to its turn")


HELD = {
    "tickets": "UPDATE tickets SET subject = '' WHERE tenant = :tenant",
    "daily_costs": "UPDATE daily_costs SET charges = charges WHERE tenant = :tenant",
    "tasks": "SELECT * FROM tasks WHERE tenant = :tenant FOR UPDATE",
}


@pytest.mark.parametrize("table", HELD)
def test_whoever_saves_takes_the_rows_in_the_same_order_as_others(databases: Databases, table: str) -> None:
    """Whatever the order of the records, a saver that waits for the first row holds none of the others."""
    engine = database.connect(databases.migrated("postgresql"))
    ledger, stories = Ledger(engine), [story_with(waits, f"{name}:T-1") for name in ("acme", "lumen")]
    ledger.tickets(*(told.task_id for told, _ in stories))
    for told, turn in stories:
        ledger.save(projected(told.at(turn)))
    ended = [projected(told.end) for told, _ in stories]
    # Daily sums are locked in the order of their days, tasks and tickets in the order of their ids.
    by_day = lambda record: min(charge.at.date() for charge in record.charges)  # noqa: E731
    first, last = sorted(ended, key=by_day) if table == "daily_costs" else ended
    ledger.prices.numbers(charge for record in (last, first) for charge in record.charges)
    with ThreadPoolExecutor(1) as pool, engine.begin() as somebody:
        somebody.execute(text("SET lock_timeout = '5s'"))
        somebody.execute(text(HELD[table]), {"tenant": first.tenant})
        saved = pool.submit(ledger.save, last, first)
        until(lambda: is_waiting(engine), "the saver to wait for its turn")
        somebody.execute(text(HELD[table]), {"tenant": last.tenant})
        somebody.commit()
        assert saved.result(HALF_A_MINUTE) == {last.task_id, first.task_id}
    ledger.check()
    engine.dispose()


def is_waiting(engine: Engine) -> bool:
    """Whether a transaction in this database waits for a row lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return bool(connection.execute(text(query)).scalar_one())


@pytest.mark.parametrize("changed", ["usage_basis", "outcome"])
def test_the_check_of_the_sums_would_see_a_wrong_one(ledger: Ledger, changed: str) -> None:
    told, turn = story_with(waits)
    ledger.keep(told.at(turn))
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE charges SET usage_basis = 'estimated'"
            if changed == "usage_basis"
            else "UPDATE tasks SET outcome = 'refunded'"
        )
    with pytest.raises(AssertionError):
        ledger.check()
