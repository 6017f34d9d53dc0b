"""No started process is left behind: no grandchild, no daemon, and none after a SIGKILL of the starter."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime import paths, processes
from runtime.errors import ChildDied, NotReady
from runtime.processes import Child

# Starts a grandchild, and an orphaned daemon in another session; all ignore SIGTERM.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True"
daemon = f"import subprocess; print(subprocess.Popen({sleeper!r}, {quiet}).pid)"
grandchild = subprocess.Popen(sleeper).pid
orphan = subprocess.run([sys.executable, "-c", daemon], capture_output=True, text=True, start_new_session=True)
print("ready", grandchild, orphan.stdout.split()[0], flush=True)
time.sleep(600)
"""
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("bye", time.monotonic_ns())))
print("up", flush=True)
time.sleep(600)
"""


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "the condition did not hold in time"
        time.sleep(0.02)


def running(pid: int) -> bool:
    process = processes.process_table().get(pid)
    return process is not None and not process.zombie


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[tuple[Child, list[int]]]:
    child = processes.start("stubborn", [sys.executable, "-c", STUBBORN], log=tmp_path / "stubborn.log")
    try:
        until(lambda: "ready" in child.last_lines())
        line = next(line for line in child.last_lines().splitlines() if line.startswith("ready"))
        yield child, [child.pid, *map(int, line.split()[1:])]
    finally:
        processes.kill(child)


def test_stop_ends_grandchildren_and_daemons_too(stubborn: tuple[Child, list[int]]) -> None:
    child, pids = stubborn
    assert all(running(pid) for pid in pids)
    processes.stop(child, deadline_seconds=0.5)
    assert [pid for pid in pids if running(pid)] == []


def test_kill_ends_all_at_once(stubborn: tuple[Child, list[int]]) -> None:
    child, pids = stubborn
    processes.kill(child)
    assert [pid for pid in pids if running(pid)] == []
    assert child.process.returncode == -signal.SIGKILL


def test_kill_ends_processes_started_after_the_first_listing(
    stubborn: tuple[Child, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    child, pids = stubborn
    list_tree, listings = processes.process_tree, itertools.count()

    def list_leader_first(leader: int, mark: str) -> set[int]:
        return {leader} if next(listings) == 0 else list_tree(leader, mark)

    monkeypatch.setattr(processes, "process_tree", list_leader_first)
    processes.kill(child)
    assert not [pid for pid in pids if running(pid)]


def test_stop_gives_time_for_an_orderly_end(tmp_path: Path) -> None:
    child = processes.start("polite", [sys.executable, "-c", POLITE], log=tmp_path / "polite.log")
    until(lambda: "up" in child.last_lines())
    processes.stop(child, deadline_seconds=60)
    assert child.process.returncode == 0
    assert "bye" in child.last_lines()


def test_a_child_that_dies_early_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('no such table'); sys.exit(3)"
    child = processes.start("ledger", [sys.executable, "-c", code], log=tmp_path / "ledger.log")
    with pytest.raises(ChildDied) as caught:
        processes.wait_until(lambda: False, what="ledger", deadline_seconds=60, children=[child])
    assert "ledger has ended (exit code 3)" in str(caught.value)
    assert "no such table" in str(caught.value)


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = processes.start("ghost", ["/nonexistent/ghost"], log=tmp_path / "ghost.log")
    with pytest.raises(ChildDied, match="/nonexistent/ghost cannot be started"):
        processes.wait_until(lambda: False, what="ghost", deadline_seconds=60, children=[child])


def test_a_deadline_is_kept_and_shows_the_log(tmp_path: Path) -> None:
    code = "import time; print('still thinking', flush=True); time.sleep(600)"
    child = processes.start("slow", [sys.executable, "-c", code], log=tmp_path / "slow.log")
    until(lambda: "thinking" in child.last_lines())
    with pytest.raises(NotReady, match="still thinking"):
        processes.wait_until(lambda: False, what="slow", deadline_seconds=0.1, children=[child])
    processes.stop(child)


def test_stop_all_stops_the_last_one_first(tmp_path: Path) -> None:
    children = []
    for name in ("first", "second", "third"):
        child = processes.start(name, [sys.executable, "-c", POLITE], log=tmp_path / name)
        until(lambda child=child: "up" in child.last_lines())  # type: ignore[misc]
        children.append(child)
    processes.stop_all(children, deadline_seconds=60)
    ends = [int(child.last_lines().split()[-1]) for child in children]
    assert ends == sorted(ends, reverse=True)


def test_sigkill_of_the_starter_leaves_no_orphan(tmp_path: Path) -> None:
    starter = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from runtime import processes
        sleeper = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
        child = processes.start("sleeper", sleeper, log=Path({str(tmp_path / "sleeper.log")!r}))
        while "up" not in child.last_lines():
            time.sleep(0.02)
        print(child.pid, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, cwd=paths.ROOT
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert running(pid)
        process.kill()
    try:
        until(lambda: not running(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_foreground_program_gives_its_exit_code_and_is_stopped_when_the_watch_raises() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit(7)"]
    assert processes.run_foreground(command, environment={}, watch=lambda: None) == 7

    def alarm() -> None:
        raise ChildDied("daprd has ended")

    started = time.monotonic()
    with pytest.raises(ChildDied):
        processes.run_foreground(["sleep", "600"], environment={}, watch=alarm)
    assert time.monotonic() - started < 10
