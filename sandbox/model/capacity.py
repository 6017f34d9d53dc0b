"""The capacity of the model server: a limit on concurrent requests, beyond which they queue, and on requests a minute,
beyond which it answers 429. Unlimited unless a test sets one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_MINUTE = timedelta(minutes=1)


class Capacity(BaseModel):
    """The body of PUT /capacity; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    concurrent: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None


class Gate:
    """Lets requests in as the capacity allows."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._slots = asyncio.Semaphore(capacity.concurrent) if capacity.concurrent else None
        self._taken: deque[datetime] = deque()

    def take_request(self, now: datetime) -> float | None:
        """Takes one request from this minute's quota and returns None, or the seconds until the quota has room."""
        most = self.capacity.requests_per_minute
        if most is None:
            return None
        while self._taken and self._taken[0] <= now - _MINUTE:
            self._taken.popleft()
        if len(self._taken) >= most:
            return (self._taken[0] + _MINUTE - now).total_seconds()
        self._taken.append(now)
        return None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the concurrent requests, in order of arrival."""
        if self._slots is None:
            yield
        else:
            async with self._slots:
                yield
