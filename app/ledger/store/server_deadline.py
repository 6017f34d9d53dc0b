"""A PostgreSQL server that takes a statement and never answers is given up: who asked has a deadline, and keeps it.

A server that is gone is noticed by the kernel. One that stands still is not: its machine goes on acknowledging what it
is sent. psycopg waits for it without end, so the wait itself is bounded.
"""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import Connection
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from sqlalchemy import Engine, event

from app.domain.deadline import left

Answer = TypeVar("Answer")


class _Impatient(Connection[Any]):
    """A connection that is closed when its server has not answered within what is left of the deadline."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        seconds = left(float("inf") if timeout is None else timeout)
        try:
            return super().wait(gen, interval, None if seconds == float("inf") else seconds)
        except _WaitTimeout:
            self.pgconn.finish()  # what it answers later belongs to nobody
            raise


def give_up_in_time(engine: Engine) -> None:
    """Has the engine's connections end a wait with an OperationalError."""

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Connection[Any]:
        return _Impatient.connect(*arguments, **options)

    event.listen(engine, "do_connect", connect)
