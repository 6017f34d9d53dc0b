"""`refund-agent experiment`: becomes a process of the checkout, and says what is missing where there is none."""

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
    done = CliRunner().invoke(cli, ["experiment", "crash-cost"])
    assert done.exit_code == 1
    assert done.output == (
        f"error: experiments need the project's checkout, and {tmp_path} is not one; "
        "clone the project, run `make setup` there, and use its .venv/bin/refund-agent\n"
    )


@pytest.mark.parametrize("rates", ["0", "5,101", "many", ""])
def test_options_reach_the_experiment_and_so_does_its_exit_code(rates: str) -> None:
    done = run("--rates", rates)
    assert done.returncode == 2
    assert f"'{rates}' is no list of per cents; write it as 5,15,30" in done.stderr


def test_what_cannot_be_had_is_said_before_anything_starts() -> None:
    done = run("--tasks", "10000", "--quick", "--json")
    assert done.returncode == 1
    assert " ".join(done.stderr.split()).startswith("crash-cost: 10000 tickets are too many. There are ")
    assert not done.stdout


def test_files_are_named_from_the_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "_exec_module", lambda _module, words: become.append(words))
    done = CliRunner().invoke(cli, ["experiment", "crash-cost", "--output", "a.json", "--tasks", "5", "--json"])
    assert done.exit_code == 0
    assert become == [["--seed", "7", "--tasks", "5", "--output", str(tmp_path / "a.json"), "--json"]]
