"""Runs a long program to its end while telling a step how far it is; its whole output is kept in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtime import processes
from runtime.errors import UserError
from runtime.progress import Step

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
    """Runs `command`; shows `describe(lines so far)` as the step's detail. Raises `UserError` when it fails.

    Whatever ends this process (Ctrl-C, SIGTERM, SIGKILL) ends the program too.
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
            remedy="\nMend the cause and run the same command again: it goes on where it stopped.",
        )
