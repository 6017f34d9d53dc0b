"""What the chaos test prints and writes: every figure in its place, what was found named, the journal's difference."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from app.domain.models import CallState
from lab.chaos import report
from lab.chaos.verdict import Verdict, judge
from tests.lab.chaos import evidence as made
from tests.lab.chaos.breaks import again, begun_late, first_call, interrupted, repeated, with_books

CLEAN_BILL = made.evidence().bill
ASKED = sum(filter(None, (first_call(made.evidence()).usage.input_tokens, 50)))


def runs() -> dict[str, Verdict]:
    """Three runs: a clean one, one that lost a call, and one that paid an answer again."""
    paid_again = repeated(made.evidence(), again(made.evidence(), 1, state=CallState.INTERRUPTED))
    return {
        report.CLEAN: judge(made.evidence(), CLEAN_BILL),
        report.FAULTS: judge(replace(begun_late(interrupted(made.evidence()), -0.05), helped={"daprd": 2}), CLEAN_BILL),
        report.WITHOUT_JOURNAL: judge(paid_again, CLEAN_BILL, journal=False),
    }


def shown(found: dict[str, Verdict]) -> str:
    """What a person sees."""
    out = io.StringIO()
    report.show(Console(file=out, width=200, force_terminal=False), {"machine": "2 x test"}, found)
    return out.getvalue()


def line_of(text: str, title: str) -> list[str]:
    """The cells of one row."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines())
    (found,) = (row for row in rows if row and row[0] == title)
    return found


def test_the_tables_say_what_happened_run_by_run() -> None:
    text = shown(runs())
    assert line_of(text, "tasks") == ["tasks", "3", "3", "3"]
    assert line_of(text, "ended by itself, started again")[1:] == ["0", "daprd 2", "0"]
    assert line_of(text, "model answers that the journal gave")[1:] == ["0", f"1 ({ASKED} tokens)", "0"]
    assert line_of(text, "refunds doubled")[1:] == ["0", "0", "0"]
    assert line_of(text, "settled model answers paid again")[1:] == ["0", "0", ""], "not demanded without the journal"
    assert line_of(text, "interrupted calls")[1:] == ["0 in 0", f"{_more(report.FAULTS)} in 1", "0 in 0"]
    assert line_of(text, "beyond the run without faults")[1:2] == ["0"]
    assert f"Paid model calls that the journal prevented: 1 ({_more(report.WITHOUT_JOURNAL)} tokens)" in text


def test_what_was_found_is_named_below_the_tables() -> None:
    doubled = with_books(made.evidence(), refunds=[*made.evidence().books.refunds] * 2)
    text = shown({report.FAULTS: judge(doubled, CLEAN_BILL)})
    assert "with faults: 1 refunds doubled" in text
    assert f"{made.named('refund').ticket.ticket_id}: 2 times" in text
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
    assert {each["count"] for each in faults["must_be_zero"].values()} == {0}
    assert faults["answered_by_journal"] == {"calls": 1, "tokens": ASKED}
    assert faults["started_again_by_the_supervisor"] == {"daprd": 2}


def test_json_says_when_something_did_not_hold() -> None:
    lost = replace(made.evidence(), accepted=frozenset())
    document = report.as_json({}, {}, {report.FAULTS: judge(lost, CLEAN_BILL)})
    assert document["held"] is False
    assert document["runs"][report.FAULTS]["must_be_zero"]["tasks_lost"]["count"] == 3


def _more(name: str) -> int:
    spent = runs()[name].tokens
    return spent.billed - spent.clean
