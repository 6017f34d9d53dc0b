"""Closes a connection whose PostgreSQL server does not answer within the caller's deadline.

The kernel notices a server that is gone, but not one that is frozen, because its machine still acknowledges packets.
psycopg would wait for it forever.
"""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import Connection
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from sqlalchemy import Engine, event

from app.domain.deadline import remaining

Answer = TypeVar("Answer")


class _DeadlineConnection(Connection[Any]):
    """A connection that closes itself if the server does not answer within the rest of the caller's deadline."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        seconds = remaining(float("inf") if timeout is None else timeout)
        try:
            return super().wait(gen, interval, None if seconds == float("inf") else seconds)
        except _WaitTimeout:
            self.pgconn.finish()  # a late answer must not reach another statement
            raise


def give_up_in_time(engine: Engine) -> None:
    """Makes the engine's connections raise an OperationalError when the caller's deadline has passed."""

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Connection[Any]:
        return _DeadlineConnection.connect(*arguments, **options)

    event.listen(engine, "do_connect", connect)
