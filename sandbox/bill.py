"""The sandbox's own bill: a row for every request that reached the model, written before its answer leaves.

The product's record is tested against this bill, so nothing here is estimated or lost: SQLite in WAL mode, one insert
a request, committed before the first byte is sent. A killed process therefore loses no row of an answer that was sent;
a power cut may lose some, which is acceptable in a sandbox.
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
    """One request. `input_tokens` includes `cached_tokens`; `status` is what was sent, 0 if nothing was."""

    at: str  # ISO 8601, UTC
    protocol: str  # openai | anthropic
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    status: int
    billed: bool
    stage: str  # the prompt's stage, empty when it names none
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
    """The bill in one SQLite file, which outlives the process."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute(_SCHEMA)

    def add(self, row: BillRow) -> int:
        """Writes one row, committed; gives its id."""
        values = tuple(getattr(row, column) for column in _COLUMNS)
        row_id = self._connection.execute(_INSERT, values).lastrowid
        if row_id is None:
            raise RuntimeError("SQLite gave no row id for a row of the bill; the file is not usable")
        return row_id

    def sent(self, row_id: int, status: int) -> None:
        """Notes the HTTP status that was sent after all, for an answer that was held back."""
        self._connection.execute("update bill set status = ? where id = ?", (status, row_id))

    def rows(self, after: int = 0, limit: int = -1) -> list[dict[str, object]]:
        """The rows after an id in order, each with its id."""
        found = self._connection.execute(_SELECT, (after, limit)).fetchall()
        return [_as_json(row) for row in found]

    def total(self) -> BillTotal:
        """The sums of the whole bill."""
        return BillTotal(*self._connection.execute(_TOTAL).fetchone())

    def close(self) -> None:
        """Closes the file; every row is already in it."""
        self._connection.close()


def _as_json(row: tuple[object, ...]) -> dict[str, object]:
    named: dict[str, object] = dict(zip(("id", *_COLUMNS), row, strict=True))
    return named | {"billed": bool(named["billed"])}


def total_as_json(total: BillTotal) -> dict[str, int]:
    """The sums as GET /bill/total answers them."""
    return asdict(total)
