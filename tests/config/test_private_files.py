"""The agent's files are private whatever the umask, and open ones are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config.private_files import exposure_warning, private_folder
from app.ledger.store import database
from runtime import paths, processes, state

OPEN = 0o022


@pytest.fixture(autouse=True)
def wide_open() -> Iterator[None]:
    """A umask that gives everybody all rights."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """The paths in and including a folder to which other users have any right."""
    everything = [folder, *folder.rglob("*")]
    return [str(path) for path in everything if not path.is_symlink() and path.lstat().st_mode & 0o077]


def test_a_new_state_folder_and_all_that_the_set_up_puts_into_it(tmp_path: Path) -> None:
    state.prepare(tmp_path / "state")
    assert open_to_others(tmp_path / "state") == []


def test_the_ledger_with_its_log(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert private_folder(folder) == [folder] or open_to_others(folder) == []
    engine = database.connect(f"sqlite:///{folder / 'ledger.sqlite'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
        names = {path.name for path in folder.iterdir()}
        assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"} <= names
        assert open_to_others(folder) == []
    engine.dispose()


def test_what_a_process_writes_and_its_log(tmp_path: Path) -> None:
    written = tmp_path / "inner" / "written"
    code = f"import pathlib; p = pathlib.Path({str(written)!r}); p.parent.mkdir(); p.write_text('x'); print('said')"
    child = processes.start("writer", [sys.executable, "-c", code], log=tmp_path / "logs" / "writer.log")
    processes.wait_until(lambda: not child.alive(), what="the end", deadline_seconds=60)
    assert child.last_lines() == "said"
    assert open_to_others(written.parent) == open_to_others(tmp_path / "logs") == []


@pytest.mark.parametrize("command", [("app", "cost", "report"), ("sandbox", "--model-port", "x")])
def test_a_command_started_by_hand_closes_its_own_umask(command: tuple[str, ...], tmp_path: Path) -> None:
    """Both commands set the umask first; their further work does not matter here."""
    code = (
        "import os, runpy, sys, atexit; os.umask(0); atexit.register(lambda: print(oct(os.umask(0)), flush=True));"
        f"sys.argv = {[*command]!r}; runpy.run_module({command[0]!r}, run_name='__main__', alter_sys=False)"
    )
    environment = os.environ | {"REFUND_AGENT_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    expected = "0o77" if command[0] == "app" else "0o0"  # the sandbox refused its arguments before
    assert done.stdout.split()[-1] == expected, done.stderr


def test_open_files_are_closed_and_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "state"
    (folder / "sandbox" / "deep").mkdir(parents=True)
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "token", "sandbox/deep/books.sqlite"):
        (folder / name).write_text("x")
    (folder / "elsewhere").symlink_to(tmp_path)
    opened = private_folder(folder)
    assert open_to_others(folder) == []
    assert f"{folder} and {len(opened) - 1} more could be read by other users" in exposure_warning(opened)
    assert private_folder(folder) == []
    assert tmp_path.stat().st_mode & 0o077, "what a link leads to is left alone"


def test_other_files_are_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").write_text("x")
    (tmp_path / "ledger.sqlite").write_text("x")
    assert private_folder(Path()) == [Path("ledger.sqlite")]
    assert private_folder(Path("theirs").parent) == []
    assert (tmp_path / "theirs").stat().st_mode & 0o077
    assert tmp_path.stat().st_mode & 0o077
