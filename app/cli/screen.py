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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from types import TracebackType
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.domain.formatting import Digits
from app.domain.money import plain

# How a table becomes lines: a row a line where there is room, a block of lines for each row where there is not.
#
# No cell is ever broken inside a number, a name or a word: names and figures keep to one line, prose breaks at spaces.
# A table for a program (a pipe) has every column, and a row is always a line.

GAP = 2
READABLE = 20  # the least width of prose, before rows are stacked instead
INDENT = 2


class ColumnKind(Enum):
    """What a column's cells are."""

    NAME = "name"
    FIGURE = "figure"
    PROSE = "prose"


@dataclass(frozen=True)
class Column:
    """A column; the first one of a table names its rows, and always stays. `common`: told once above the table where
    every row says the same. `spare`: left out, the highest number first, where there is no room; 0 is never left out.
    """

    title: str
    kind: ColumnKind = ColumnKind.NAME
    common: bool = False
    spare: int = 0


def name(*titles: str) -> list[Column]:
    """Columns of names."""
    return [Column(title) for title in titles]


def figures(*titles: str) -> list[Column]:
    """Columns of figures: to the right."""
    return [Column(title, ColumnKind.FIGURE) for title in titles]


@dataclass(frozen=True)
class TablePage:
    """A table in lines. `common` is what every row says, `left_out` the columns that there was no room for."""

    lines: tuple[str, ...]
    titles: int = 0  # how many of the lines, from the first, are the titles
    common: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Strip:
    """A column with its cells."""

    column: Column
    cells: tuple[str, ...]

    @property
    def natural(self) -> int:
        """The width at which nothing is wrapped."""
        return max(cell_len(self.column.title), *map(cell_len, self.cells), 0)

    @property
    def least(self) -> int:
        """The width below which something would be broken, or be no pleasure to read."""
        title = _longest_word(self.column.title)
        if self.column.kind is not ColumnKind.PROSE:
            return max(title, *map(cell_len, self.cells), 0)
        return max(title, min(READABLE, self.natural), *map(_longest_word, self.cells), 0)

    def fitted(self, text: str, width: int) -> str:
        """One line of a cell, filled up to the width."""
        space = " " * (width - cell_len(text))
        return space + text if self.column.kind is ColumnKind.FIGURE else text + space


