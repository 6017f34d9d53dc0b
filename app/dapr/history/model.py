"""What a workflow's history says, as frozen values. Nothing here knows Dapr's wire format, a clock or a network.

    Run ─┬─ Step ── Attempt          an activity, and each time that it was scheduled
         ├─ ChildRun ── Attempt      a child workflow, likewise
         ├─ RetryPause               the pause before an attempt
         ├─ Wait, RaisedEvent        external events: who waited, and what was raised
         ├─ Timer, Suspension, Stall
         └─ Replay                   each time that the workflow's code was run

Times are UTC. What a history cannot say is `None`: an end that has not come, an input that was not given.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

# The small values that the history's model is made of.


class RunStatus(StrEnum):
    """Where a workflow instance is, in Dapr's terms."""

    PENDING = "pending"  # accepted, no turn of it has been saved
    RUNNING = "running"
    SUSPENDED = "suspended"
    STALLED = "stalled"  # no worker can run it: version, patch, or a history that is too big
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"
    CANCELED = "canceled"
    CONTINUED_AS_NEW = "continued_as_new"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in _ENDED


_ENDED = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TERMINATED, RunStatus.CANCELED})


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OPEN = "open"  # no end yet
    LOST = "lost"  # the run ended first; whether the work was done, nobody recorded


class WaitOutcome(StrEnum):
    """How a wait for an external event ended."""

    ANSWERED = "answered"
    TIMED_OUT = "timed_out"
    OPEN = "open"
    ABANDONED = "abandoned"  # the run ended first


@dataclass(frozen=True, slots=True)
class Payload:
    """An input or a result, as the text that Dapr keeps; usually JSON."""

    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes in UTF-8."""
        return len(self.text.encode())

    def json(self) -> Any:
        """The value; None when the text is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def at(self, *path: str) -> Any:
        """The value below the keys of `path`; None where there is none."""
        value = self.json()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed. `type` is the exception's class name in the worker's language; no stack trace is kept."""

    type: str
    message: str
    inner: Failure | None = None

    @property
    def root(self) -> Failure:
        """The innermost failure."""
        return self.inner.root if self.inner else self


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a step or child, as its schedule and its end.

    number: 1 for the first.
    signer: digest of the certificate of the sidecar that vouches for the result; another one, another sidecar (or its
    certificate was renewed). None without history signing.
    inherited: copied from the run that this one reruns; it was executed, and paid, there.
    """

    number: int
    event_id: int
    scheduled_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome
    failure: Failure | None = None
    result: Payload | None = None
    signer: str | None = None
    inherited: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """An activity with its attempts, oldest first. `execution_id` is Dapr's `taskExecutionId`, the same in each attempt
    (`#<event id>` where the worker's SDK gives none); `app_id` the app that executed it, when it is another one."""

    execution_id: str
    name: str
    attempts: tuple[Attempt, ...]
    input: Payload | None = None
    app_id: str | None = None

    @property
    def last(self) -> Attempt:
        """The attempt that decides."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A child workflow with its attempts; a retried child has the same instance id, and only the history of its last
    attempt. A detached one is started and never waited for: its attempt has no end."""

    instance_id: str
    name: str
    attempts: tuple[Attempt, ...]
    input: Payload | None = None
    app_id: str | None = None
    detached: bool = False

    @property
    def last(self) -> Attempt:
        """The attempt that decides."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class RetryPause:
    """The pause before the next attempt of `of`: a step's execution id, or a child's instance id."""

    of: str
    event_id: int
    started_at: datetime
    due_at: datetime
    ended_at: datetime | None
    child: bool = False


@dataclass(frozen=True, slots=True)
class Timer:
    """A pause that the workflow's code asked for."""

    event_id: int
    started_at: datetime
    due_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an external event. `due_at` None: without time limit. An event that is there already when the code
    asks for it leaves no wait in the history, only its `RaisedEvent`."""

    name: str
    event_id: int
    started_at: datetime
    due_at: datetime | None
    ended_at: datetime | None
    outcome: WaitOutcome
    answer: Payload | None = None


@dataclass(frozen=True, slots=True)
class RaisedEvent:
    """An external event that reached the run. `wait` is the `event_id` of the wait that it answered; None when it was
    kept until the code asked for it, if it ever did."""

    name: str
    at: datetime
    payload: Payload | None
    wait: int | None


@dataclass(frozen=True, slots=True)
class Suspension:
    """From a pause to its resume."""

    started_at: datetime
    ended_at: datetime | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """Dapr could not go on; the next event of the history is the end of it."""

    at: datetime
    reason: str  # PATCH_MISMATCH, VERSION_NOT_AVAILABLE or PAYLOAD_SIZE_EXCEEDED
    description: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Replay:
    """One time that the workflow's code was run; the end is the last thing that it asked for, or its start."""

    started_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Parent:
    """The workflow that started this one as its child."""

    instance_id: str
    name: str
    app_id: str
    event_id: int


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """One workflow instance, as its history tells it.

    continued: the history begins with a continue-as-new; what the generations before did is gone for good.
    rerun_of: the instance whose history this one was forked from; its steps are here too, marked `inherited`.
    execution_id: names this generation. signers: see Attempt, in order of appearance. size: bytes of the events.
    repeats: schedules that were written more than once, and counted once: the run was paused in the middle of a turn.
    trace_parent: W3C `traceparent` of the trace that it belongs to; empty without one.
    """

    instance_id: str
    name: str
    status: RunStatus
    started_at: datetime | None  # None: pending
    ended_at: datetime | None
    execution_id: str = ""
    version: str = ""
    patches: tuple[str, ...] = ()
    app_id: str = ""
    parent: Parent | None = None
    continued: bool = False
    rerun_of: str | None = None
    input: Payload | None = None
    output: Payload | None = None
    failure: Failure | None = None
    steps: tuple[Step, ...] = ()
    children: tuple[ChildRun, ...] = ()
    pauses: tuple[RetryPause, ...] = ()
    timers: tuple[Timer, ...] = ()
    waits: tuple[Wait, ...] = ()
    raised: tuple[RaisedEvent, ...] = ()
    suspensions: tuple[Suspension, ...] = ()
    stalls: tuple[Stall, ...] = ()
    replays: tuple[Replay, ...] = ()
    signers: tuple[str, ...] = ()
    repeats: int = 0
    events: int = 0
    size: int = 0
    trace_parent: str = ""

    @property
    def turns(self) -> int:
        """How often the workflow's code was run."""
        return len(self.replays)

    @property
    def attempts(self) -> int:
        """Attempts of steps that were executed in this run."""
        return sum(not attempt.inherited for step in self.steps for attempt in step.attempts)

    def step(self, execution_id: str) -> Step | None:
        """The step of that id."""
        return next((step for step in self.steps if step.execution_id == execution_id), None)
