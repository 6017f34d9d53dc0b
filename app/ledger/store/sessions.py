"""The browser sessions. They are in the ledger, so that they survive restarts and are valid at all workers.

The rows hold no secret: only digests of session ids and of tokens.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, bindparam, delete, insert, or_, select

from app.ledger.store.tables import SESSIONS
from app.ledger.store.writer import Writer

LIFETIME = timedelta(hours=12)
MAX_SESSIONS = 1_000

_FIND = select(SESSIONS.c.holder).where(SESSIONS.c.digest == bindparam("this"), SESSIONS.c.ends_at > bindparam("now"))
_END = delete(SESSIONS).where(SESSIONS.c.digest == bindparam("this"))


class Sessions:
    """The open sessions, at most `most`: a new one removes the oldest. Thread-safe."""

    def __init__(self, engine: Engine, writer: Writer, clock: Callable[[], datetime], most: int = MAX_SESSIONS) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock
        newest = select(SESSIONS.c.digest).order_by(SESSIONS.c.ends_at.desc(), SESSIONS.c.digest).limit(most)
        self._remove_old = delete(SESSIONS).where(
            or_(SESSIONS.c.ends_at <= bindparam("now"), SESSIONS.c.digest.not_in(newest))
        )

    def begin(self, holder: str) -> str:
        """Opens a session for the holder of a token, given the token's digest. Returns the session's random id."""
        session_id, now = secrets.token_urlsafe(32), self._clock()
        row = {"digest": _digest(session_id), "holder": holder, "ends_at": now + LIFETIME}

        def write(connection: Connection) -> None:
            connection.execute(insert(SESSIONS), row)
            connection.execute(self._remove_old, {"now": now})

        self._writer.run(write)
        return session_id

    def find(self, session_id: str | None) -> str | None:
        """The digest of the token that opened the session; None if the session is unknown, expired or ended."""
        # The search is by digest, so its duration reveals nothing about similar ids.
        with self._engine.connect() as connection:
            result = connection.execute(_FIND, {"this": _digest(session_id or ""), "now": self._clock()})
            holder: str | None = result.scalar_one_or_none()
            return holder

    def end(self, session_id: str | None) -> None:
        """Ends a session; does nothing if there is none."""
        if session_id:
            self._writer.run(lambda connection: connection.execute(_END, {"this": _digest(session_id)}).rowcount)


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).hexdigest()
