"""The sandbox's own bill: a row for every request that reached the model, written before its answer leaves.

The product's record is tested against this bill, so it contains no estimates and loses nothing: SQLite in WAL mode,
one insert per request, committed before the first byte is sent. A killed process therefore loses no row of an answer
that was sent; a power cut may lose some, which is acceptable in a sandbox.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, fields
from pathlib import Path

_SCHEMA = """
create table if not exists bill (
  id integer primary key autoincrement,
  at text not null,
  protocol text not null,
  model text not null,
  input_tokens integer not null,
  cached_tokens integer not null,
  output_tokens integer not null,
  status integer not null,
  billed integer not null,
  stage text not null,
  request_digest text not null
)
"""


@dataclass(frozen=True)
class BillRow:
    """One request. `input_tokens` includes `cached_tokens`; `status` is the HTTP status that was sent, 0 for none."""

    at: str  # ISO 8601, UTC
    protocol: str  # openai | anthropic
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    status: int
    billed: bool
    stage: str  # the prompt's stage, empty if it names none
    request_digest: str  # SHA-256 of the request body, hexadecimal


@dataclass(frozen=True)
class BillTotal:
    """Sums over the bill; `requests` counts every row, `billed_requests` those that cost something."""

    requests: int
    billed_requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


_COLUMNS = tuple(column.name for column in fields(BillRow))
_INSERT = f"insert into bill ({', '.join(_COLUMNS)}) values ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_SELECT = f"select id, {', '.join(_COLUMNS)} from bill where id > ? order by id limit ?"  # noqa: S608
_TOTAL = """
select count(*), coalesce(sum(billed), 0), coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0),
  coalesce(sum(output_tokens), 0) from bill
"""


class Bill:
    """The bill in a SQLite file."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute(_SCHEMA)

    def add(self, row: BillRow) -> int:
        """Writes and commits a row; returns its id."""
        values = tuple(getattr(row, column) for column in _COLUMNS)
        row_id = self._connection.execute(_INSERT, values).lastrowid
        if row_id is None:
            raise RuntimeError("SQLite returned no row id for a row of the bill; the file is not usable")
        return row_id

    def sent(self, row_id: int, status: int) -> None:
        """Sets the HTTP status of an answer that was sent late."""
        self._connection.execute("update bill set status = ? where id = ?", (status, row_id))

    def rows(self, after: int = 0, limit: int = -1) -> list[dict[str, object]]:
        """At most `limit` rows (-1: all) with an id above `after`, in order, as `GET /bill` returns them."""
        return [_as_json(row) for row in self._connection.execute(_SELECT, (after, limit)).fetchall()]

    def total(self) -> BillTotal:
        """The sums of the whole bill."""
        return BillTotal(*self._connection.execute(_TOTAL).fetchone())

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


def _as_json(row: tuple[object, ...]) -> dict[str, object]:
    values: dict[str, object] = dict(zip(("id", *_COLUMNS), row, strict=True))
    return values | {"billed": bool(values["billed"])}


def total_as_json(total: BillTotal) -> dict[str, int]:
    """The sums as `GET /bill/total` returns them."""
    return asdict(total)
