"""Starts programs so that none is left behind, and stops them in time.

Each child has its own session and log file, and dies with its parent: the kernel ends it when its starter ends.
Stopping is SIGTERM, a deadline, then SIGKILL, for the child and for everything that it started. Reads /proc; on a
system without it only the child itself is known.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.config.private_files import UMASK
from runtime.errors import ChildDied, NotReady
from runtime.signals import put_off

# The process table, and every process that a child has started, including those that left its tree or its session.
#
# A child has a mark in its environment, which its descendants inherit. The mark, the process tree and the session id
# together find all of them.

MARK = "RUNTIME_FAMILY"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    zombie: bool


def process_table() -> dict[int, Process]:
    """All processes that can be seen now, by pid."""
    found = (_read(int(entry.name)) for entry in _PROC.glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def process_family(leader: int, mark: str) -> set[int]:
    """The living processes of a child's family: its tree, its session and all that carry its mark."""
    table = process_table()
    tree = set(_tree(leader, table))
    session = {process.pid for process in table.values() if process.session == leader}
    marked = {pid for pid in table if _carries(pid, mark)}
    return {pid for pid in tree | session | marked if pid in table and not table[pid].zombie}


def descendants(leader: int) -> set[int]:
    """The living processes below one process, itself not included."""
    table = process_table()
    return {pid for pid in _tree(leader, table) if pid != leader and not table[pid].zombie}


def _tree(leader: int, table: dict[int, Process]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = [leader] if leader in table else []
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, []))


def _read(pid: int) -> Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:  # gone between listing and reading
        return None
    state, parent, _group, session = text.rpartition(")")[2].split()[:4]
    return Process(pid, int(parent), int(session), state in "ZX")


def _carries(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        return f"{MARK}={mark}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False


_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_LOG_LINES = 15


@dataclass(frozen=True)
class Child:
    """A program that was started. `log` holds all that it has written."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @property
    def pid(self) -> int:
        """Its process id, which is also its session id."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._code() is None

    def last_lines(self, count: int = _LOG_LINES) -> str:
        """The end of its log, for an error message."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""

    def check(self) -> None:
        """Raises `ChildDied`, with the end of the log, when it has ended."""
        code = self._code()
        if code is None:
            return
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        raise ChildDied(f"{self.name} has ended ({how}); its log {self.log} ends with:\n{self.last_lines()}\n")

    def _code(self) -> int | None:
        # A signal that unwinds in the middle of `poll` leaves the child's lock taken; stopping the child would then
        # wait for it for ever.
        with put_off():
            return self.process.poll()


class _Spawner:
    """One thread that starts every child: the kernel ends a child with the *thread* that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, start: Callable[[], Child]) -> Child:
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="spawner")
        return self._pool.submit(start).result()


_spawner = _Spawner()


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant that loses its own (Linux): none can get away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    private: bool = True,
) -> Child:
    """Starts a program. Its output is appended to `log`; `environment` is added to this process's own.

    `private`: what it writes is its owner's alone (keys, books); otherwise the user's own umask holds.
    """
    log.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    supervised = [sys.executable, "-IS", str(_DIE_WITH_PARENT), str(os.getpid()), *command]
    full = {**os.environ, **(environment or {}), MARK: mark}

    def spawn() -> Child:
        with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600 if private else 0o666)) as output:
            process = subprocess.Popen(
                supervised,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=full,
                cwd=folder,
                start_new_session=True,
                umask=UMASK if private else -1,
            )
        return Child(name, process, log, mark)

    return _spawner.run(spawn)


def run_foreground(command: Sequence[str], *, environment: Mapping[str, str], watch: Callable[[], None]) -> int:
    """Runs a program on this terminal and returns its exit code; `watch` is called while it runs and may raise."""
    supervised = [sys.executable, "-IS", str(_DIE_WITH_PARENT), str(os.getpid()), *command]
    mark = uuid.uuid4().hex
    full = {**os.environ, **environment, MARK: mark}
    name = Path(command[0]).name
    child = _spawner.run(lambda: Child(name, subprocess.Popen(supervised, env=full), Path(os.devnull), mark))
    try:
        while child.alive():
            watch()
            time.sleep(_POLL_SECONDS)
    finally:
        stop(child)
    return child.process.returncode


def stop(child: Child, *, deadline_seconds: float = 10.0) -> None:
    """Ends a child and all that it started: SIGTERM, then SIGKILL when `deadline_seconds` are over."""
    limit = time.monotonic() + deadline_seconds
    if child.alive():
        _signal(child.pid, signal.SIGTERM)
    _wait(lambda: not child.alive(), limit)
    rest = process_family(child.pid, child.mark) - {child.pid}
    for pid in rest:
        _signal(pid, signal.SIGTERM)
    _wait(lambda: not process_family(child.pid, child.mark), limit)
    _end(child)


def kill(child: Child) -> None:
    """SIGKILL, at once, for the child and all that it started: a crash."""
    if child.alive():
        _signal(child.pid, signal.SIGKILL)
    _end(child)


def stop_all(children: Iterable[Child], *, deadline_seconds: float = 10.0) -> None:
    """Stops children in reverse order of their start; goes on to the next whatever happens to one."""
    failures: list[BaseException] = []
    for child in reversed(list(children)):
        try:
            stop(child, deadline_seconds=deadline_seconds)
        except BaseException as error:  # Ctrl-C included: the others must still be stopped
            failures.append(error)
            kill(child)
    if failures:
        raise failures[0]


def wait_until(
    ready: Callable[[], bool], *, what: str, deadline_seconds: float, children: Iterable[Child] = ()
) -> float:
    """Polls until `ready`; returns the seconds it took. Raises `ChildDied` or `NotReady`."""
    begun = time.monotonic()
    watched = list(children)
    while not ready():
        for child in watched:
            child.check()
        if time.monotonic() - begun > deadline_seconds:
            logs = "".join(f"\n{child.log} ends with:\n{child.last_lines()}" for child in watched)
            raise NotReady(f"{what} is not ready after {deadline_seconds:.0f} s.{logs}")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - begun


def _end(child: Child) -> None:
    def all_are_gone() -> bool:
        living = process_family(child.pid, child.mark)
        for pid in living:
            _signal(pid, signal.SIGKILL)
        return not living

    # Again and again: one that was seen may have started another before it was ended.
    _wait(all_are_gone, time.monotonic() + _KILL_SECONDS)
    child.process.wait()
    _reap_adopted()


def _reap_adopted() -> None:
    """Collects orphans that ended here; a child with a `Popen` of its own is left to that."""
    for process in process_table().values():
        if process.zombie and process.parent == os.getpid() and _is_adopted(process):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _is_adopted(process: Process) -> bool:
    return process.session not in (process.pid, os.getsid(0))


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(done: Callable[[], bool], limit: float) -> None:
    while not done() and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
