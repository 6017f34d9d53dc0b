"""The fixed ledger: its rows as SQLite holds them, a line of JSON each."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from app.ledger.store import database
from app.ledger.store.tables import METADATA

FOLDER = Path(__file__).parent
LEDGER = FOLDER / "ledger.jsonl.gz"
BILL = FOLDER / "bill.json"


def save(file: Path) -> None:
    """Writes every row of a ledger's file."""
    lines = []
    with closing(sqlite3.connect(file)) as ledger:
        ledger.row_factory = sqlite3.Row
        for table in METADATA.sorted_tables:
            rows = ledger.execute(f'SELECT * FROM "{table.name}"').fetchall()  # noqa: S608 - our own name
            lines += [json.dumps([table.name, dict(row)], ensure_ascii=False) for row in rows]
    LEDGER.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def load(file: Path) -> None:
    """Makes a ledger of these rows."""
    database.connect(f"sqlite:///{file}").dispose()
    with closing(sqlite3.connect(file)) as ledger, ledger:
        for line in gzip.decompress(LEDGER.read_bytes()).decode().splitlines():
            name, row = json.loads(line)
            columns = ", ".join(f'"{column}"' for column in row)
            places = ", ".join("?" * len(row))
            ledger.execute(f'INSERT OR REPLACE INTO "{name}" ({columns}) VALUES ({places})', tuple(row.values()))  # noqa: S608
