"""What the README says exists, and what exists is said there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# Paths that only a run makes.
MADE = (".state", ".venv", ".dapr")


def test_every_make_target_of_the_readme_exists_and_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


def test_every_path_of_the_readme_exists() -> None:
    paths = re.findall(r"`((?:app|config|components|resiliency|docs|bench|runtime|dapr\.yaml)[\w./-]*)`", README)
    assert len(paths) >= 8
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_copy_of_the_readme_has_its_source() -> None:
    for source in re.findall(r"cp (\S+) components/llm.yaml", README):
        assert (ROOT / source).is_file(), source


def test_every_command_of_the_readme_exists() -> None:
    said = set(re.findall(r"^refund-agent ((?:task )?[a-z]+)", README, re.MULTILINE))
    assert said
    for command in sorted(said):
        done = subprocess.run(
            [sys.executable, "-m", "app", *command.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, command


def test_every_dependency_has_its_reason() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    wanted = re.findall(r"^([A-Za-z0-9-]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert wanted
    for name in wanted:
        assert name in design, f"docs/design.md gives no reason for {name}"


def test_locks_name_hashes_and_no_place_to_fetch_from() -> None:
    locks = [*ROOT.glob("*.lock"), *ROOT.glob("bench/*.lock"), *ROOT.glob("runtime/*.lock")]
    assert len(locks) >= 3
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock.name
        assert "://" not in text, lock.name
