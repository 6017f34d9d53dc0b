"""What is asked of the gateway, what a call uses, and how often one step may ask in vain: values only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property

from app.config.policy import Losses
from app.domain.errors import FailureCause, ModelUnavailable, RepeatedlyLost
from app.llm.conversation import Answer, Message, ToolDefinition, ToolRequest
from app.pricing.charge_types import TokenUsage


@dataclass(frozen=True)
class ModelCall:
    """One question: who asks (tenant, task, stage, turn, the step's `taskExecutionId`), in which wording, and what."""

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
        """Names the question's content: equal questions have equal digests."""
        said = [
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
        return hashlib.sha256(json.dumps([said, offered], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reserve:
    """What a call may use at most, in tokens, before it is known."""

    input_tokens: int
    output_tokens: int


# An answer as JSON text at rest, and back. What it used stands beside it, in columns of its own.


def answer_to_json(answer: Answer) -> str:
    """The answer as one line of JSON."""
    values = {name: value for name, value in asdict(answer).items() if name != "usage"}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def answer_from_json(text: str, usage: TokenUsage) -> Answer:
    """The answer that `answer_to_json` wrote, with what it used."""
    values = json.loads(text)
    return Answer(
        text=values["text"],
        tool_calls=tuple(ToolRequest(**call) for call in values["tool_calls"]),
        finish_reason=values["finish_reason"],
        model=values["model"],
        usage=usage,
    )


# How often one step may ask a model in vain.
#
# A request that failed before a model worked costs nothing and may be repeated for hours. One whose answer was lost (no
# answer in time, a cut connection, half an answer) was probably billed: such failures have a bound of their own. They
# are not repeated at the workflow's pace either: a provider that is unreachable looks the same, and is often back in a
# minute.

# Between the second such failure of a step and the next request; the policy's longest pause, where that is shorter.
_PAUSE = timedelta(seconds=60)


Objection = RepeatedlyLost | ModelUnavailable


@dataclass(frozen=True)
class Failed:
    """A request of the step that failed: its error, as the journal tells it, and when it ended."""

    error: str
    ended_at: datetime


def objection(component: str, failed: Sequence[Failed], losses: Losses, now: datetime) -> Objection | None:
    """Why the model is not asked once more: the bound is reached, or the pause is not over. None when it may be."""
    billed = sorted(
        (step for step in failed if not FailureCause.told(step.error).no_model_worked),
        key=lambda failed: failed.ended_at,
    )
    if len(billed) >= losses.billed_attempts:
        return RepeatedlyLost(component, len(billed), FailureCause.told(billed[-1].error).value)
    pause = min(_PAUSE, timedelta(seconds=losses.max_seconds))
    if len(billed) > 1 and now < billed[-1].ended_at + pause:
        return ModelUnavailable(
            f"model component {component}: {len(billed)} answers to this step were lost and probably billed; "
            f"it is asked again later, {pause.total_seconds():.0f} s after the last one"
        )
    return None
