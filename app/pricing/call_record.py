"""One model call as the record knows it: who asked, in which state it is, and what it used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.domain.models import CallState
from app.pricing.charge_types import TokenUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One row of the journal.

    number: 1 for the first call of a step's turn, more for those that repeat it after a failure or a crash.
    provider: the Dapr component's type (`conversation.openai`). model: as the provider answered; as the component
    answers elsewhere when this call never did; empty when nobody knows.
    usage: what it used, and how that is known; that of a call without an answer is our estimate, or not known.
    retries: further requests that the sidecar made for it on its own: a share (`allocated`) of what its metrics count.
    started_at, ended_at: UTC; `ended_at` None while it runs, or when its worker went away.
    """

    call_id: str
    task_id: str
    tenant: str
    execution_id: str
    stage: str
    turn: int
    number: int
    worker: str
    component: str
    provider: str
    model: str
    prompt_version: str
    request_digest: str
    state: CallState
    started_at: datetime
    ended_at: datetime | None
    reserve_input: int
    reserve_output: int
    usage: TokenUsage
    finish_reason: str = ""
    error: str = ""
    retries: int = 0

    @property
    def rerun(self) -> bool:
        """Whether what it cost was spent in vain: its answer, if one came, settled nothing."""
        return self.state in (CallState.FAILED, CallState.INTERRUPTED)
