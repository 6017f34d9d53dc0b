"""Who is signed in at a browser. It lies in the ledger: a restart signs nobody out, and all workers know of it.

What is kept does not open a page: of the session's id there is a digest, and of the token the digest that the list of
tokens has as well.
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
MOST_SESSIONS = 1_000

_FIND = select(SESSIONS.c.holder).where(SESSIONS.c.digest == bindparam("this"), SESSIONS.c.ends_at > bindparam("now"))
_END = delete(SESSIONS).where(SESSIONS.c.digest == bindparam("this"))


class Sessions:
    """The sessions that are open. Thread-safe; when there are too many, the oldest gives way."""

    def __init__(
        self, engine: Engine, writer: Writer, clock: Callable[[], datetime], most: int = MOST_SESSIONS
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._clock = clock
        newest = select(SESSIONS.c.digest).order_by(SESSIONS.c.ends_at.desc(), SESSIONS.c.digest).limit(most)
        self._give_way = delete(SESSIONS).where(
            or_(SESSIONS.c.ends_at <= bindparam("now"), SESSIONS.c.digest.not_in(newest))
        )

    def begin(self, holder: str) -> str:
        """Opens a session for the holder of a token, who is named by its digest; returns its id, which nobody can
        guess."""
        session_id, now = secrets.token_urlsafe(32), self._clock()
        row = {"digest": _digest(session_id), "holder": holder, "ends_at": now + LIFETIME}

        def write(connection: Connection) -> None:
            connection.execute(insert(SESSIONS), row)
            connection.execute(self._give_way, {"now": now})

        self._writer.run(write)
        return session_id

    def find(self, session_id: str | None) -> str | None:
        """The holder of the session; None for one that is unknown, over or ended."""
        # By digest: how long a look-up takes says nothing about an id that is near.
        with self._engine.connect() as connection:
            found = connection.execute(_FIND, {"this": _digest(session_id or ""), "now": self._clock()})
            holder: str | None = found.scalar_one_or_none()
            return holder

    def end(self, session_id: str | None) -> None:
        """Ends a session, if there is one."""
        if session_id:
            self._writer.run(lambda connection: connection.execute(_END, {"this": _digest(session_id)}).rowcount)


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).hexdigest()
