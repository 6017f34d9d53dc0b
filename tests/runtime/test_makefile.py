"""Each make target has a help text and only calls `runtime`; a Python that is missing or too old is reported."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from runtime import paths

TARGETS = ("run", "up", "test", "test-cluster", "lint", "format", "setup", "doctor", "clean-state")
MAKEFILE = (paths.ROOT / "Makefile").read_text()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )


def test_help_lists_every_target() -> None:
    shown = re.findall(r"^  make ([a-z-]+) +\S", make("help").stdout, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(shown) == sorted(phony.split())
    assert make().stdout == make("help").stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_only_calls_runtime(target: str) -> None:
    assert f"python3 -m runtime {target}" in make("-n", target).stdout


def test_arguments_reach_pytest() -> None:
    assert "runtime test -k one" in make("-n", "test", "ARGS=-k one").stdout


@pytest.mark.parametrize(
    ("script", "message"),
    [(None, "is not here: install Python 3.11 or newer"), ("#!/bin/sh\necho too old >&2; exit 1\n", "too old")],
)
def test_a_missing_or_old_python_is_reported(tmp_path: Path, script: str | None, message: str) -> None:
    python = tmp_path / "python3"
    if script:
        python.write_text(script)
        python.chmod(0o755)
    done = make("doctor", f"PYTHON={python}")
    assert done.returncode == 2
    assert message in done.stdout + done.stderr


def test_an_unknown_command_lists_the_known_ones() -> None:
    done = subprocess.run(
        ["python3", "-m", "runtime", "rum"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert all(target in done.stderr for target in TARGETS)


def test_the_ci_script_is_valid_and_calls_the_same_targets() -> None:
    script = paths.ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert "make test" in script.read_text()


def test_env_asks_for_the_control_plane_first(tmp_path: Path) -> None:
    code = f"""
import runtime.paths as paths, pathlib
paths.STATE = pathlib.Path({str(tmp_path)!r})
from runtime.__main__ import main
raise SystemExit(main(["env"]))
"""
    done = subprocess.run(["python3", "-c", code], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "control-plane` in another shell first" in done.stderr
