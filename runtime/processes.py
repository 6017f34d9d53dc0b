"""Starts programs so that none is left behind, and stops them in time.

Each child has a session of its own, a log file, and dies with its parent (the kernel ends it when its starter ends).
Stopping is SIGTERM, a deadline, then SIGKILL, for the child and for everything that it started.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.config.private_files import UMASK
from runtime import process_tree
from runtime.errors import ChildDied, NotReady
from runtime.signals import put_off

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
        # A signal that unwinds in the middle of `poll` leaves the child's lock taken, and whoever stops the child then
        # waits for it for ever.
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
    full = {**os.environ, **(environment or {}), process_tree.MARK: mark}

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
    full = {**os.environ, **environment, process_tree.MARK: mark}
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
    rest = process_tree.members(child.pid, child.mark) - {child.pid}
    for pid in rest:
        _signal(pid, signal.SIGTERM)
    _wait(lambda: not process_tree.members(child.pid, child.mark), limit)
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
        living = process_tree.members(child.pid, child.mark)
        for pid in living:
            _signal(pid, signal.SIGKILL)
        return not living

    # Again and again: one that was seen may have started another before it was ended.
    _wait(all_are_gone, time.monotonic() + _KILL_SECONDS)
    child.process.wait()
    _reap_adopted()


def _reap_adopted() -> None:
    """Collects orphans that ended here; a child with a `Popen` of its own is left to that."""
    for process in process_tree.processes().values():
        if process.zombie and process.parent == os.getpid() and _is_adopted(process):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def _is_adopted(process: process_tree.Process) -> bool:
    return process.session not in (process.pid, os.getsid(0))


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(done: Callable[[], bool], limit: float) -> None:
    while not done() and time.monotonic() < limit:
        time.sleep(_POLL_SECONDS)
