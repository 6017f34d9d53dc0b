"""Makes load: lanes that each keep one task in flight, or the peer told to do so inside its own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp

from app.domain.models import Ticket
from lab.bench.closed_cases import CaseWatch
from lab.bench.tickets import Shape, make_ticket

Submit = Callable[[Ticket], Awaitable[None]]


class NumberSource:
    """Ticket numbers, each given once."""

    def __init__(self, first: int = 1) -> None:
        self.next = first

    def take(self) -> int:
        """The next number."""
        return self.skip(1)

    def skip(self, count: int) -> int:
        """The first of the next `count` numbers."""
        first, self.next = self.next, self.next + count
        return first


class Load(Protocol):
    """Something that keeps tasks in flight."""

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins, one lane after another over `spread_seconds`, so that tasks of one length come in no waves."""

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs."""

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """The seconds that each of `count` tasks takes, one after another."""


class Lanes:
    """Load from outside: each lane submits a ticket, waits until its case is closed, and takes the next."""

    def __init__(self, submit: Submit, watch: CaseWatch, numbers: NumberSource) -> None:
        self._submit = submit
        self._watch = watch
        self._numbers = numbers
        self._lanes: list[asyncio.Task[None]] = []
        self._halting = False

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins; returns when every lane has."""
        self._halting = False
        for _ in range(in_flight):
            self._lanes.append(asyncio.create_task(self._lane(shape)))
            await asyncio.sleep(spread_seconds / in_flight)

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs. Raises what went wrong in a lane."""
        self._halting = True
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*lanes)

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """From the ticket's submission until its case is closed."""
        return await timed(lambda: self._one(shape), count)

    async def _lane(self, shape: Shape) -> None:
        while not self._halting:
            await self._one(shape)

    async def _one(self, shape: Shape) -> Ticket:
        ticket = make_ticket(shape, self._numbers.take())
        closed = self._watch.expect(ticket.ticket_id)
        await self._submit(ticket)
        await self._watch.closed(closed, f"the case of {ticket.task_id}")
        return ticket


async def timed(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """The seconds that each of `count` runs of `work` takes, one after another."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - begun)
    return seconds


class Told:
    """Load from inside the peer's process, by its own calls."""

    def __init__(self, session: aiohttp.ClientSession, url: str, numbers: NumberSource) -> None:
        self._session = session
        self._url = url
        self._numbers = numbers

    async def start(self, shape: Shape, in_flight: int, spread_seconds: float) -> None:
        """Begins; returns when every lane has."""
        order = {"shape": shape.value, "in_flight": in_flight, "first": self._numbers.next}
        await self._tell("drive", order | {"spread_seconds": spread_seconds})

    async def halt(self) -> None:
        """Starts nothing more, and waits for what runs."""
        self._numbers.next = (await self._tell("halt", {}))["next"]

    async def alone(self, shape: Shape, count: int) -> list[float]:
        """From the workflow's call to its return."""
        order = {"shape": shape.value, "count": count, "first": self._numbers.skip(count)}
        return [float(seconds) for seconds in (await self._tell("alone", order))["seconds"]]

    async def _tell(self, what: str, order: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/{what}", json=order) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer
