"""Output: tables, JSON, CSV and progress. Results go to stdout, everything else to stderr."""

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

# The layout of tables: one line for each row if it fits, else a block of lines for each row.
#
# Names and figures stay on one line; prose is wrapped at spaces. A pipe gets every column, and one line for each row.

GAP = 2
READABLE = 20  # the least width of a prose column; with less room, each row becomes a block
INDENT = 2


class ColumnKind(Enum):
    """The kind of a column's cells, which decides their alignment and wrapping."""

    NAME = "name"
    FIGURE = "figure"
    PROSE = "prose"


@dataclass(frozen=True)
class Column:
    """A column of a table. The first column of a table names its rows and is always shown.

    `common`: if every row has the same value, it is printed once above the table. `spare`: the order in which columns
    are left out for lack of room, the highest number first; 0 is never left out."""

    title: str
    kind: ColumnKind = ColumnKind.NAME
    common: bool = False
    spare: int = 0


def name(*titles: str) -> list[Column]:
    """Columns of names."""
    return [Column(title) for title in titles]


def figures(*titles: str) -> list[Column]:
    """Columns of figures, aligned to the right."""
    return [Column(title, ColumnKind.FIGURE) for title in titles]


@dataclass(frozen=True)
class TablePage:
    """A laid-out table. `common` has title and value of the columns that are equal in every row, `left_out` the titles
    of columns without room."""

    lines: tuple[str, ...]
    titles: int = 0  # number of title lines at the beginning
    common: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Strip:
    """A column with its cells."""

    column: Column
    cells: tuple[str, ...]

    @property
    def natural_width(self) -> int:
        """The width at which nothing is wrapped."""
        return max(cell_len(self.column.title), *map(cell_len, self.cells), 0)

    @property
    def least_width(self) -> int:
        """The least width at which no word is broken and prose stays readable."""
        title = _longest_word(self.column.title)
        if self.column.kind is not ColumnKind.PROSE:
            return max(title, *map(cell_len, self.cells), 0)
        return max(title, min(READABLE, self.natural_width), *map(_longest_word, self.cells), 0)

    def pad(self, text: str, width: int) -> str:
        """One line of a cell, padded to the width."""
        space = " " * (width - cell_len(text))
        return space + text if self.column.kind is ColumnKind.FIGURE else text + space


def lay_out(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> TablePage:
    """Lays out a table for a terminal `width` columns wide; None lays it out for a pipe."""
    cells = [tuple(row) for row in rows]
    strips = [_Strip(column, tuple(row[place] for row in cells)) for place, column in enumerate(columns)]
    if width is None:
        return TablePage(tuple(_table(strips, [strip.natural_width for strip in strips])), titles=1)
    filled = [strip for place, strip in enumerate(strips) if place == 0 or any(strip.cells) or not cells]
    common = [strip for strip in filled[1:] if strip.column.common and len(set(filter(None, strip.cells))) == 1]
    rest = [strip for strip in filled if strip not in common]
    heading = tuple((strip.column.title, next(filter(None, strip.cells))) for strip in common)
    kept = _columns_that_fit(rest, width)
    if kept is None:
        return TablePage(tuple(_blocks(rest, width)), common=heading)
    widths = _widths(kept, width)
    left_out = tuple(strip.column.title for strip in rest if strip not in kept)
    titles = max(len(_wrap(strip.column.title, width)) for strip, width in zip(kept, widths, strict=True))
    return TablePage(tuple(_table(kept, widths)), titles, heading, left_out)


def fact_lines(pairs: Iterable[tuple[str, str]], width: int | None) -> tuple[str, ...]:
    """Lays out pairs of name and value, one line for each, or several if the value is long."""
    return tuple(_label_lines([(title, text, ColumnKind.PROSE) for title, text in pairs], 0, width))


def _columns_that_fit(strips: list[_Strip], width: int) -> list[_Strip] | None:
    """The columns that fit side by side; None if even the obligatory ones do not fit."""
    kept = list(strips)
    while sum(strip.least_width for strip in kept) + GAP * (len(kept) - 1) > width:
        spare = [strip for strip in kept[1:] if strip.column.spare]
        if not spare:
            return None
        kept.remove(max(spare, key=lambda strip: strip.column.spare))
    return kept


def _widths(strips: list[_Strip], width: int) -> list[int]:
    """The least widths, with the remaining room shared among the columns that need more."""
    widths = [strip.least_width for strip in strips]
    room = width - sum(widths) - GAP * (len(strips) - 1)
    while room > 0 and (short := [n for n, strip in enumerate(strips) if widths[n] < strip.natural_width]):
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
        _wrap(text, width) if wrap_all or strip.column.kind is ColumnKind.PROSE else [text]
        for (strip, text), width in zip(cells, widths, strict=True)
    ]
    for number in range(max(map(len, texts), default=0)):
        line = [
            strip.pad(text[number] if number < len(text) else "", width)
            for (strip, _), text, width in zip(cells, texts, widths, strict=True)
        ]
        yield (" " * GAP).join(line).rstrip()


