"""How often, and how long, a retry policy asks again at worst. The numbers are Dapr 1.18's. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

# What holds where a policy says nothing.
CONSTANT_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(seconds=60)
NO_LIMIT = -1
# An exponential policy begins here, whatever its `duration` says: Dapr reads that for a constant one only.
FIRST_PAUSE = timedelta(milliseconds=500)
FACTOR = 1.5
JITTER = 0.5  # of each pause, by chance, either way
# An exponential policy stops when its next pause would end later than this. Nothing sets it otherwise.
LONGEST_RETRYING = timedelta(minutes=15)


@dataclass(frozen=True)
class Retry:
    """A retry policy of the sidecar. `max_retries` counts the requests after the first; negative is without end."""

    exponential: bool = False
    duration: timedelta = CONSTANT_PAUSE
    max_interval: timedelta = LONGEST_PAUSE
    max_retries: int = NO_LIMIT

    @property
    def requests(self) -> int | None:
        """Requests of one call, when each fails at once: then most fit into the time. None without a bound."""
        if not self.exponential or self.max_interval <= timedelta():
            return None if self.max_retries < 0 else 1 + self.max_retries
        within = 1 + self._in_time(1 - JITTER)
        return within if self.max_retries < 0 else min(within, 1 + self.max_retries)

    @property
    def first_pause(self) -> timedelta:
        """The shortest that it can be."""
        return FIRST_PAUSE * (1 - JITTER) if self.exponential else self.duration

    def pauses(self, requests: int) -> timedelta:
        """All pauses between so many requests of one call, each as long as chance makes it."""
        if not self.exponential:
            return self.duration * (requests - 1)
        return sum((pause * (1 + JITTER) for pause in islice(self._intervals(), requests - 1)), timedelta())

    def lasts(self, requests: int, timeout: timedelta) -> timedelta:
        """How long a call of so many requests may take, each as long as its time-out."""
        whole = timeout * requests + self.pauses(requests)
        return min(whole, LONGEST_RETRYING + timeout) if self.exponential else whole

    def _in_time(self, chance: float) -> int:
        """How many pauses end in time, each being so much of its interval."""
        count, elapsed = 0, timedelta()
        for interval in self._intervals():
            if interval == self.max_interval:  # it stays so
                return count + (LONGEST_RETRYING - elapsed) // (interval * chance)
            elapsed += interval * chance
            if elapsed > LONGEST_RETRYING:
                break
            count += 1
        return count

    def _intervals(self) -> Iterator[timedelta]:
        interval = FIRST_PAUSE
        while True:
            yield interval
            interval = min(self.max_interval, interval * FACTOR)


NONE = Retry(max_retries=0)
