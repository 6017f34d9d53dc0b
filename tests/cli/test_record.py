"""`record`: a table for people, stable JSON for programs, and no unknown value as zero."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.dapr.history.causes import Cause
from app.dapr.history.model import AttemptOutcome
from app.domain.models import AnsweredBy, CallState, TaskStatus, UsageBasis
from app.ledger.reading.record_schemas import RecordView
from app.ledger.store.task_record import FailureKind, FailureRecord, TaskRecord
from app.pricing.charge_types import NOT_REPORTED, TokenUsage
from app.web.pages.lines import make_lines
from app.web.pages.page_texts import record_digits
from app.web.pages.summary import make_summary
from tests.cli.reading import ask, json_answer, row
from tests.ledgers import FakeRecords
from tests.records import (
    at,
    attempt_record,
    call_record,
    calls,
    interrupted_call,
    step_record,
    steps,
    task_record,
    unreported_call,
)

TASK = "acme:T-1"
KEYS = (
    "task_id tenant agent workflow version execution_id rerun_of status outcome category refund refund_id "
    "decisions started_at ended_at projected_at seconds pauses turns events bytes trace_parent workers stages "
    "steps failures calls charges total"
)
STEP_KEYS = "step execution_id name stage tool active_seconds lost_seconds writes answered_by attempts cost"
CALL_KEYS = (
    "call_id step execution_id stage turn number state worker component provider model prompt_version request_digest "
    "tool_form started_at ended_at over_at usage reserve_input reserve_output finish_reason error cause wasted cost"
)
CHARGE_KEYS = (
    "id kind meter stage step tool execution_id turn number at provider component model consumed_quantity unit "
    "usage_basis contracted_unit_price contracted_cost list_unit_price list_cost currency cost_basis price_id "
    "book_digest mode wasted correction correction_of"
)
GROUP_KEYS = "key charges money quantities cost_basis unreported unpriced"


def put(ledger: FakeRecords, record: TaskRecord) -> None:
    ledger.records[record.task_id] = record


def dollars(group: dict[str, Any]) -> Decimal:
    """The sum of a group's money, which has one currency."""
    assert [sum_["currency"] for sum_ in group["money"]] in ([], ["USD"])
    return sum((Decimal(sum_["contracted_cost"]) for sum_ in group["money"]), Decimal(0))


def test_the_head_shows_outcome_and_time(ledger: FakeRecords) -> None:
    shown = ask("record", TASK).stdout
    assert row(shown, "tenant") == ["tenant", "acme"]
    assert row(shown, "workflow") == ["workflow", "refund_ticket 0.1.0"]
    assert row(shown, "status") == ["status", "completed"]
    assert row(shown, "outcome") == ["outcome", "refunded"]
    assert row(shown, "refund ") == ["refund", "49.90 EUR for order AC-10442, booked as R-1"]
    assert row(shown, "started") == ["started (UTC)", "2026-11-22 12:00:00"]
    assert row(shown, "ended") == ["ended (UTC)", "2026-11-22 12:01:10"]
    assert row(shown, "time") == ["time", "active 10.0 s, waiting 1 min 0 s"]
    assert row(shown, "history") == ["history", "9 turns, 40 events, 12.0 kB"]


def test_each_stage_step_and_call_has_its_line(ledger: FakeRecords) -> None:
    lines = ask("record", TASK).stdout.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("stage, step, call"))
    names = [line[:20].rstrip() for line in lines[begin + 1 : lines.index("", begin)]]
    assert names == [
        "classify",
        "  1 classify",
        "    call 1.1",
        "retrieve_account",
        "  2 retrieve_account",
        "draft_refund",
        "  3 draft_refund",
        "    call 1.1",
        "    call 1.2",
        "  4 lookup_order",
        "  5 draft_refund",
        "    call 2.1",
        "notify_customer",
        "  6 notify_customer",
        "close_case",
        "  7 close_case",
        "(workflow)",
    ]


def test_tokens_and_money_carry_how_they_are_known(ledger: FakeRecords) -> None:
    put(ledger, task_record(calls=(*calls(), unreported_call())))
    shown = ask("record", TASK).stdout
    assert row(shown, "1 classify") == ["1 classify", "1", "completed", "provider", "500 ms", "0.000466 USD"]
    assert row(shown, "call 2.1")[1:] == ["settled", "sandbox-small", "300 ms", "900", "100", "80", "0.000458 USD"]
    assert row(shown, "call 3.1")[-4:] == ["?", "?", "?", "?"]
    interrupted = ["call 1.1", "interrupted", "sandbox-small", "~4.50 s", "~1,500", "?", "~1,000", "~0.002200 USD"]
    assert interrupted in [row(line, "call 1.1") for line in shown.splitlines() if "interrupted  " in line]
    assert row(shown, "draft_refund")[1:] == ["6.00 s", "~3,300 + ?", "200", "~1,160 + ?", "~0.003202 USD + ?"]