def _blocks(strips: list[_Strip], width: int) -> Iterator[str]:
    """One block for each row: the first cell, and the others below it, each with its title."""
    first, *others = strips
    for number, heading in enumerate(first.cells):
        if heading.strip():  # a row without a name continues the row before it
            yield from ([""] if number else [])
            yield heading
        cells = [
            (strip.column.title, strip.cells[number], strip.column.kind) for strip in others if strip.cells[number]
        ]
        yield from _label_lines(cells, INDENT, width)


def _label_lines(cells: list[tuple[str, str, ColumnKind]], indent: int, width: int | None) -> Iterator[str]:
    """Lines `title  text`. A long text is wrapped beside its title or, if that would break a word, below it."""
    start = indent + max((cell_len(title) for title, _, _ in cells), default=0) + GAP
    for title, text, kind in cells:
        label = " " * indent + title
        filled = label + " " * (start - cell_len(label))
        if width is None or start + cell_len(text) <= width:
            yield f"{filled}{text}".rstrip()
        elif kind is ColumnKind.PROSE and start + max(READABLE, _longest_word(text)) <= width:
            head, *rest = _wrap(text, width - start)
            yield filled + head
            yield from (" " * start + line for line in rest)
        else:
            yield label
            yield from (" " * (indent + INDENT) + line for line in _wrap(text, width - indent - INDENT))


def _wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` columns, broken between words only; a longer word exceeds its line."""
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


# The option's callback sets `_WIDE`, so a command only declares the parameter and need not pass it on.
Wide = Annotated[
    bool,
    typer.Option("--wide", callback=_set_wide, help="Every column and one line for each row, at any terminal width."),
]


Exact = Annotated[bool, typer.Option("--exact", help="Every digit of the amounts, instead of rounded ones.")]


def rounding_notes(digits: Digits) -> Iterator[str]:
    """The note below a table with rounded amounts; nothing if no amount is rounded."""
    yield from (f"{note}; --exact shows every digit" for note in digits.notes())


def show_json(answer: BaseModel | Sequence[BaseModel]) -> None:
    """Prints an answer as JSON: an object, or a list of objects."""
    value: Any
    if isinstance(answer, BaseModel):
        value = answer.model_dump(mode="json")
    else:
        value = [item.model_dump(mode="json") for item in answer]
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def require_one_format(*, as_csv: bool, as_json: bool) -> None:
    """Raises BadParameter if both formats are requested."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json cannot be combined: give one of them")


def show_csv(columns: Sequence[str], rows: Iterable[Sequence[CsvCell]]) -> None:
    """Prints a table as CSV: amounts and counts with every digit, unknown values as empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    typer.echo(text.getvalue(), nl=False)


def _csv_cell(cell: CsvCell) -> str:
    """The text of a cell. A text that a spreadsheet would read as a formula gets a leading apostrophe."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return plain(cell)
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else str(cell)


def say(line: str) -> None:
    """Prints a sentence. On a terminal it is wrapped between words, but not inside a `command`."""
    width = screen_width()
    typer.echo(printable(line) if width is None else "\n".join(_wrap_sentence(printable(line), width)))


def _wrap_sentence(line: str, width: int) -> Sequence[str]:
    unbreakable = _COMMAND.sub(lambda match: match[0].replace(" ", _JOINED), line)
    pieces = textwrap.wrap(unbreakable, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ")
    return [piece.replace(_JOINED, " ") for piece in pieces] or [""]


def complain(line: str) -> None:
    """Prints a line about a problem to stderr."""
    typer.echo(printable(line), err=True)


def printable(text: str) -> str:
    """The text with control characters, which would act on the terminal, replaced."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def show_table(columns: Sequence[Column | str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table. A string among `columns` is the title of a column of names."""
    width = screen_width()
    all_columns = [Column(column) if isinstance(column, str) else column for column in columns]
    page = lay_out(all_columns, ([printable(cell) for cell in row] for row in rows), width)
    if page.common:
        say("every row: " + ", ".join(f"{title} {text}" for title, text in page.common))
    console = Console(highlight=False)
    for number, line in enumerate(page.lines):
        console.print(Text(line, style="bold" if number < page.titles else ""), soft_wrap=True)
    if page.left_out:
        say(f"note: no room for {', '.join(page.left_out)}; --wide shows every column")


def show_facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Prints pairs of name and value, without those whose value is empty."""
    for line in fact_lines(((name, printable(text)) for name, text in pairs if text), screen_width()):
        typer.echo(line)


def screen_width() -> int | None:
    """The width of the terminal in columns; None with --wide or if stdout is not a terminal."""
    return None if _WIDE.get() else _terminal_width()


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


class ProgressMeter:
    """Shows progress on stderr: as a bar on a terminal, else as a line of counts every two seconds."""

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
        """Counts one more item; `note` is a text with the counts so far."""
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
