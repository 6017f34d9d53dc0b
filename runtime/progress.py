"""Prints one line a step, with its time. On a terminal the line is rewritten in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from runtime import processes
from runtime.errors import UserError

_TERMINAL_SECONDS = 0.5
_PLAIN_SECONDS = 20.0


class Step:
    """A step: `with Step("virtual environment") as step: step.update("40 of 140 packages")`."""

    def __init__(self, title: str, *, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._out = out or sys.stdout
        self._clock = clock
        self._live = self._out.isatty()
        self._started_at = clock()
        self._shown_at = self._started_at
        self._detail = ""

    def __enter__(self) -> Step:
        """Prints the title."""
        self._write(f"{self._title} ...", last=not self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Prints the result and the duration."""
        end = "done" if kind is None else "stopped" if kind is KeyboardInterrupt else "failed"
        detail = f"{self._detail}, " if self._detail else ""
        self._write(f"{self._title}: {detail}{end} ({self._seconds():.1f} s)", last=True)

    def update(self, detail: str) -> None:
        """Shows the progress; further calls within the interval are not printed."""
        self._detail = detail
        now = self._clock()
        if now - self._shown_at >= (_TERMINAL_SECONDS if self._live else _PLAIN_SECONDS):
            self._shown_at = now
            self._write(f"{self._title}: {detail} ({self._seconds():.0f} s)", last=not self._live)

    def _seconds(self) -> float:
        return self._clock() - self._started_at

    def _write(self, text: str, *, last: bool) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._out.write(f"{start}{text}{chr(10) if last else ''}")
        self._out.flush()


_POLL_SECONDS = 0.2


def follow(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    step: Step,
    describe: Callable[[list[str]], str],
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Runs `command` to its end, with its output in `log`; shows `describe(lines so far)` as the step's detail.

    If this process ends (Ctrl-C, SIGTERM, SIGKILL), the program ends too. Raises `UserError` if it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    child = processes.start(name, command, log=log, environment=environment, folder=folder, private=False)
    lines: list[str] = []
    try:
        with log.open(errors="replace") as output:
            while child.alive():
                lines += output.readlines()
                step.update(describe(lines))
                time.sleep(_POLL_SECONDS)
            lines += output.readlines()
        step.update(describe(lines))
    finally:
        processes.stop(child)
    if child.process.returncode:
        raise UserError(
            f"{name} failed (exit code {child.process.returncode}); {log} ends with:\n{child.last_lines()}",
            remedy="\nCorrect the cause and run the same command again; it continues where it stopped.",
        )