def lay_out(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> TablePage:
    """The lines of a table for a screen of that width; None: for a program, whatever the width."""
    cells = [tuple(row) for row in rows]
    strips = [_Strip(column, tuple(row[place] for row in cells)) for place, column in enumerate(columns)]
    if width is None:
        return TablePage(tuple(_table(strips, [strip.natural for strip in strips])), titles=1)
    filled = [strip for place, strip in enumerate(strips) if place == 0 or any(strip.cells) or not cells]
    common = [strip for strip in filled[1:] if _says_the_same(strip)]
    rest = [strip for strip in filled if strip not in common]
    heading = tuple((strip.column.title, next(filter(None, strip.cells))) for strip in common)
    kept = _with_room(rest, width)
    if kept is None:
        return TablePage(tuple(_blocks(rest, width)), common=heading)
    widths = _widths(kept, width)
    left_out = tuple(strip.column.title for strip in rest if strip not in kept)
    titles = max(len(_wrapped(strip.column.title, width)) for strip, width in zip(kept, widths, strict=True))
    return TablePage(tuple(_table(kept, widths)), titles, heading, left_out)


def facts(pairs: Iterable[tuple[str, str]], width: int | None) -> tuple[str, ...]:
    """Names with what they are, a line each or, where that is too long, several."""
    return tuple(_labelled([(title, text, ColumnKind.PROSE) for title, text in pairs], 0, width))


def _says_the_same(strip: _Strip) -> bool:
    return strip.column.common and len(set(filter(None, strip.cells))) == 1


def _with_room(strips: list[_Strip], width: int) -> list[_Strip] | None:
    """The columns that fit side by side; None when not even those that are never left out do."""
    kept = list(strips)
    while sum(strip.least for strip in kept) + GAP * (len(kept) - 1) > width:
        spare = [strip for strip in kept[1:] if strip.column.spare]
        if not spare:
            return None
        kept.remove(max(spare, key=lambda strip: strip.column.spare))
    return kept


def _widths(strips: list[_Strip], width: int) -> list[int]:
    """The least widths, and what is left given to those that would need more, one after another."""
    widths = [strip.least for strip in strips]
    room = width - sum(widths) - GAP * (len(strips) - 1)
    while room > 0 and (short := [n for n, strip in enumerate(strips) if widths[n] < strip.natural]):
        for place in short[:room]:
            widths[place] += 1
        room -= len(short[:room])
    return widths


def _table(strips: list[_Strip], widths: list[int]) -> Iterator[str]:
    """The titles, then each row."""
    yield from _row([(replace(strip, cells=()), strip.column.title) for strip in strips], widths, wrap_all=True)
    for number in range(len(strips[0].cells) if strips else 0):
        yield from _row([(strip, strip.cells[number]) for strip in strips], widths)


def _row(cells: list[tuple[_Strip, str]], widths: list[int], *, wrap_all: bool = False) -> Iterator[str]:
    texts = [
        _wrapped(text, width) if wrap_all or strip.column.kind is ColumnKind.PROSE else [text]
        for (strip, text), width in zip(cells, widths, strict=True)
    ]
    for number in range(max(map(len, texts), default=0)):
        line = [
            strip.fitted(text[number] if number < len(text) else "", width)
            for (strip, _), text, width in zip(cells, texts, widths, strict=True)
        ]
        yield (" " * GAP).join(line).rstrip()


def _blocks(strips: list[_Strip], width: int) -> Iterator[str]:
    """A block for each row: what the first column says, and the others below it, each with its title."""
    first, *others = strips
    for number, heading in enumerate(first.cells):
        if heading.strip():  # a row without a name goes on with what the one before it is about
            yield from ([""] if number else [])
            yield heading
        cells = [
            (strip.column.title, strip.cells[number], strip.column.kind) for strip in others if strip.cells[number]
        ]
        yield from _labelled(cells, INDENT, width)


def _labelled(cells: list[tuple[str, str, ColumnKind]], indent: int, width: int | None) -> Iterator[str]:
    """`title  text`; a text that is too long is wrapped beside its title or, where that breaks something, below it."""
    start = indent + max((cell_len(title) for title, _, _ in cells), default=0) + GAP
    for title, text, kind in cells:
        label = " " * indent + title
        filled = label + " " * (start - cell_len(label))
        if width is None or start + cell_len(text) <= width:
            yield f"{filled}{text}".rstrip()
        elif kind is ColumnKind.PROSE and start + max(READABLE, _longest_word(text)) <= width:
            head, *rest = _wrapped(text, width - start)
            yield filled + head
            yield from (" " * start + line for line in rest)
        else:
            yield label
            yield from (" " * (indent + INDENT) + line for line in _wrapped(text, width - indent - INDENT))


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most that width, broken between words alone: a longer word has a line of its own."""
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


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


Exact = Annotated[bool, typer.Option("--exact", help="Every digit of the amounts, instead of rounded ones.")]


def rounding(digits: Digits) -> Iterator[str]:
    """What to say below a table with rounded amounts."""
    yield from (f"{note}; --exact shows every digit" for note in digits.notes())


def show_json(answer: BaseModel | Sequence[BaseModel]) -> None:
    """An answer for programs, on stdout: an object, or a list of them."""
    value: Any
    if isinstance(answer, BaseModel):
        value = answer.model_dump(mode="json")
    else:
        value = [item.model_dump(mode="json") for item in answer]
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
    whole = _COMMAND.sub(lambda match: match[0].replace(" ", _JOINED), line)
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
