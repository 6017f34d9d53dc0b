"""`refund-agent experiment`: it runs a module of the checkout, and reports a missing checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import experiment
from app.cli.root import cli
from tests.paths import ROOT


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "experiment", "crash-cost", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_needs_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "CHECKOUT", tmp_path)
    result = CliRunner().invoke(cli, ["experiment", "crash-cost"])
    assert result.exit_code == 1
    assert result.output == (
        f"error: experiments need the project's checkout, and {tmp_path} is not one; "
        "clone the project, run `make setup` there, and use its .venv/bin/refund-agent\n"
    )


@pytest.mark.parametrize("rates", ["0", "5,101", "many", ""])
def test_options_reach_the_experiment_and_so_does_its_exit_code(rates: str) -> None:
    result = run("--rates", rates)
    assert result.returncode == 2
    assert f"'{rates}' is no list of percentages above 0 and up to 100; write it as 5,15,30" in result.stderr


def test_too_many_tasks_are_refused_before_anything_starts() -> None:
    result = run("--tasks", "10000", "--quick", "--json")
    assert result.returncode == 1
    assert " ".join(result.stderr.split()).startswith("crash-cost: 10000 tickets are too many. There are ")
    assert not result.stdout


def test_files_are_relative_to_the_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "_exec_module", lambda _module, words: commands.append(words))
    result = CliRunner().invoke(cli, ["experiment", "crash-cost", "--output", "a.json", "--tasks", "5", "--json"])
    assert result.exit_code == 0
    assert commands == [["--seed", "7", "--tasks", "5", "--output", str(tmp_path / "a.json"), "--json"]]
