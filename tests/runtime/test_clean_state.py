"""The state of runs is removed only after a confirmation."""

from __future__ import annotations

import builtins
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import runtime.__main__ as runtime
from runtime import paths


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with a ledger in it."""
    folder = tmp_path / ".state"
    folder.mkdir()
    (folder / "ledger.sqlite").write_text("tasks")
    monkeypatch.setattr(paths, "STATE", folder)
    monkeypatch.setattr(runtime, "_STACK_LOCK", folder / "lock")
    monkeypatch.setattr(runtime, "_APP_LOGS", tmp_path / "logs")
    return folder


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Simulates a person who gives this answer."""

    def answers(answer: str) -> None:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(builtins, "input", lambda _question: answer)

    return answers


@pytest.mark.parametrize("answer", ["", "n", "no", "maybe"])
def test_any_answer_but_yes_removes_nothing(
    state: Path, at_a_terminal: Callable[[str], None], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at_a_terminal(answer)
    assert runtime.main(["clean-state"]) == 1
    assert (state / "ledger.sqlite").exists()
    output = capsys.readouterr().out
    assert "ledger.sqlite" in output
    assert "Nothing was removed." in output


@pytest.mark.parametrize("answer", ["y", "Yes "])
def test_yes_removes_it(state: Path, at_a_terminal: Callable[[str], None], answer: str) -> None:
    at_a_terminal(answer)
    assert runtime.main(["clean-state"]) == 0
    assert not state.exists()


def test_without_a_terminal_it_needs_the_option(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert runtime.main(["clean-state"]) == 1
    assert "make clean-state ARGS=--yes" in capsys.readouterr().err
    assert (state / "ledger.sqlite").exists()
    assert runtime.main(["clean-state", "--yes"]) == 0
    assert not state.exists()
    assert runtime.main(["clean-state", "--yes"]) == 0  # there is nothing left
