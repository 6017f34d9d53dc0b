"""Watches and stops the programs of a `dapr run`.

The dapr CLI keeps running when one of its programs ends, and stops them with SIGKILL only. `Apps` reports the end of a
program, and sends SIGTERM first.
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
_CLOCK_SECONDS = 0.02  # the clock of file times may lag by this much
_LOG_LINES = 15
_LOG_BYTES = 8_000
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
_END = re.compile(r"process exited with error code|Exited (App|Dapr) successfully")


class Apps:
    """The programs of a `dapr run`: for each app of dapr.yaml, its process and its daprd."""

    def __init__(self, dapr: Child, app_logs: Path, app_ids: tuple[str, ...], *, since: float) -> None:
        """`since` is a time (`time.time()`) before the CLI was started."""
        self.dapr = dapr
        self._app_logs = app_logs
        self._names = program_names(app_ids)
        self._since = since - _CLOCK_SECONDS
        self._seen: dict[int, str] = {}

    def check(self) -> None:
        """Raises `ChildDied` if the CLI or one of its programs has ended."""
        self.dapr.check()
        children = self._child_pids()
        self._seen.update(_name_programs(children))
        # By pid, since a program has no name for a moment while it executes another one.
        lost = [name for pid, name in self._seen.items() if pid not in children]
        for name in lost or self._ends_in_logs():
            log = newest_log(self._app_logs, name)
            last_words = _fatal_message(log) or f"ends with:\n{_tail(log)}"
            raise ChildDied(f"{name} has ended; its log {log or 'is missing and'} {last_words}\n")

    def stop(self) -> None:
        """Stops the apps, then their daprds, then the CLI: each with SIGTERM, then SIGKILL after a deadline."""
        running = self._running()
        for sidecars in (False, True):
            self._terminate({pid for pid, name in running.items() if name.endswith("daprd") == sidecars})
        # A CLI that still starts programs ignores signals.
        complete = set(self._names) <= set(self._seen.values())
        processes.stop(self.dapr, deadline_seconds=_STOP_SECONDS if complete else _STARTING_SECONDS)

    def _ends_in_logs(self) -> list[str]:
        """The programs whose end the CLI has logged. An app may die before `check` has seen it."""
        logs = {name: newest_log(self._app_logs, name) for name in self._names}
        return [name for name, log in logs.items() if log and self._is_new(log) and _END.search(_tail(log))]

    def _is_new(self, log: Path) -> bool:
        return log.stat().st_mtime >= self._since

    def _running(self) -> dict[int, str]:
        return _name_programs(self._child_pids())

    def _child_pids(self) -> set[int]:
        table = processes.process_table()
        return {pid for pid, entry in table.items() if entry.parent == self.dapr.pid and not entry.zombie}

    def _terminate(self, pids: set[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        limit = time.monotonic() + _STOP_SECONDS
        while pids & set(self._running()) and time.monotonic() < limit:
            time.sleep(0.05)


def program_names(app_ids: tuple[str, ...]) -> list[str]:
    """The names of the programs that `dapr run` starts for these apps."""
    return [name for app in app_ids for name in (app, f"{app} daprd")]


def newest_log(folder: Path, name: str) -> Path | None:
    """The log of the latest run of a program, such as "agent daprd". The CLI makes a new file for each run."""
    app, _, kind = name.partition(" ")
    logs = sorted(folder.glob(f"{app}_{kind or 'app'}_*.log"), key=lambda path: path.stat().st_mtime)
    return logs[-1] if logs else None


def link_logs(source: Path, target: Path, app_ids: tuple[str, ...]) -> None:
    """Links the latest logs of the apps into the folder of the other logs, under plain names."""
    for name in program_names(app_ids):
        log = newest_log(source, name)
        link = target / f"{name.replace(' ', '-')}.log"
        if log:
            link.unlink(missing_ok=True)
            link.symlink_to(log)


def _name_programs(pids: set[int]) -> dict[int, str]:
    names = {pid: _name(pid) for pid in pids}
    return {pid: name for pid, name in names.items() if name}


def _name(pid: int) -> str:
    """The app id of a program of `dapr run`, followed by " daprd" for a sidecar; empty while unknown."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    if "--app-id" in words:
        return f"{words[words.index('--app-id') + 1]} daprd"
    app_ids = [entry.partition("=")[2] for entry in environment if entry.startswith("APP_ID=")]
    return app_ids[0] if app_ids else ""


def _fatal_message(log: Path | None) -> str:
    """The fatal error of daprd, without the lines of its shutdown around it."""
    messages = _FATAL.findall(_log_end(log))
    return f"says: {messages[-1]}" if messages else ""


def _tail(log: Path | None) -> str:
    return "\n".join(_log_end(log).splitlines()[-_LOG_LINES:])


def _log_end(log: Path | None) -> str:
    if log is None:
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_BYTES))
        return file.read().decode(errors="replace")
