"""Watches what `dapr run` has started, because the dapr CLI itself goes on when one of its programs ends.

The CLI also ends its programs with SIGKILL only; `stop` asks them first.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

from runtime import processes
from runtime.errors import ChildDied
from runtime.processes import Child

_STOP_SECONDS = 10.0
_STARTING_SECONDS = 1.0
_CLOCK_SECONDS = 0.02  # so far the clock that dates files lags behind
_LOG_LINES = 15
_LOG_BYTES = 8_000
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_END = re.compile(r"process exited with error code|Exited (App|Dapr) successfully")


class Apps:
    """The programs below one `dapr run`: for each app of dapr.yaml, its process and its daprd."""

    def __init__(self, dapr: Child, app_logs: Path, app_ids: tuple[str, ...], *, since: float) -> None:
        """`since`: a time, as `time.time` says it, before the CLI was started."""
        self.dapr = dapr
        self._app_logs = app_logs
        self._names = names(app_ids)
        self._since = since - _CLOCK_SECONDS
        self._seen: dict[int, str] = {}

    def check(self) -> None:
        """Raises `ChildDied` when the CLI or a program that it had started has ended."""
        self.dapr.check()
        below = self._below()
        self._seen.update(_named(below))
        # Not by name: a program that is becoming another one has none for a moment.
        lost = [name for pid, name in self._seen.items() if pid not in below]
        for name in lost or self._reported():
            log = newest_log(self._app_logs, name)
            last_words = _fatal(log) or f"ends with:\n{_tail(log)}"
            raise ChildDied(f"{name} has ended; its log {log or 'is missing and'} {last_words}\n")

    def stop(self) -> None:
        """Ends the apps, then their daprds, then the CLI: each by SIGTERM, after a deadline by SIGKILL."""
        running = self._running()
        for sidecars in (False, True):
            self._end({pid for pid, name in running.items() if name.endswith("daprd") == sidecars})
        # A CLI that is still starting programs does not listen to signals.
        complete = set(self._names) <= set(self._seen.values())
        processes.stop(self.dapr, deadline_seconds=_STOP_SECONDS if complete else _STARTING_SECONDS)

    def _reported(self) -> list[str]:
        """Those whose end the CLI has written into their logs: an app may die before it is seen to run."""
        logs = {name: newest_log(self._app_logs, name) for name in self._names}
        return [name for name, log in logs.items() if log and self._is_new(log) and _END.search(_tail(log))]

    def _is_new(self, log: Path) -> bool:
        return log.stat().st_mtime >= self._since

    def _running(self) -> dict[int, str]:
        return _named(self._below())

    def _below(self) -> set[int]:
        table = processes.process_table()
        return {pid for pid, entry in table.items() if entry.parent == self.dapr.pid and not entry.zombie}

    def _end(self, pids: set[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + _STOP_SECONDS
        while pids & set(self._running()) and time.monotonic() < limit:
            time.sleep(0.05)


def names(app_ids: tuple[str, ...]) -> list[str]:
    """What `dapr run` starts for these apps."""
    return [name for app in app_ids for name in (app, f"{app} daprd")]


def newest_log(folder: Path, name: str) -> Path | None:
    """The log of the latest run of "agent", "agent daprd", ...; the CLI makes a new file for each run."""
    app, _, kind = name.partition(" ")
    found = sorted(folder.glob(f"{app}_{kind or 'app'}_*.log"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def link_logs(source: Path, target: Path, app_ids: tuple[str, ...]) -> None:
    """Links the latest logs of the apps under plain names beside the other logs."""
    for name in names(app_ids):
        log = newest_log(source, name)
        link = target / f"{name.replace(' ', '-')}.log"
        if log:
            link.unlink(missing_ok=True)
            link.symlink_to(log)


def _named(pids: set[int]) -> dict[int, str]:
    named = {pid: _name(pid) for pid in pids}
    return {pid: name for pid, name in named.items() if name}


def _name(pid: int) -> str:
    """The app id of a program below `dapr run`, with " daprd" for the sidecar; empty before it is known."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if "--app-id" in words:
        return f"{words[words.index('--app-id') + 1]} daprd"
    found = [entry.partition("=")[2] for entry in environment if entry.startswith("APP_ID=")]
    return found[0] if found else ""


def _fatal(log: Path | None) -> str:
    """What daprd says of its own end, without the thirty lines of its shutdown around it."""
    found = _FATAL.findall(_end_of(log))
    return f"says: {found[-1]}" if found else ""


def _tail(log: Path | None) -> str:
    return "\n".join(_end_of(log).splitlines()[-_LOG_LINES:])


def _end_of(log: Path | None) -> str:
    if log is None:
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return file.read().decode(errors="replace")
