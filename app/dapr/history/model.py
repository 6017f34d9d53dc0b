"""The content of a workflow's history as frozen values.

    WorkflowRun ─┬─ Step ── Attempt          an activity, and each time that it was scheduled
                 ├─ ChildRun ── Attempt      a child workflow, likewise
                 ├─ RetryPause               the pause before a retry
                 ├─ Wait, RaisedEvent        waits for external events, and the events themselves
                 ├─ Timer, Suspension, Stall
                 └─ Replay                   each time that the workflow's code was run

Times are UTC. `None` means that the history does not have the value: an end that has not come, an input not given.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """The status of a workflow instance, in Dapr's terms."""

    PENDING = "pending"  # accepted; no turn has been saved yet
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
        """Whether the run has ended for good. A run that continued as new has not."""
        return self in _ENDED


_ENDED = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TERMINATED, RunStatus.CANCELED})


class AttemptOutcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    OPEN = "open"  # no end yet
    LOST = "lost"  # the run ended first; whether the work was done is not recorded


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
        """The size in bytes, in UTF-8."""
        return len(self.text.encode())

    def json(self) -> Any:
        """The value; None if the text is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def at(self, *path: str) -> Any:
        """The value below the keys of `path`; None if there is none."""
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
    """One scheduling of a step or child, and its end.

    number: 1 for the first.
    signer: digest of the certificate of the sidecar that attests the result. It changes with the sidecar, and when the
    certificate is renewed. None without history signing.
    inherited: whether it was copied from the run that this one reruns; it was executed and paid there.
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
    """An activity with its attempts, oldest first.

    execution_id: Dapr's `taskExecutionId`, the same for all attempts; `#<event id>` if the worker's SDK gives none.
    app_id: the app that executed it, if that is not the run's own.
    """

    execution_id: str
    name: str
    attempts: tuple[Attempt, ...]
    input: Payload | None = None
    app_id: str | None = None

    @property
    def last(self) -> Attempt:
        """The last attempt, whose outcome is the step's."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class ChildRun:
    """A child workflow with its attempts, oldest first. A retried child keeps its instance id, and Dapr keeps the
    history of its last attempt only. A detached child is not waited for, so its attempt has no end."""

    instance_id: str
    name: str
    attempts: tuple[Attempt, ...]
    input: Payload | None = None
    app_id: str | None = None
    detached: bool = False

    @property
    def last(self) -> Attempt:
        """The last attempt, whose outcome is the child's."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class RetryPause:
    """The pause before a retry. `of` is the step's execution id or, if `child`, the child's instance id."""

    of: str
    event_id: int
    started_at: datetime
    due_at: datetime
    ended_at: datetime | None
    child: bool = False


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that the workflow's own code set."""

    event_id: int
    started_at: datetime
    due_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait for an external event. `due_at` is None without a time limit. If the event has arrived before the code
    waits for it, the history has no wait, only the `RaisedEvent`."""

    name: str
    event_id: int
    started_at: datetime
    due_at: datetime | None
    ended_at: datetime | None
    outcome: WaitOutcome
    answer: Payload | None = None


@dataclass(frozen=True, slots=True)
class RaisedEvent:
    """An external event that reached the run. `wait` is the `event_id` of the wait that it answered; None if no wait
    was open and the SDK kept the event for later."""

    name: str
    at: datetime
    payload: Payload | None
    wait: int | None


@dataclass(frozen=True, slots=True)
class Suspension:
    """The time from a suspend to its resume."""

    started_at: datetime
    ended_at: datetime | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which Dapr could not continue the run. It ends with the next event of the history."""

    at: datetime
    reason: str  # PATCH_MISMATCH, VERSION_NOT_AVAILABLE or PAYLOAD_SIZE_EXCEEDED
    description: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Replay:
    """One run of the workflow's code. It ends with the last action that the code scheduled, or else at its start."""

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
    """One run of a workflow instance, as its history shows it.

    execution_id: Dapr's id of this run. started_at: None while the run is pending.
    continued: whether the history starts with a continue-as-new; Dapr has not kept the generations before.
    rerun_of: the instance whose history this one was forked from; its steps are here too, marked `inherited`.
    signers: all signers (see `Attempt`) in order of appearance. events, size: number and bytes of the events.
    repeats: schedules that Dapr wrote more than once, here counted once, because the run was paused within a turn.
    trace_parent: W3C `traceparent` of the trace that the run belongs to; empty without one.
    """

    instance_id: str
    name: str
    status: RunStatus
    started_at: datetime | None
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
        """The number of attempts of steps in this run, without inherited ones."""
        return sum(not attempt.inherited for step in self.steps for attempt in step.attempts)

    def step(self, execution_id: str) -> Step | None:
        """The step with this execution id; None if there is none."""
        return next((step for step in self.steps if step.execution_id == execution_id), None)
