"""Every error of ours has a code of its own, which the documents list and every edge tells."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re

import pytest
from flask import Flask

import app
from app.cli import root
from app.cli.client import AgentClient
from app.cli.faults import AgentAway, AgentRefused
from app.dapr.history.causes import _CODES, Cause, cause, cause_of_code
from app.dapr.history.entries import failure
from app.domain.errors import (
    CODES,
    AnswersLost,
    DecisionRefused,
    FailureCause,
    HistoryTampered,
    LedgerGone,
    LedgerTrouble,
    LedgerUnavailable,
    ModelBusy,
    RefundAgentError,
    Refused,
    StepFault,
    StepNotInHistory,
    StepOverdue,
    StepSetAside,
    error_classes,
    split_code,
)
from app.finance.reconciliation.bill import BadBill
from app.web.api.problems import WrongFields, install, problem_type
from app.worker.worker import failure_details
from tests.paths import ROOT

for module in pkgutil.walk_packages(app.__path__, "app."):
    if "migrations" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)  # a class is known once its module is

KINDS = [kind for kind in error_classes() if kind.__module__.startswith("app.")]
# Those that are made of more than a message, with the same words in them.
MADE: dict[type[RefundAgentError], RefundAgentError] = {
    LedgerGone: LedgerGone("x.sqlite"),
    LedgerUnavailable: LedgerUnavailable(LedgerTrouble.UNREACHABLE, "x"),
    StepSetAside: StepSetAside("acme:T-1", "draft", 3),
    StepFault: StepFault("draft", "KeyError in draft (line 1)"),
    StepOverdue: StepOverdue("acme:T-1", "draft", "it did not come back"),
    StepNotInHistory: StepNotInHistory("close_case", "a:1", "a:2"),
    HistoryTampered: HistoryTampered("a:1", "x"),
    ModelBusy: ModelBusy("llm", 42.0),
    AnswersLost: AnswersLost("llm", 3, "cut"),
    Refused: Refused("x", reason="above_refundable"),
    DecisionRefused: DecisionRefused("x", reason="above_refundable"),
    WrongFields: WrongFields("x", ()),
    BadBill: BadBill("x.json", "row 1", "no day", "correct it"),
    AgentRefused: AgentRefused("x", refusal=409),
}


def made(kind: type[RefundAgentError]) -> RefundAgentError:
    """An error of that kind."""
    return MADE[kind] if kind in MADE else kind("x")


def documented() -> dict[str, str]:
    """The codes of docs/operations.md, each with its cause in words; empty for an unknown one."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("## Error codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|([a-z ]+)\|$", section, re.MULTILINE)
    return {code: words.strip() for code, words in rows}


def test_each_class_has_a_code_of_its_own() -> None:
    codes = [vars(kind)["code"] for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_what_refines_a_code_is_no_other_classes_code() -> None:
    of_a_class = {kind.code for kind in KINDS}
    assert of_a_class & set(FailureCause) == {FailureCause.OTHER, FailureCause.MODEL_REFUSED}
    assert not (of_a_class | set(FailureCause)) & set(LedgerTrouble)


def test_the_documents_list_every_code_with_its_cause() -> None:
    every = {kind.code for kind in KINDS} | CODES | {root.WRONG_USAGE}
    told = documented()
    assert set(told) == every
    for code in every:
        assert (told[code] or "unknown") == cause_of_code(code).words, code


def test_a_code_has_one_cause() -> None:
    listed = [code for codes in _CODES.values() for code in codes]
    assert len(set(listed)) == len(listed)
    assert set(listed) <= CODES
    assert Cause.UNKNOWN not in _CODES


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_has_the_code(kind: type[RefundAgentError]) -> None:
    error = made(kind)
    web = Flask(__name__)
    install(web)

    @web.get("/")
    def fail() -> str:
        raise error

    problem = web.test_client().get("/").get_json()
    assert (problem["code"], problem["type"]) == (error.code, problem_type(error.code))
    assert ("reason" in problem) == isinstance(error, Refused)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_tells_the_code(kind: type[RefundAgentError], capsys: pytest.CaptureFixture[str]) -> None:
    error = made(kind)
    root._report(error, as_json=True)
    assert json.loads(capsys.readouterr().err)["code"] == error.code
    root._report(error, as_json=False)
    assert error.code not in capsys.readouterr().err.split(), "people read the message"


@pytest.mark.parametrize(("status", "kind"), [(503, AgentAway), (422, AgentRefused)])
def test_the_command_line_passes_on_what_the_agent_said(status: int, kind: type[RefundAgentError]) -> None:
    import httpx

    with AgentClient("http://127.0.0.1:1", "t") as client:
        told = client._refusal(httpx.Response(status, json={"title": "x", "detail": "y", "code": "ledger_away"}))
        bare = client._refusal(httpx.Response(status, json={"title": "x", "detail": "y"}))
    assert isinstance(told, kind)
    assert (told.code, bare.code) == ("ledger_away", kind.code)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.code in CODES])
def test_a_failure_in_the_history_has_the_code_and_its_cause(kind: type[RefundAgentError]) -> None:
    error = made(kind)
    recorded = failure(failure_details(error))
    assert split_code(recorded.message) == (error.code, str(error))
    assert cause(recorded) is cause_of_code(error.code)
