"""What the chaos test prints and writes: all figures, the occurrences of faults, and what the journal saved."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from app.domain.models import CallState
from lab.chaos import report
from lab.chaos.verdict import Verdict, judge
from tests.lab.chaos import evidence as samples
from tests.lab.chaos.breaks import (
    add_call,
    add_interrupted_call,
    add_late_execution,
    first_call,
    repeat_call,
    with_books,
)

CLEAN_BILL = samples.evidence().bill
PAID_TOKENS = sum(filter(None, (first_call(samples.evidence()).usage.input_tokens, 50)))


def runs() -> dict[str, Verdict]:
    """Three runs: a clean one, one that lost a call, and one that paid an answer again."""
    paid_again = add_call(samples.evidence(), repeat_call(samples.evidence(), 1, state=CallState.INTERRUPTED))
    return {
        report.CLEAN: judge(samples.evidence(), CLEAN_BILL),
        report.FAULTS: judge(
            replace(
                add_late_execution(add_interrupted_call(samples.evidence()), -0.05), unplanned_restarts={"daprd": 2}
            ),
            CLEAN_BILL,
        ),
        report.WITHOUT_JOURNAL: judge(paid_again, CLEAN_BILL, journal=False),
    }


def shown_text(verdicts: dict[str, Verdict]) -> str:
    """The printed text."""
    out = io.StringIO()
    report.show(Console(file=out, width=200, force_terminal=False), {"machine": "2 x test"}, verdicts)
    return out.getvalue()


def line_of(text: str, title: str) -> list[str]:
    """The cells of the row with that title."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines())
    (cells,) = (row for row in rows if row and row[0] == title)
    return cells


def test_the_tables_say_what_happened_run_by_run() -> None:
    text = shown_text(runs())
    assert line_of(text, "tasks") == ["tasks", "3", "3", "3"]
    assert line_of(text, "ended by itself, restarted")[1:] == ["0", "daprd 2", "0"]
    assert line_of(text, "model answers from the journal")[1:] == ["0", f"1 ({PAID_TOKENS} tokens)", "0"]
    assert line_of(text, "refunds doubled")[1:] == ["0", "0", "0"]
    assert line_of(text, "settled model answers paid again")[1:] == ["0", "0", ""], "not demanded without the journal"
    assert line_of(text, "interrupted calls")[1:] == ["0 in 0", f"{_excess(report.FAULTS)} in 1", "0 in 0"]
    assert line_of(text, "beyond the run without faults")[1:2] == ["0"]
    assert f"Paid model calls that the journal prevented: 1 ({_excess(report.WITHOUT_JOURNAL)} tokens)" in text


def test_faults_are_described_below_the_tables() -> None:
    doubled = with_books(samples.evidence(), refunds=[*samples.evidence().books.refunds] * 2)
    text = shown_text({report.FAULTS: judge(doubled, CLEAN_BILL)})
    assert "with faults: 1 refunds doubled" in text
    assert f"{samples.ticket_of('refund').ticket.ticket_id}: 2 times" in text
    assert "the journal prevented" not in text


def test_json_holds_the_same_figures(tmp_path: Path) -> None:
    document = report.as_json({"machine": "2 x test"}, {"seed": 7}, runs())
    report.write(tmp_path / "deep" / "figures.json", document)
    read = json.loads((tmp_path / "deep" / "figures.json").read_text())
    assert read == document
    assert read["held"] is True
    faults, without = read["runs"][report.FAULTS], read["runs"][report.WITHOUT_JOURNAL]
    assert faults["tokens"]["excess"] == faults["tokens"]["excess_by_cause"]["interrupted"] > 0
    assert without["tokens"]["excess_requests_by_cause"] == {"paid_again": 1}
    assert {check["count"] for check in faults["must_be_zero"].values()} == {0}
    assert faults["answered_by_journal"] == {"calls": 1, "tokens": PAID_TOKENS}
    assert faults["started_again_by_the_supervisor"] == {"daprd": 2}


def test_json_says_if_a_check_failed() -> None:
    lost = replace(samples.evidence(), accepted=frozenset())
    document = report.as_json({}, {}, {report.FAULTS: judge(lost, CLEAN_BILL)})
    assert document["held"] is False
    assert document["runs"][report.FAULTS]["must_be_zero"]["tasks_lost"]["count"] == 3


def _excess(name: str) -> int:
    spent = runs()[name].tokens
    return spent.billed - spent.clean
