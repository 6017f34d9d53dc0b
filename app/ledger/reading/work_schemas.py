"""What was worked at, waited for and lost, for programs: parts of the record's JSON. The keys stay. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import PlainSerializer

from app.dapr.history.causes import Cause
from app.dapr.history.executions import ExecutionOutcome
from app.dapr.history.history_values import AttemptOutcome
from app.dapr.history.times import Part
from app.finance.report_schemas import View
from app.ledger.store.task_record import FailureKind

Seconds = Annotated[timedelta, PlainSerializer(timedelta.total_seconds, return_type=float)]


class PauseView(View):
    """A time in which the task held nothing; `label` names the event that it waited for."""

    part: Part
    label: str
    started_at: datetime
    ended_at: datetime
    seconds: Seconds


class ExecutionView(View):
    """One time that a worker began to work at an attempt; `worker` names one life of one process."""

    number: int
    worker: str
    begun_at: datetime
    ended_at: datetime | None
    outcome: ExecutionOutcome
    cause: Cause | None


class AttemptView(View):
    """One attempt at a step: the workflow scheduled it once."""

    number: int
    scheduled_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome
    error: str
    executions: tuple[ExecutionView, ...]


class FailureView(View):
    """Work that came to nothing. `resumed_at` is null when nobody has taken it up again; `execution` 0, `worker` empty:
    not known which, or who."""

    step: int
    attempt: int
    execution: int
    kind: FailureKind
    cause: Cause
    at: datetime
    resumed_at: datetime | None
    worker: str