def test_the_page_shows_the_same_figures(ledger: FakeRecords) -> None:
    record, shown = ledger.record(TASK), ask("record", TASK).stdout
    digits = record_digits(record)
    calls = [line for step in make_lines(record, digits) for line in step.lines if line.kind == "call"]
    rows = [row(line, "call ") for line in shown.splitlines() if line.startswith("    call ")]
    assert len(rows) == len(calls) == 4
    for page, cells in zip(calls, rows, strict=True):
        shown_on_page = [page.duration, page.input, page.cached, page.output, *page.money.lines]
        assert [cell for cell in cells if cell in shown_on_page] == shown_on_page
    assert f"total  {make_summary(record, digits).totals[0].text.lstrip('~')} = " in shown


def test_the_total_shows_its_parts_and_what_is_missing(ledger: FakeRecords) -> None:
    put(ledger, task_record(calls=(*calls(), unreported_call())))
    shown = ask("record", TASK).stdout
    parts = "model 0.001374 + compute 0.000110 + orchestration 0.000017 + wasted 0.002200 + ?"
    assert f"total  0.003701 USD + ? = {parts}\n  of it estimated 0.002200 USD\n" in shown
    assert "note: 2 charges have no quantity" in shown
    assert "have no price" not in shown


def test_a_call_without_a_price_is_no_free_call(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(model="new-model"),)))
    shown = ask("record", TASK).stdout
    assert row(shown, "call 1.1")[-4:] == ["900", "100", "80", "?"]
    assert row(shown, "classify")[-1] == "0.000008 USD + ?"
    assert "note: 3 charges have no price and are in no sum; `refund-agent price check` says what to add" in shown


def test_unreported_usage_is_a_question_mark(ledger: FakeRecords) -> None:
    unknown = call_record(usage=NOT_REPORTED, model="")
    put(ledger, task_record(steps=steps()[:1], calls=(unknown,)))
    assert row(ask("record", TASK).stdout, "call 1.1") == ["call 1.1", "settled", "? of llm", "300 ms", *"????"]


def test_failures_are_noted(ledger: FakeRecords) -> None:
    failed = attempt_record(0.1, number=1, outcome=AttemptOutcome.FAILED, error="SystemUnavailable: accounts is down")
    step = step_record("retrieve_account", attempts=(failed, attempt_record(1, number=2)))
    what = FailureRecord(1, 1, 1, at(0.6), at(1), FailureKind.FAILED, Cause.TOOL_ERROR, "w-1")
    lost = FailureRecord(1, 2, 1, at(1.2), at(3.7), FailureKind.INTERRUPTED, Cause.WORKER_GONE, "w-1")
    put(ledger, task_record(steps=(step,), calls=(), failures=(what, lost)))
    shown = ask("record", TASK).stdout
    assert row(shown, "1 retrieve_account")[1:3] == ["2", "completed"]
    failure = "attempt 1 failed (tool error): SystemUnavailable: accounts is down; resumed after 400 ms"
    assert f"note: step 1 retrieve_account, {failure}\n" in shown
    interruption = "attempt 2 interrupted (worker gone): 2026-11-22 12:00:01; resumed after 2.50 s"
    assert f"note: step 1 retrieve_account, {interruption}\n" in shown


def test_a_failure_of_step_and_call_is_noted_once(ledger: FakeRecords) -> None:
    failed = attempt_record(0.1, number=1, outcome=AttemptOutcome.FAILED, error="ModelUnavailable: cut: half an answer")
    step = step_record("classify", attempts=(failed,))
    what = FailureRecord(step.step, 1, 1, at(0.6), None, FailureKind.FAILED, Cause.PROVIDER_ERROR, "w-1")
    call = call_record(state=CallState.FAILED, error="cut: half an answer", execution_id=step.execution_id)
    put(ledger, task_record(steps=(step,), calls=(call,), failures=(what,)))
    assert ask("record", TASK).stdout.count("cut: half an answer") == 1


def test_an_answer_from_the_journal_is_distinguished_from_a_paid_one(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=(step_record(answered_by=AnsweredBy.JOURNAL),), calls=(call_record(),)))
    assert row(ask("record", TASK).stdout, "1 classify")[3] == "journal"


def test_a_call_that_no_step_belongs_to_is_shown_with_its_stage(ledger: FakeRecords) -> None:
    put(ledger, task_record(steps=steps()[:1], calls=(call_record(), interrupted_call("e-lost"))))
    shown = ask("record", TASK).stdout
    assert row(shown, "call 1.1 (no step)")[1] == "interrupted"
    assert [call["step"] for call in json_answer("record", TASK)["calls"]] == [1, None]


def test_a_running_task_shows_when_it_was_seen(ledger: FakeRecords) -> None:
    running = task_record(status=TaskStatus.RUNNING, outcome=None, refund=None, refund_id=None, ended_at=None)
    put(ledger, running)
    shown = ask("record", TASK).stdout
    assert row(shown, "seen") == ["seen (UTC)", "2026-11-22 12:01:10"]
    assert "ended" not in shown.split("stage, step, call")[0]
    view = json_answer("record", TASK)
    assert (view["outcome"], view["refund"], view["ended_at"]) == (None, None, None)


