"""What `pip install .` installs: everything that the program reads is in it, and it runs without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("app", "sandbox")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as a wheel holds them, made by the build backend itself; of a copy, for it writes beside it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.in"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-W", "ignore", "-c", "from setuptools import setup; setup()"]
    commands = ["-q", "build_py", "--build-lib", str(folder / "lib"), "egg_info", "--egg-base", str(folder / "lib")]
    subprocess.run([*build, *commands], cwd=source, check=True, capture_output=True)
    return folder / "lib"


def test_every_file_of_the_program_is_in_it_and_nothing_else(built: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    everything = (path for package in PACKAGES for path in (built / package).rglob("*"))
    installed = {str(path.relative_to(built)) for path in everything if path.is_file()}
    assert {name for name in tracked if (ROOT / name).exists()} == installed
    assert {path.name for path in built.iterdir()} == {*PACKAGES, "refund_agent.egg-info"}


def test_it_asks_for_what_the_product_imports_and_brings_its_command(built: Path) -> None:
    about = built / "refund_agent.egg-info"
    wanted = [line for line in (ROOT / "requirements.in").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in (about / "requires.txt").read_text().splitlines() if line] == wanted
    assert "refund-agent = app.__main__:main" in (about / "entry_points.txt").read_text()
    assert "License: Apache-2.0" in (about / "PKG-INFO").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--version",), 0, "refund-agent 0.1.0"),
        (("task", "list"), 1, "no token"),
        (("experiment", "crash-cost"), 1, "experiments need the project's checkout"),
        (("serve",), 1, "config/policy.yaml: cannot be read"),
        (("price", "check"), 1, "run this in the project's folder"),
        (("doctor",), 1, "run this in the project's folder"),
    ],
)
def test_it_runs_without_a_checkout_and_says_what_needs_one(
    built: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    environment = os.environ | {"PYTHONPATH": str(built), "COLUMNS": "300"}
    command = [sys.executable, "-P", "-c", "from app.__main__ import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_who_contributes_or_finds_a_hole_is_told_how() -> None:
    contributing, security = ((ROOT / name).read_text() for name in ("CONTRIBUTING.md", "SECURITY.md"))
    assert "make test" in contributing
    assert "report" in security.lower()
