"""What a person or a program sees: JSON, tables and progress. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PLAIN_EVERY_SECONDS = 2.0
MIN_WIDTH_WITHOUT_TERMINAL = 240


def show_json(value: Any) -> None:
    """A value for programs, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(line: str) -> None:
    """A line for people, on stdout."""
    typer.echo(printable(line))


def complain(line: str) -> None:
    """A line about something wrong, on stderr."""
    typer.echo(printable(line), err=True)


def printable(text: str) -> str:
    """The text without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """A table on stdout; the columns in `right` hold figures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width: what is cut or wrapped for one is lost to grep.
        console = Console(highlight=False, width=max(console.width, MIN_WIDTH_WITHOUT_TERMINAL))
    console.print(table)


class Meter:
    """Progress on stderr: a bar on a terminal, a line of counts every two seconds elsewhere."""

    def __init__(self, what: str, total: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._total = total
        self._clock = clock
        self._done = 0
        self._note = ""
        self._said_at = clock()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Meter:
        if sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(self._what, total=self._total, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._done:
            self._say()

    def step(self, note: str = "") -> None:
        """One more is done; `note` are the counts so far."""
        self._done += 1
        self._note = note
        if self._bar:
            self._bar.update(self._task, advance=1, note=note)
        elif self._clock() - self._said_at >= PLAIN_EVERY_SECONDS:
            self._said_at = self._clock()
            self._say()

    def _say(self) -> None:
        of = f" of {self._total}" if self._total is not None else ""
        complain(f"{self._what}: {self._done}{of}{'  ' + self._note if self._note else ''}")
