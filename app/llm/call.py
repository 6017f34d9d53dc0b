"""A model call as a value, its answer as JSON, and the bound on how many answers one step may lose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property

from app.config.policy import Losses
from app.domain.errors import AnswersLost, FailureCause, ModelUnavailable
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.pricing.charge_types import TokenUsage


@dataclass(frozen=True)
class ModelCall:
    """One request to a model: its origin (tenant, task, stage, turn, the step's `taskExecutionId`), the version of the
    prompt, and its content."""

    tenant: str
    task_id: str
    stage: str
    turn: int
    execution_id: str
    prompt_version: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()

    @cached_property  # the journal and the answer both name it
    def digest(self) -> str:
        """SHA-256 of the content: equal messages and tools have equal digests."""
        messages = [
            (
                message.role,
                message.text,
                [vars(call) for call in message.tool_calls],
                message.tool_call_id,
                message.name,
            )
            for message in self.messages
        ]
        offered = [vars(tool) for tool in self.tools]
        return hashlib.sha256(json.dumps([messages, offered], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reserve:
    """The most that a call may use, in tokens; it stands for the usage as long as that is not known."""

    input_tokens: int
    output_tokens: int


# An answer as JSON text in the journal, and back. Its usage is stored beside it in columns.


def answer_to_json(answer: Answer) -> str:
    """The answer as one line of JSON."""
    values = {name: value for name, value in asdict(answer).items() if name != "usage"}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def answer_from_json(text: str, usage: TokenUsage) -> Answer:
    """The answer that `answer_to_json` wrote, with its usage."""
    values = json.loads(text)
    return Answer(
        text=values["text"],
        tool_calls=tuple(ToolRequest(**call) for call in values["tool_calls"]),
        finish_reason=values["finish_reason"],
        model=values["model"],
        usage=usage,
    )


# How often a full component is looked at: calls of other workers end, and estimated tokens become known, without a word
# to this one.
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class LimitReached:
    """The component's limits do not admit the call now. `may_pause`: the step has sent no request yet, so its task may
    pause and come back with a new step. `seconds`: when to look again, unless a call of this worker ends before."""

    may_pause: bool
    seconds: float = LOOK_SECONDS


# The bound on lost answers.
#
# A request that failed before a model worked costs nothing and may be repeated for hours. A request whose answer was
# lost (no answer in time, a cut connection, half an answer) was probably billed, so such failures have a lower bound.
# They are also repeated more slowly than other steps, since an unreachable provider looks the same and is often back
# within a minute.

# The pause between the second such failure of a step and the next request, or the policy's longest pause if shorter.
_PAUSE = timedelta(seconds=60)


Objection = AnswersLost | ModelUnavailable


@dataclass(frozen=True)
class FailedRequest:
    """A failed request of the step: its error as the journal has it, and when it ended."""

    error: str
    ended_at: datetime


def objection(component: str, failed: Sequence[FailedRequest], losses: Losses, now: datetime) -> Objection | None:
    """Why the step may not ask the model again: the bound is reached, or the pause is not over. None when it may."""
    billed = sorted(
        (request for request in failed if not FailureCause.from_error(request.error).no_model_worked),
        key=lambda request: request.ended_at,
    )
    if len(billed) >= losses.billed_attempts:
        return AnswersLost(component, len(billed), FailureCause.from_error(billed[-1].error).value)
    pause = min(_PAUSE, timedelta(seconds=losses.max_seconds))
    if len(billed) > 1 and now < billed[-1].ended_at + pause:
        return ModelUnavailable(
            f"model component {component}: {len(billed)} answers to this step were lost and probably billed; "
            f"it is asked again later, {pause.total_seconds():.0f} s after the last one"
        )
    return None
