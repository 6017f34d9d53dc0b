"""What the README says exists, and what exists is said there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from app.cli.root import cli
from app.domain.models import TaskStatus
from sandbox.data import load_expected
from tests.paths import ROOT

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


def test_every_provider_of_the_documents_has_its_template() -> None:
    for document in (README, (ROOT / "docs" / "providers.md").read_text()):
        names = re.findall(r"provider (?:show|use) ([a-z][a-z-]+)", document)
        assert names
        for name in names:
            assert (ROOT / "components" / "providers" / f"{name}.yaml").is_file(), name


def commands(text: str) -> list[list[str]]:
    """The words of every `refund-agent` command that stands on a line of its own or in a table."""
    lines = re.findall(r"^refund-agent (.*)$", text, re.MULTILINE) + re.findall(r"`refund-agent ([^`]+)`", text)
    found = (line.split(" #")[0].split() for line in lines)
    # A word in capitals stands for one of the reader's own; `...` and what is a placeholder alone is no command.
    return [words for words in found if words and words[0].islower()]


def leaves(group: TyperGroup) -> Iterator[Any]:
    """Every command that can be run."""
    for command in group.commands.values():
        yield from leaves(command) if isinstance(command, TyperGroup) else ()
        yield command


@pytest.mark.parametrize("document", ["README.md", "docs/operations.md", "docs/crash-cost.md", "docs/providers.md"])
def test_every_command_of_the_documents_is_one_with_its_options(
    document: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    # Completion is put into the home of whoever asks, for the shell that runs it.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    found = commands((ROOT / document).read_text())
    assert len(found) > 1
    for words in found:
        root = typer.main.get_command(cli)
        assert isinstance(root, TyperGroup)
        for command in leaves(root):
            command.callback = lambda **_: None  # what it would do is another test's matter
        if words[-1] in root.commands and isinstance(root.commands[words[-1]], TyperGroup):
            continue  # a group named as such
        with pytest.raises(SystemExit) as ended:
            root.main(words)
        assert ended.value.code == 0, (words, capsys.readouterr().err)


def test_the_readme_shows_tasks_that_wait_when_the_samples_are_done() -> None:
    expected = load_expected()
    named = re.findall(r"refund-agent (?:task \w+|record) ([a-z]+:[\w-]+)", README)
    assert len(named) >= 4
    for task_id in named:
        assert expected[task_id].status is TaskStatus.WAITING, task_id
        assert expected[task_id].refund is not None, f"{task_id} proposes nothing, so it cannot be approved as it is"


def test_the_shell_takes_the_readmes_commands_as_they_stand() -> None:
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        assert subprocess.run(["bash", "-n"], input=block, text=True, check=False).returncode == 0
        for line in block.splitlines():
            unquoted = re.sub(r"'[^']*'|\"[^\"]*\"", "", line.split(" #")[0])
            assert not re.search(r"[?*\[]", unquoted), f"a shell would look for files of that name: {line}"


def test_every_test_that_the_readme_names_is_there() -> None:
    named = re.findall(r"make test ARGS=(\S+?)`", README)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_dependency_has_its_reason() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    wanted = re.findall(r"^([A-Za-z0-9-]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert wanted
    for name in wanted:
        assert name in design, f"docs/design.md gives no reason for {name}"


def test_locks_name_hashes_and_no_place_to_fetch_from() -> None:
    locks = [*ROOT.glob("*.lock"), *ROOT.glob("lab/bench/*.lock"), *ROOT.glob("runtime/*.lock")]
    assert len(locks) >= 3
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock.name
        assert "://" not in text, lock.name
