"""The queue before a model component: calls that its limits do not admit yet wait here, where waiting costs nothing.

The limits themselves hold for all workers together and are checked by the journal (`Journal.begin`). This queue is one
worker's: it decides which of its calls tries next. Tenants take turns; within a tenant the older call goes first.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from app.domain.errors import FailureCause, ModelBusy, ModelRefused, ModelUnavailable
from app.llm.call import LOOK_SECONDS, LimitReached, ModelCall

Begun = TypeVar("Begun")
Begin = Callable[[bool], Awaitable[Begun | LimitReached]]

# The pause after a 429 without a figure, and the longest one; it doubles with each further 429 in a row.
_SLOW_SECONDS, _SLOWEST_SECONDS = 1.0, 60.0
# A window beyond this limits nothing.
_WIDE = 1_000.0
# Arrivals of calls that have paused durably; a call that never comes back is forgotten in the end.
_REMEMBERED = 10_000
# The pace of the queue is that of so many last admissions.
_PACE = 50
# The longest pause of a task, since the pace may change.
_LONGEST_PAUSE_SECONDS = 300.0


@dataclass(order=True)
class _Waiting:
    """One call in the queue."""

    arrived: float
    turn: asyncio.Event = field(compare=False, default_factory=asyncio.Event)


class Admission:
    """The calls of one component in this process. For one event loop."""

    def __init__(self, component: str, longest_wait: float, clock: Callable[[], float]) -> None:
        """`longest_wait`: seconds after which a call leaves the queue and its task pauses durably."""
        self._component = component
        self._longest_wait = longest_wait
        self._clock = clock
        self._queue: OrderedDict[str, list[_Waiting]] = OrderedDict()  # by tenant; the first one's turn is next
        self._arrivals: OrderedDict[tuple[str, str, int], float] = OrderedDict()
        self._freed = asyncio.Event()
        self._running = 0
        self._window = _WIDE
        self._slow_until, self._slow_seconds = 0.0, _SLOW_SECONDS
        # When the queue began to be one, or when calls left it; the older ones are dropped.
        self._admissions: deque[float] = deque(maxlen=_PACE + 1)

    async def enter(self, call: ModelCall, begin: Begin[Begun]) -> Begun:
        """What `begin` returns once the component admits the call. `begin(False)` returns an answer that the journal
        has, and `LimitReached` otherwise. Whoever was admitted must `leave`. Raises ModelBusy."""
        first = await begin(not self._queue and self._open())
        if not isinstance(first, LimitReached):
            self._running += 1
            return first
        waiting = self._join(call)
        try:
            return await self._wait(call, waiting, first, begin)
        finally:
            self._drop(call.tenant, waiting)

    def leave(self, error: ModelUnavailable | ModelRefused | None = None) -> None:
        """A call has ended. A 429 halves the number of calls at once and pauses the component, for as long as the
        provider asked if it did; each answer widens it again."""
        if isinstance(error, ModelUnavailable) and error.code == FailureCause.RATE_LIMIT:
            self._window = max(1.0, min(self._window, self._running) / 2)
            self._slow_until = self._clock() + (error.retry_after or self._slow_seconds)
            self._slow_seconds = min(2 * self._slow_seconds, _SLOWEST_SECONDS)
        elif error is None:
            self._window = min(_WIDE, self._window + 1 / self._window)
            self._slow_seconds = _SLOW_SECONDS
        self._running -= 1
        self._freed.set()

    def _open(self) -> bool:
        return self._clock() >= self._slow_until and self._running < self._window

    async def _wait(self, call: ModelCall, waiting: _Waiting, full: LimitReached, begin: Begin[Begun]) -> Begun:
        until = self._clock() + self._longest_wait
        if full.may_pause and self._expected(call.tenant, waiting) > self._longest_wait:
            raise self._busy(call, waiting)
        while True:
            if full.may_pause and self._clock() >= until:
                raise self._busy(call, waiting)
            if not waiting.turn.is_set():
                await _within(waiting.turn, max(0.0, until - self._clock()) if full.may_pause else None)
                continue
            self._freed.clear()
            seconds = LOOK_SECONDS
            if self._open():
                result = await begin(True)
                if not isinstance(result, LimitReached):
                    self._running += 1
                    self._admissions.append(self._clock())
                    return result
                full = result
                seconds = result.seconds
            await _within(self._freed, seconds)

    def _busy(self, call: ModelCall, waiting: _Waiting) -> ModelBusy:
        """The task comes back a little before its turn is due, so that the queue does not run dry."""
        expected = self._expected(call.tenant, waiting)
        self._arrivals[(call.task_id, call.stage, call.turn)] = waiting.arrived
        if len(self._arrivals) > _REMEMBERED:
            self._arrivals.popitem(last=False)
        return ModelBusy(self._component, min(max(1.0, expected - self._longest_wait / 2), _LONGEST_PAUSE_SECONDS))

    def _join(self, call: ModelCall) -> _Waiting:
        """Puts a call into the queue; one that comes back from a pause keeps its place."""
        arrived = self._arrivals.pop((call.task_id, call.stage, call.turn), self._clock())
        waiting = _Waiting(arrived)
        if not self._queue:
            self._admissions.append(self._clock())
        bisect.insort(self._queue.setdefault(call.tenant, []), waiting)
        self._call_next()
        return waiting

    def _drop(self, tenant: str, waiting: _Waiting) -> None:
        """Takes a call out of the queue. If it had its turn, its tenant goes to the end of the line."""
        self._queue[tenant].remove(waiting)
        if not self._queue[tenant]:
            del self._queue[tenant]
        elif waiting.turn.is_set():
            self._queue.move_to_end(tenant)
        if not self._queue:
            self._admissions.clear()
        self._call_next()

    def _call_next(self) -> None:
        """Gives the turn to the first call, unless one has it."""
        waiting = [call for calls in self._queue.values() for call in calls]
        if waiting and not any(call.turn.is_set() for call in waiting):
            next(iter(self._queue.values()))[0].turn.set()

    def _expected(self, tenant: str, waiting: _Waiting) -> float:
        """Seconds until this call's turn, by the pace of the last admissions; 0 before the first."""
        place = self._queue[tenant].index(waiting) + 1
        ahead = sum(min(len(calls), place) for calls in self._queue.values())
        admitted = len(self._admissions) - 1
        return ahead * (self._clock() - self._admissions[0]) / admitted if admitted > 0 else 0.0


async def _within(event: asyncio.Event, seconds: float | None) -> None:
    """Waits for an event, at most so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
