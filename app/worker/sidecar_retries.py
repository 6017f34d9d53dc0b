"""Which model calls the sidecar asked again, where its policies tell it to: what its metrics count, allocated. Pure.

daprd counts the *calls* it asked again, once each. With one retry in the policy that is the number of requests it made
on its own, but for those that it announced and then did not make, since the breaker had opened during the pause. Such
a call ends with the breaker's refusal and lasted at least as long as the shortest pause; a call that the breaker
refused at once took milliseconds, and is the only kind that never left for the provider.
With more than one retry the number is a lower bound: a call that failed had all of them, one that was answered is
taken to have had one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.domain.errors import FailureCause
from app.domain.models import CallState
from app.worker.metric_windows import Window

# A pause may look so much shorter or longer than it was, by the clocks' drift and the wait for a processor.
_CLOCKS = 0.1


@dataclass(frozen=True)
class RetryPolicy:
    """What `resiliency/` says of a model call: how often it is asked again, and after which pause first. `jitter`: the
    part of the pause by which chance shortens or lengthens it; a half in Dapr's exponential policy, none in its
    constant one."""

    max_retries: int
    first_pause: timedelta
    jitter: float = 0.0

    @property
    def shortest_pause(self) -> timedelta:
        """No call was asked again that did not last as long as this."""
        return self.first_pause * (1 - self.jitter) * (1 - _CLOCKS)

    @property
    def longest_pause(self) -> timedelta:
        """Later than this after a first failure, the second request is made, or refused by the breaker."""
        return self.first_pause * (1 + self.jitter) * (1 + _CLOCKS)


# What a sidecar does that repeats model calls as docs/operations.md says. Ours repeats none (resiliency/llm.yaml).
ONE_RETRY = RetryPolicy(max_retries=1, first_pause=timedelta(seconds=1))


@dataclass(frozen=True)
class Call:
    """What allocating needs to know of a model call. `retries`: what it has been allocated already."""

    call_id: str
    started_at: datetime
    ended_at: datetime | None
    state: CallState
    error: str = ""
    retries: int = 0

    @property
    def refused(self) -> bool:
        """Whether the breaker had the last word."""
        return self._failed_by(FailureCause.BREAKER_OPEN)

    @property
    def used_up(self) -> bool:
        """Whether it failed with all its retries made."""
        gone = self.refused or self._failed_by(FailureCause.SIDECAR_GONE)
        return self.state is CallState.FAILED and not gone

    def lasted(self, at: datetime) -> timedelta:
        """How long it took, until `at` while it runs."""
        return (self.ended_at or at) - self.started_at

    def _failed_by(self, cause: FailureCause) -> bool:
        return self.state is CallState.FAILED and FailureCause.told(self.error) is cause


@dataclass(frozen=True)
class Allocation:
    """count: requests that the sidecar made on its own. shares: those of each call, by id; what is left of the count
    found no call. in_vain: calls whose announced retry the breaker refused."""

    count: int
    shares: Mapping[str, int]
    in_vain: frozenset[str]

    @property
    def allocated(self) -> int:
        """How many of the requests belong to a call."""
        return sum(self.shares.values())


def left_for_provider(call: Call, policy: RetryPolicy) -> bool:
    """Whether the call's own first request left for the provider; not when the breaker refused it at once."""
    return not call.refused or call.lasted(call.started_at) >= policy.shortest_pause


def in_flight(call: Call, window: Window) -> bool:
    """Whether the call ran at some moment of the window."""
    return call.started_at < window.to_at and (call.ended_at is None or call.ended_at > window.from_at)


def allocate(
    window: Window, calls: Sequence[Call], policy: RetryPolicy, at: datetime, settled: Collection[str] = ()
) -> Allocation:
    """Says which calls were asked again in a window.

    Candidates ran in the window, lasted longer than the shortest pause, and were allocated nothing before. Those that
    failed come first (they had retries for certain), then those that took longest, at last those that nobody saw end.
    at: now, at least the longest pause after the window, so that the breaker's refusals are known. settled: calls that
    an earlier window has counted as `in_vain`.
    """
    in_vain = _in_vain(window, calls, policy, settled)[: window.retried]
    retried = window.retried - len(in_vain)
    chosen = _likeliest(window, calls, policy, at)[:retried]
    shares = {call.call_id: policy.max_retries if call.used_up else 1 for call in chosen}
    count = sum(shares.values()) + retried - len(chosen)
    return Allocation(count, shares, frozenset(call.call_id for call in in_vain))


def _in_vain(window: Window, calls: Iterable[Call], policy: RetryPolicy, settled: Collection[str]) -> list[Call]:
    """Calls whose retry may have been announced in the window and met an open breaker, earliest first."""
    last = window.to_at + policy.longest_pause
    ended = {call: call.ended_at for call in calls if call.refused and call.ended_at is not None}
    found = [
        call
        for call, end in ended.items()
        if left_for_provider(call, policy) and call.call_id not in settled and window.from_at < end <= last
    ]
    return sorted(found, key=lambda call: (ended[call], call.call_id))


def _likeliest(window: Window, calls: Iterable[Call], policy: RetryPolicy, at: datetime) -> list[Call]:
    found = [
        call
        for call in calls
        if in_flight(call, window)
        and not call.refused
        and not call.retries
        and call.lasted(at) >= policy.shortest_pause
    ]
    return sorted(found, key=lambda call: (_unlikeliness(call), -call.lasted(at), call.call_id))


def _unlikeliness(call: Call) -> int:
    if call.used_up:
        return 0
    nobody_saw_it_end = call.state is CallState.INTERRUPTED and call.ended_at is None
    return 2 if nobody_saw_it_end else 1
