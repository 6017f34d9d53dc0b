"""What a person or a program sees: JSON, tables and progress. Results go to stdout, all else to stderr."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.cli.layout import Column, facts, lay_out
from app.domain.money import plain

PLAIN_EVERY_SECONDS = 2.0
CsvCell = str | int | Decimal | None
_COMMAND, _JOINED = re.compile(r"`[^`]*`"), "\0"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV for spreadsheets, with every digit.")]
_WIDE: ContextVar[bool] = ContextVar("wide", default=False)


def _set_wide(wide: bool) -> bool:
    _WIDE.set(wide)
    return wide


# The option tells this module by itself: a command has it as a parameter, and need not pass it on.
Wide = Annotated[
    bool,
    typer.Option("--wide", callback=_set_wide, help="Every column and a line for each row, however wide the screen."),
]


def show_json(value: Any) -> None:
    """A value for programs, on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def one_form(*, as_csv: bool, as_json: bool) -> None:
    """Raises BadParameter when both were asked for."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json do not go together: give one of them")


def show_csv(columns: Sequence[str], rows: Iterable[Sequence[CsvCell]]) -> None:
    """A table for spreadsheets, on stdout: amounts and counts with every digit, what is not known empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    typer.echo(text.getvalue(), nl=False)


def _csv_cell(cell: CsvCell) -> str:
    """A text that a spreadsheet would take for a formula is marked as text."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return plain(cell)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else str(cell)


def say(line: str) -> None:
    """A sentence for people, on stdout; on a terminal it is broken between words, and never inside a `command`."""
    width = screen_width()
    typer.echo(printable(line) if width is None else "\n".join(_broken(printable(line), width)))


def _broken(line: str, width: int) -> Sequence[str]:
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", _JOINED), line)
    pieces = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    return [piece.replace(_JOINED, " ") for piece in pieces] or [""]


def complain(line: str) -> None:
    """A line about something wrong, on stderr."""
    typer.echo(printable(line), err=True)


def printable(text: str) -> str:
    """The text without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def show_table(columns: Sequence[Column | str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; a title alone stands for a column of names."""
    width = screen_width()
    named = [Column(column) if isinstance(column, str) else column for column in columns]
    page = lay_out(named, ([printable(cell) for cell in row] for row in rows), width)
    if page.common:
        say("every row: " + ", ".join(f"{title} {text}" for title, text in page.common))
    console = Console(highlight=False)
    for number, line in enumerate(page.lines):
        console.print(Text(line, style="bold" if number < page.titles else ""), soft_wrap=True)
    if page.left_out:
        say(f"note: no room for {', '.join(page.left_out)}; --wide shows every column")


def show_facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names with what they are, on stdout; those of which nothing is known are left out."""
    for line in facts(((name, printable(text)) for name, text in pairs if text), screen_width()):
        typer.echo(line)


def screen_width() -> int | None:
    """The columns to lay out for; None with --wide, and where no person looks: what is wrapped for a pipe is lost to
    grep."""
    return None if _WIDE.get() else _terminal_width()


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class ProgressMeter:
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

    def __enter__(self) -> ProgressMeter:
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
