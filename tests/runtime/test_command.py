"""Set-up writes a command that works from any folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime import paths
from runtime.set_up import write_command


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """The environment of a checkout, with the command in it."""
    venv = tmp_path / "checkout" / ".venv"
    (venv / "bin").mkdir(parents=True)
    (tmp_path / "checkout" / "app").symlink_to(paths.ROOT / "app")
    python = venv / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {paths.VENV_PYTHON} "$@"\n')
    python.chmod(0o755)
    write_command(venv)
    return venv


def test_the_command_runs_its_checkout_from_another_folder(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(venv / "bin" / "refund-agent")
    for command in (venv / "bin" / "refund-agent", tmp_path / "linked"):
        done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "submit" in done.stdout


def test_another_checkout_that_links_to_the_environment_keeps_the_command(venv: Path, tmp_path: Path) -> None:
    before = (venv / "bin" / "refund-agent").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".venv").symlink_to(venv)
    write_command(tmp_path / "other" / ".venv")
    assert (venv / "bin" / "refund-agent").read_text() == before
    assert str(tmp_path) not in before