def test_the_json_keeps_its_keys(ledger: FakeRecords) -> None:
    view = json_answer("record", TASK)
    assert " ".join(view) == KEYS
    assert " ".join(view["steps"][0]) == STEP_KEYS
    assert " ".join(view["calls"][0]) == CALL_KEYS
    assert " ".join(view["charges"][0]) == CHARGE_KEYS
    assert " ".join(view["stages"][0]) == "stage steps active_seconds cost"
    assert " ".join(view["total"]) == GROUP_KEYS
    assert " ".join(view["calls"][0]["usage"]) == (
        "input_tokens cached_tokens cache_write_tokens output_tokens reasoning_tokens basis"
    )
    assert RecordView.model_validate_json(ask("record", TASK, "--json").stdout)


def test_the_json_says_what_the_record_says(ledger: FakeRecords) -> None:
    view, record = json_answer("record", TASK), ledger.records[TASK]
    assert view["seconds"]["waiting"] == 60.0
    assert sum(view["seconds"].values()) == 70.0
    assert (view["refund"]["amount"], view["bytes"]) == ("49.90", 12_000)
    assert view["pauses"][0] | {"seconds": 60.0, "label": "decision"} == view["pauses"][0]
    assert [charge["id"] for charge in view["charges"]] == [charge.id for charge in record.charges]
    assert [call["state"] for call in view["calls"]] == ["settled", "interrupted", "settled", "settled"]
    assert [call["wasted"] for call in view["calls"]] == [False, True, False, False]
    interrupted = view["calls"][1]["usage"]
    assert (interrupted["basis"], interrupted["cached_tokens"], interrupted["input_tokens"]) == (
        "estimated",
        None,
        1500,
    )


def test_stages_steps_and_charges_sum_to_the_task_to_the_last_digit(ledger: FakeRecords) -> None:
    view = json_answer("record", TASK)
    whole = dollars(view["total"])
    # Three calls of 0.000458, a wasted one of 0.0022, 8 active seconds, 14 writes and 9 turns, 12,000 bytes.
    assert whole == Decimal("0.001374") + Decimal("0.0022") + Decimal("0.0001096") + Decimal("0.000017375")
    assert sum(dollars(stage["cost"]) for stage in view["stages"]) == whole
    lines = [Decimal(charge["contracted_cost"]) for charge in view["charges"] if charge["contracted_cost"] is not None]
    assert sum(lines) == whole
    workflow = next(stage for stage in view["stages"] if not stage["stage"])
    assert sum(dollars(step["cost"]) for step in view["steps"]) + dollars(workflow["cost"]) == whole


def test_a_correction_is_shown_as_one(ledger: FakeRecords) -> None:
    record = task_record(steps=steps()[:1], calls=())
    first = record.charges[0]
    assert first.consumed_quantity is not None
    assert first.contracted_cost is not None
    back = replace(
        first, correction=1, consumed_quantity=-first.consumed_quantity, contracted_cost=-first.contracted_cost
    )
    put(ledger, replace(record, charges=(*record.charges, back)))
    line = json_answer("record", TASK)["charges"][-1]
    assert (line["correction"], line["correction_of"], line["consumed_quantity"]) == (1, first.id, "-0.5")


def test_a_failed_call_tells_its_error_without_steering_the_terminal(ledger: FakeRecords) -> None:
    failed = call_record(state=CallState.FAILED, error="cut: \x1b[31mbroken", ended_at=None)
    put(ledger, task_record(steps=steps()[:1], calls=(failed,)))
    shown = ask("record", TASK).stdout
    assert "note: call 1.1 of classify failed (provider error): cut:" in shown
    assert "\x1b" not in shown


def test_a_long_time_is_shown_in_hours(ledger: FakeRecords) -> None:
    parts = dict.fromkeys(ledger.records[TASK].parts, timedelta(0)) | {
        part: timedelta(hours=26, seconds=61) for part in ledger.records[TASK].parts if part.value == "waiting"
    }
    put(ledger, replace(ledger.records[TASK], parts=parts))
    assert row(ask("record", TASK).stdout, "time") == ["time", "waiting 1 d 2 h"]


def test_a_missing_record_is_reported_in_one_line(ledger: FakeRecords) -> None:
    result = ask("record", "acme:T-9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: task acme:T-9 has no record in the ledger; text of the ledger\n"


@pytest.mark.parametrize("words", [("record", TASK), ("cost", "report"), ("ledger", "check"), ("ledger", "rebuild")])
def test_a_missing_ledger_is_not_created(words: tuple[str, ...]) -> None:
    result = ask(*words)
    assert result.exit_code == 1
    assert "no ledger: " in result.stderr
    assert "`make up`" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_call_that_reached_no_model_used_nothing(ledger: FakeRecords) -> None:
    refused = call_record(
        state=CallState.FAILED,
        error="breaker_open: the breaker of llm is open",
        usage=TokenUsage(input_tokens=0, output_tokens=0, basis=UsageBasis.ESTIMATED),
        model="",
    )
    put(ledger, task_record(steps=steps()[:1], calls=(refused,)))
    line = row(ask("record", TASK).stdout, "call 1.1")
    assert line[4:7] == ["0", "0", "0"]
