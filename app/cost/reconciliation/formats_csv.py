"""Bills in CSV: a header, then a row for each request, hour or day; any of comma, semicolon and tab. Pure.

Columns, in any order: `time`, or `date`, or `hour`, or `date` and `hour`; `model`; `input_tokens`; `output_tokens`;
and, where the bill has them, `cached_tokens` (inside the input), `requests`, `provider`. Times without a zone are UTC.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta

from app.cost.reconciliation.bill import BadBill, Bill, BillFormat, BillRow, refuse_overlaps
from app.cost.reconciliation.counts import Count

_NEEDED = ("model", "input_tokens", "output_tokens")
_TIMES = ("time", "date", "hour")
_OPTIONAL = ("cached_tokens", "requests", "provider")
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_HEADER = "time (or date, hour), model, input_tokens, output_tokens, and perhaps cached_tokens, requests, provider"


def read_csv(name: str, text: str) -> Bill:
    """The bill in CSV. Raises BadBill."""
    columns, lines = _table(name, text)
    rows = tuple(_row(name, f"line {number}", cells) for number, cells in lines)
    if not all(row.one_request for row in rows):
        if any(row.one_request for row in rows):
            raise BadBill(name, "", "some rows are requests and some are sums", "split it into two bills")
        refuse_overlaps(name, rows)
    unread = tuple(column for column in columns if column not in (*_NEEDED, *_TIMES, *_OPTIONAL))
    return Bill(name, BillFormat.CSV, rows, unread=unread)


def _table(name: str, text: str) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    header = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = [cell.strip().lower().replace(" ", "_") for cell in _header(name, reader)]
    missing = [column for column in _NEEDED if column not in columns]
    if missing or not set(_TIMES) & set(columns):
        lacks = ", ".join([*missing, *(() if set(_TIMES) & set(columns) else ("time",))])
        raise BadBill(name, f"line {reader.line_num}", f"header {header!r:.200} lacks {lacks}", f"head it {_HEADER}")
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise BadBill(name, f"line {reader.line_num}", f"columns {sorted(twice)} stand twice", "name each column once")
    return columns, _lines(name, reader, columns)


def _header(name: str, reader: Iterator[list[str]]) -> list[str]:
    try:
        return next(cells for cells in reader if cells)
    except csv.Error as error:
        raise BadBill(name, "line 1", f"no CSV ({error})", f"head it {_HEADER}") from None


def _lines(name: str, reader: Iterator[list[str]], columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    while True:
        number = int(getattr(reader, "line_num", 0)) + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadBill(name, f"line {number}", f"no CSV ({error})", "export it again, whole") from None
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(columns):
            raise BadBill(
                name, f"line {number}", f"{len(cells)} cells under {len(columns)} columns", "give each row every column"
            )
        yield number, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _row(name: str, place: str, cells: dict[str, str]) -> BillRow:
    requests = _number(name, place, cells, "requests", needed=False)
    since, until = _span(name, place, cells)
    one = since == until
    if one and requests not in (None, 1):
        raise BadBill(
            name,
            place,
            f"{requests} requests at the one time {cells['time']!r}",
            "give a row of several requests the column date or hour in place of time",
        )
    if not cells["model"]:
        raise BadBill(name, place, "it names no model", "fill the column model")
    entered = _number(name, place, cells, "input_tokens") or 0
    cached = _number(name, place, cells, "cached_tokens", needed=False)
    if cached is not None and cached > entered:
        raise BadBill(name, place, f"{cached} cached tokens are more than {entered} of input", "mend the row")
    count = Count(1 if one else requests, entered, cached, _number(name, place, cells, "output_tokens") or 0)
    return BillRow(place, cells["model"], since, until, count, cells.get("provider", ""))


def _number(name: str, place: str, cells: dict[str, str], column: str, *, needed: bool = True) -> int | None:
    text = cells.get(column, "")
    if not text and not needed:
        return None
    if not (text.isascii() and text.isdigit()):
        remedy = "write a whole number without separators"
        raise BadBill(name, place, f"{column} {text!r} is no number of tokens or requests", remedy)
    return int(text)


def _span(name: str, place: str, cells: dict[str, str]) -> tuple[datetime, datetime]:
    if cells.get("time"):
        at = _instant(name, place, "time", cells["time"])
        return at, at
    if cells.get("date"):
        day = _instant(name, place, "date", cells["date"])
        if day.time() != time(0):
            raise BadBill(name, place, f"date {cells['date']!r} is no day", "write it as 2026-11-22")
        if not cells.get("hour"):
            return day, day + _DAY
        return _hour_of(name, place, day, cells["hour"])
    start = _instant(name, place, "hour", cells.get("hour", ""))
    return _whole(name, place, start, cells["hour"])


def _hour_of(name: str, place: str, day: datetime, text: str) -> tuple[datetime, datetime]:
    if text.isascii() and text.isdigit() and int(text) < 24:
        start = day + int(text) * _HOUR
        return start, start + _HOUR
    return _whole(name, place, _instant(name, place, "hour", f"{day.date()}T{text}" if "T" not in text else text), text)


def _whole(name: str, place: str, start: datetime, text: str) -> tuple[datetime, datetime]:
    if start.minute or start.second or start.microsecond:
        raise BadBill(
            name, place, f"hour {text!r} is no full hour", "write it as 2026-11-22T13:00Z, or use column time"
        )
    return start, start + _HOUR


def _instant(name: str, place: str, column: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        remedy = f"write it as {date(2026, 11, 22)}T13:05:00Z (ISO 8601)"
        raise BadBill(name, place, f"{column} {text!r} is no time", remedy) from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
