"""The metrics after some tasks have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.domain.models import AnsweredBy, CallState, TaskStatus
from app.ledger.store.task_record import TaskRecord
from app.pricing.charge_types import NOT_REPORTED
from app.telemetry.metrics import CONTENT_TYPE, Live, Metrics
from tests.records import at, call_record, step_record, task_record

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
MODEL = "sandbox-small"


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name.removeprefix("refund_agent_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(counted: Samples, name: str, **labels: str) -> float | None:
    """The value of the sample with exactly these labels; None if there is none."""
    return counted.get((name, frozenset(labels.items())))


def total(counted: Samples, name: str, **labels: str) -> float:
    """The sum of all samples that have these labels."""
    wanted = set(labels.items())
    return sum(sample for (called, has), sample in counted.items() if called == name and wanted <= has)


def metrics_after(*records: TaskRecord, **options: Any) -> Samples:
    metrics = Metrics(**options)
    for record in records:
        metrics.observe(record)
    return samples(metrics)


def test_tasks_are_counted_by_how_they_ended() -> None:
    failed = task_record(tenant="umbra", status=TaskStatus.FAILED, outcome=None)
    counted = metrics_after(task_record(), task_record(), failed)
    assert value(counted, "tasks_total", tenant="acme", status="completed", outcome="refunded") == 2
    assert value(counted, "tasks_total", tenant="umbra", status="failed", outcome="none") == 1


def test_tokens_are_counted_by_kind_and_by_how_they_are_known() -> None:
    counted = metrics_after(task_record(), task_record())
    of = {"tenant": "acme", "model": MODEL}
    reported = of | {"basis": "reported", "wasted": "no"}
    assert value(counted, "tokens_total", kind="input", stage="classify", **reported) == 2 * 800
    assert value(counted, "tokens_total", kind="cached_input", stage="classify", **reported) == 2 * 100
    assert value(counted, "tokens_total", kind="output", stage="draft_refund", **reported) == 2 * 2 * 80
    lost = of | {"basis": "estimated", "wasted": "yes", "stage": "draft_refund"}
    assert value(counted, "tokens_total", kind="input", **lost) == 2 * 1_500
    assert total(counted, "tokens_total") == 2 * (3 * 980 + 2_500)


def test_unreported_usage_is_counted_without_tokens_and_money() -> None:
    call = call_record(usage=NOT_REPORTED)
    counted = metrics_after(task_record(calls=(call,)))
    assert total(counted, "tokens_total") == 0
    assert total(counted, "cost_total", kind="model") == 0
    of = {"kind": "model", "stage": "classify", "model": MODEL}
    assert value(counted, "unknown_charges_total", basis="unreported", **of) == 2


def test_what_has_no_price_is_counted() -> None:
    counted = metrics_after(task_record(calls=(call_record(model="nobody-knows-it"),)))
    assert total(counted, "unknown_charges_total", basis="unpriced", model="nobody-knows-it") == 3
    assert total(counted, "tokens_total", model="nobody-knows-it") == 980
    assert total(counted, "cost_total", model="nobody-knows-it") == 0


def test_money_is_counted_by_currency_kind_stage_and_model() -> None:
    record = task_record()
    counted = metrics_after(record, record)
    charged = sum(float(charge.contracted_cost) for charge in record.charges if charge.contracted_cost is not None)
    assert total(counted, "cost_total") == pytest.approx(2 * charged)
    of = {"currency": "USD", "tenant": "acme", "stage": "draft_refund"}
    wasted = value(counted, "cost_total", kind="wasted", basis="estimated", model=MODEL, **of)
    assert wasted == pytest.approx(2 * 0.0022)
    assert total(counted, "cost_total", kind="model", **of) == pytest.approx(2 * 2 * 0.000458)
    assert total(counted, "cost_total", kind="compute", stage="lookup_order") == 0  # a lookup is the stage's
    assert total(counted, "cost_total", kind="orchestration") > 0


def test_currencies_are_apart() -> None:
    record = task_record()
    euros = tuple(replace(charge, currency="EUR") if charge.model else charge for charge in record.charges)
    counted = metrics_after(replace(record, charges=euros))
    assert total(counted, "cost_total", currency="EUR") == pytest.approx(0.003574)
    assert total(counted, "cost_total", currency="USD") == pytest.approx(0.000126975)


def test_corrections_count_as_corrected() -> None:
    record = task_record(calls=(call_record(),))
    first = record.charges[0]
    assert first.consumed_quantity is not None
    assert first.contracted_cost is not None
    back = replace(
        first, correction=1, consumed_quantity=-first.consumed_quantity, contracted_cost=-first.contracted_cost
    )
    again = replace(first, correction=2, consumed_quantity=first.consumed_quantity + 5)
    counted = metrics_after(replace(record, charges=(*record.charges, back, again)))
    assert total(counted, "tokens_total", kind="input") == 805


def test_calls_are_counted_by_state_and_by_who_answered() -> None:
    counted = metrics_after(task_record(), task_record())
    of = {"stage": "draft_refund", "model": MODEL}
    assert value(counted, "model_calls_total", state="settled", answered_by="provider", **of) == 4
    assert value(counted, "model_calls_total", state="interrupted", answered_by="nobody", **of) == 2
    assert value(counted, "wasted_calls_total", **of) == 2
    assert value(counted, "wasted_calls_total", stage="classify", model=MODEL) is None


def test_an_answer_that_came_too_late_was_given_by_the_provider() -> None:
    counted = metrics_after(task_record(calls=(call_record(state=CallState.INTERRUPTED),)))
    of = {"stage": "classify", "model": MODEL}
    assert value(counted, "model_calls_total", state="interrupted", answered_by="provider", **of) == 1


def test_answers_of_the_journal_are_counted() -> None:
    record = task_record(steps=(step_record(answered_by=AnsweredBy.JOURNAL),), calls=(call_record(),))
    counted = metrics_after(record, task_record())
    assert value(counted, "journal_answers_total", stage="classify", model=MODEL) == 1


def test_durations() -> None:
    counted = metrics_after(task_record(), task_record(ended_at=at(8), pauses=()))
    assert value(counted, "task_seconds_sum", outcome="refunded") == 78
    assert value(counted, "task_seconds_bucket", outcome="refunded", le="60.0") == 1
    assert value(counted, "task_seconds_bucket", outcome="refunded", le="300.0") == 2
    of = {"state": "settled", "stage": "classify", "model": MODEL}
    assert value(counted, "model_call_seconds_sum", **of) == pytest.approx(0.6)
    assert total(counted, "model_call_seconds_count") == 6  # an interrupted call without an end has no duration
    assert value(counted, "projection_lag_seconds_sum") == pytest.approx(0.5 + 62.5)
    assert value(counted, "task_part_seconds_total", part="waiting") == 60
    assert value(counted, "task_part_seconds_total", part="active") == 18


def test_gauges_are_read_at_each_scrape() -> None:
    numbers = iter([3, 5])
    metrics = Metrics(Live(activities_running=lambda: next(numbers), tasks_not_traced=lambda: 7))
    assert value(samples(metrics), "activities_running") == 3
    counted = samples(metrics)
    assert value(counted, "activities_running") == 5
    assert value(counted, "tasks_not_traced_total") == 7
    assert value(counted, "tasks_to_record") is None


def test_an_unreadable_gauge_does_not_affect_the_others(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(Live(activities_running=lambda: 1 // 0, activities_waiting=lambda: 2, tasks_to_record=lambda: 4))
    counted = samples(metrics)
    assert value(counted, "activities_running") is None
    assert value(counted, "activities_waiting") == 2
    assert value(counted, "tasks_to_record") == 4
    assert "refund_agent_activities_running cannot be read: ZeroDivisionError" in caplog.text


def test_labels_do_not_grow_without_end() -> None:
    records = [
        task_record(tenant=f"tenant-{number}", calls=(call_record(model=f"model-{number}"),)) for number in range(6)
    ]
    counted = metrics_after(*records, tenants=3, models=4)
    tenants = {dict(labels).get("tenant") for name, labels in counted if name == "tasks_total"}
    assert tenants == {"tenant-0", "tenant-1", "tenant-2", "others"}
    assert total(counted, "tasks_total", tenant="others") == 3
    models = {dict(labels)["model"] for name, labels in counted if name == "tokens_total"}
    assert models == {"model-0", "model-1", "model-2", "others"}  # work without a model is the fourth name


def test_no_label_holds_an_id_or_a_text() -> None:
    text = Metrics()
    text.observe(task_record(calls=(call_record(state=CallState.FAILED, error="Herr Braun"),)))
    page = text.render().decode()
    for hidden in ("T-1", "e-1", "c-e", "AC-10442", "R-1", "Braun", "run-1", "49.90", "w-1"):
        assert hidden not in page, hidden


def test_two_of_them_do_not_share_their_counts() -> None:
    first, second = Metrics(), Metrics()
    first.observe(task_record())
    assert total(samples(second), "tasks_total") == 0


def test_the_process_is_seen_and_no_counter_has_a_second_series() -> None:
    metrics = Metrics()
    metrics.observe(task_record())
    page = metrics.render().decode()
    assert "process_resident_memory_bytes" in page
    assert "_created" not in page
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
