"""Starts and stops programs so that no process is left behind.

Each child has its own session and log file, and the kernel ends it when its starter ends. `stop` sends SIGTERM, then
SIGKILL after a deadline, to the child and all its descendants. Descendants are found in /proc; without /proc, only the
child itself is known.
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
from runtime.signals import defer_signals

# A child has a mark in its environment, which its descendants inherit. Mark, process tree and session id together find
# all descendants, also those that have left the tree or the session.
MARK = "RUNTIME_FAMILY"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A row of the process table."""

    pid: int
    parent: int
    session: int
    zombie: bool


def process_table() -> dict[int, Process]:
    """All visible processes, by pid."""
    rows = (_read(int(entry.name)) for entry in _PROC.glob("[0-9]*"))
    return {process.pid: process for process in rows if process}


def process_tree(leader: int, mark: str) -> set[int]:
    """The living processes of a child: its tree, its session and all that have its mark."""
    table = process_table()
    tree = set(_walk_tree(leader, table))
    session = {process.pid for process in table.values() if process.session == leader}
    marked = {pid for pid in table if _has_mark(pid, mark)}
    return {pid for pid in tree | session | marked if pid in table and not table[pid].zombie}


def descendants(leader: int) -> set[int]:
    """The living processes below a process, without itself."""
    table = process_table()
    return {pid for pid in _walk_tree(leader, table) if pid != leader and not table[pid].zombie}


def _walk_tree(leader: int, table: dict[int, Process]) -> Iterator[int]:
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
    except OSError:  # ended between listing and reading
        return None
    state, parent, _group, session = text.rpartition(")")[2].split()[:4]
    return Process(pid, int(parent), int(session), state in "ZX")


def _has_mark(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        return f"{MARK}={mark}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # ended, or of another user
        return False


_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_LOG_LINES = 15


@dataclass(frozen=True)
class Child:
    """A started program. `log` has its output."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    @property
    def pid(self) -> int:
        """The process id, which is also the session id."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._code() is None

    def last_lines(self, count: int = _LOG_LINES) -> str:
        """The last lines of the log, for an error message."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
        return ""

    def check(self) -> None:
        """Raises `ChildDied`, with the end of the log, if the program has ended."""
        code = self._code()
        if code is None:
            return
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        raise ChildDied(f"{self.name} has ended ({how}); its log {self.log} ends with:\n{self.last_lines()}\n")

    def _code(self) -> int | None:
        # An exception from a signal inside `poll` would leave the lock of `Popen` held, and stopping the child would
        # block for ever.
        with defer_signals():
            return self.process.poll()


class _Spawner:
    """Starts all children in one thread that lives as long as the process: the kernel ends a child with the *thread*
    that started it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, start: Callable[[], Child]) -> Child:
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="spawner")
        return self._pool.submit(start).result()


_spawner = _Spawner()


def adopt_orphans() -> None:
    """Makes this process the parent of all orphaned descendants (Linux), so that none escapes."""
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
    """Starts a program. Its output is appended to `log`; `environment` is added to this process's environment.

    private: only the owner can read the files that it writes (keys, books); otherwise the user's umask applies.
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
    """Stops a child and all its descendants: SIGTERM, then SIGKILL after `deadline_seconds`."""
    limit = time.monotonic() + deadline_seconds
    if child.alive():
        _signal(child.pid, signal.SIGTERM)
    _wait(lambda: not child.alive(), limit)
    descendants_left = process_tree(child.pid, child.mark) - {child.pid}
    for pid in descendants_left:
        _signal(pid, signal.SIGTERM)
    _wait(lambda: not process_tree(child.pid, child.mark), limit)
    _kill_tree(child)


def kill(child: Child) -> None:
    """Kills the child and all its descendants with SIGKILL, as in a crash."""
    if child.alive():
        _signal(child.pid, signal.SIGKILL)
    _kill_tree(child)


def stop_all(children: Iterable[Child], *, deadline_seconds: float = 10.0) -> None:
    """Stops children in reverse order of their start. A failure does not keep the others from being stopped."""
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
    """Polls until `ready`, and returns the seconds. Raises `ChildDied` if a child ends, `NotReady` with `what` after
    the deadline."""
    started = time.monotonic()
    watched = list(children)
    while not ready():
        for child in watched:
            child.check()
        if time.monotonic() - started > deadline_seconds:
            logs = "".join(f"\n{child.log} ends with:\n{child.last_lines()}" for child in watched)
            raise NotReady(f"{what} is not ready after {deadline_seconds:.0f} s.{logs}")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - started


def _kill_tree(child: Child) -> None:
    def kill_living() -> bool:
        living = process_tree(child.pid, child.mark)
        for pid in living:
            _signal(pid, signal.SIGKILL)
        return not living

    # Repeated, since a process may have started another one before it was killed.
    _wait(kill_living, time.monotonic() + _KILL_SECONDS)
    child.process.wait()
    _reap_orphans()


def _reap_orphans() -> None:
    """Reaps adopted orphans that have ended. Children with a `Popen` are left to it."""
    for process in process_table().values():
        if process.zombie and process.parent == os.getpid() and _is_orphan(process):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _is_orphan(process: Process) -> bool:
    return process.session not in (process.pid, os.getsid(0))


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(done: Callable[[], bool], limit: float) -> None:
    while not done() and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
