"""What is wrong with the ledger's database, in our own words: every edge turns its errors into these.

An error that says that a statement of ours is wrong is none of them: it stays a fault of the program.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from app.domain.errors import LedgerUnavailable

_LOCKED = ("locked", "another process holds the ledger; end what else has it open, and try again")
_READ_ONLY = ("read_only", "the ledger cannot be written; check the owner and the rights of its file, and the mount")
_FULL = ("disk_full", "the ledger's disk is full; make room, and try again: nothing that was accepted is lost")
_BROKEN_DISK = ("disk", "the ledger's disk fails; look into the kernel's log, and keep a copy of the file")
_DAMAGED = ("damaged", "the ledger's file is damaged; restore it, then run `refund-agent ledger rebuild`")
_AWAY = ("away", "the ledger's database does not answer; check REFUND_AGENT_LEDGER_URL and that the server is up")
_CROWDED = ("crowded", "the ledger's database has no connection left; raise its limit, or end what else uses it")
_STANDBY = ("read_only", "the ledger's database is read-only: a standby, or told so; name the primary")

_OF_SQLITE: Mapping[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR: _BROKEN_DISK,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
# By the first characters of PostgreSQL's state: the longest that fits.
_OF_POSTGRESQL: Mapping[str, tuple[str, str]] = {
    "53100": _FULL,
    "53300": _CROWDED,
    "53": _AWAY,
    "25006": _STANDBY,
    "55P03": _LOCKED,
    "40": _LOCKED,
    "58": _BROKEN_DISK,
    "XX": _DAMAGED,
    "57": _AWAY,
    "08": _AWAY,
}


def trouble(error: BaseException) -> LedgerUnavailable | None:
    """The trouble that an error of SQLAlchemy tells of; None for a fault of ours, and for any other error."""
    if isinstance(error, NoConnection):
        return LedgerUnavailable(*_CROWDED)
    if not isinstance(error, DBAPIError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        known = None if code is None else _OF_SQLITE.get(code & 0xFF)  # the rest of the number says it more exactly
        return LedgerUnavailable(*known) if known else None
    state = str(getattr(error.orig, "sqlstate", None) or "")
    fitting = next((_OF_POSTGRESQL[state[:size]] for size in (5, 2) if state[:size] in _OF_POSTGRESQL), None)
    if fitting is None and (error.connection_invalidated or (not state and _is_of_connection(error))):
        fitting = _AWAY
    return LedgerUnavailable(*fitting) if fitting else None


def _is_of_connection(error: DBAPIError) -> bool:
    """A server that was never reached gives no state."""
    return isinstance(error, OperationalError | InterfaceError)
