"""Every code for which a task waits has a wording and advice."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from app.domain import decision_texts
from app.workflow.refund import NAME
from app.workflow.steps import DECISION, RESUME
from tests.paths import ROOT

APP = ROOT / "app"
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)+")
# The files with the reasons of the workflow, and with the refusals of the sandbox's books.
SAYING = ("activities/guards.py", "refund.py")
REFUSING = ("refunds.py", "orders.py", "entries.py")
# Texts there that look like codes but are names of steps and events.
NAMES = {path.stem for path in (APP / "workflow" / "activities").glob("*.py")} | {
    "hold_refund",
    "lookup_order",
    "lookup_refund_policy",
    NAME,
}
NAMES |= {DECISION, RESUME}


def texts(file: Path) -> set[str]:
    """The texts in a file that have the form of a code."""
    values = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
    return {value for value in values if isinstance(value, str) and CODE.fullmatch(value)}


def refusals(file: Path) -> set[str]:
    """The codes of the refusals in a file of the sandbox."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    named = (call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "refusal" and call.args)
    return {str(call.args[0].value) for call in named if isinstance(call.args[0], ast.Constant)}


def codes() -> set[str]:
    reasons = set[str]().union(*(texts(APP / "workflow" / name) for name in SAYING)) - NAMES
    refused = set[str]().union(*(refusals(ROOT / "sandbox" / "systems" / name) for name in REFUSING))
    return reasons | {decision_texts.BOOKS_REFUSE + code for code in refused}


def test_the_codes_are_found() -> None:
    assert {"above_limit", "refund_missing", "too_many_turns", "account_unknown"} <= codes()
    assert "books_refuse_exceeds_refundable" in codes()


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_has_words_and_advice(code: str) -> None:
    reason = decision_texts.explain(code)
    assert reason.code == code
    assert code.removeprefix(decision_texts.BOOKS_REFUSE) in decision_texts.CODES, (
        f"app/domain/decision_texts.py has no words for {code}"
    )
    for text in (reason.words, reason.advice):
        assert len(text.split()) >= 3
        assert "_" not in text
        assert not text.endswith(".")


def test_a_text_that_is_no_code_is_shown_as_it_is() -> None:
    parked = "classify: ModelRefused: 401 from the provider of llm_2; put the key in order"
    assert decision_texts.explain(parked).words == parked
    assert (
        decision_texts.explain("books_refuse_month_closed").words
        == "the books refused to post the refund: month closed"
    )
