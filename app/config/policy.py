"""Reads `config/policy.yaml`. Unknown keys and wrong types are errors that name the line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from app.config import yaml_file
from app.config.yaml_file import plain_number
from app.domain.errors import ConfigurationError
from app.domain.models import Confidence, Currency, Frozen, Money

# Numbers must be plain decimals; durations are bounded so that adding them to a time cannot overflow.
_Plain = BeforeValidator(plain_number)
Whole = Annotated[int, _Plain]
Amount = Annotated[Money, _Plain]
_Hours = Annotated[float, _Plain, Field(gt=0, le=87_600)]  # ten years
_Seconds = Annotated[float, _Plain, Field(gt=0, le=604_800)]  # a week
_REMEDY = "run this in the project's folder, restore it, or set REFUND_AGENT_POLICY_FILE"


class ApprovalRules(Frozen):
    """When a person must decide, and how long the task waits for the decision."""

    limits: dict[Currency, Amount]
    min_confidence: Annotated[Confidence, _Plain]
    serial_refunds: Whole = Field(ge=1)
    time_limit_hours: _Hours


class Drafting(Frozen):
    """The limit of turns for a draft."""

    max_turns: Whole = Field(ge=1, le=20)


class Retries(Frozen):
    """The workflow's retries of one step, with exponential back-off by a factor of 2."""

    first_seconds: _Seconds
    max_seconds: _Seconds
    attempts: Whole = Field(ge=1, le=100)


class Rules(Frozen):
    """The rules of a task. They travel in the workflow's input, so a task keeps the rules that it started with."""

    approval: ApprovalRules
    drafting: Drafting
    retries: Retries

    def limit(self, currency: str) -> Decimal:
        """The amount up to which no person must approve; zero for a currency without a limit."""
        return self.approval.limits.get(currency, Decimal(0))


class RetryLimits(Frozen):
    """The limits for the retries of all layers together, for one step. `doctor retries` checks them; they are not part
    of a task's input, since they do not affect a task."""

    model_requests_per_step: Whole = Field(ge=1)
    system_requests_per_step: Whole = Field(ge=1)
    hours_until_parked: _Hours
    money_per_step: dict[Currency, Amount]


class Losses(Retries):
    """Retries, and how many of a step's model requests may be lost after they were probably billed. The last limit
    applies to all tasks of the agent and is not part of a task's input."""

    billed_attempts: Whole = Field(default=3, ge=1, le=100)


class ComponentLimits(Frozen):
    """What a model component may be asked, by all workers together; None is no limit."""

    concurrent_calls: Annotated[Whole, Field(ge=1)] | None = None
    requests_per_minute: Annotated[Whole, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[Whole, Field(ge=1)] | None = None
    longest_wait_seconds: Annotated[float, _Plain, Field(gt=0, le=600)] = 20.0


UNLIMITED = ComponentLimits()


class Models(Frozen):
    """Which component answers which stage, and the limits of components, by their names. Read at the agent's start, for
    all tasks."""

    stages: dict[Literal["classify", "draft_refund"], str] = Field(default_factory=dict)
    limits: dict[str, ComponentLimits] = Field(default_factory=dict)


class _File(Rules):
    """The whole policy file."""

    retries: Losses
    retry_limits: RetryLimits | None = None
    models: Models = Models()


def load(path: Path) -> Rules:
    """Reads the rules. Raises ConfigurationError with file, line, key and problem."""
    file = _read(path)
    retries = Retries(**file.retries.model_dump(include=set(Retries.model_fields)))
    return Rules(approval=file.approval, drafting=file.drafting, retries=retries)


def losses(path: Path) -> Losses:
    """Reads the retries with their limit of lost answers. Raises ConfigurationError."""
    return _read(path).retries


def models(path: Path) -> Models:
    """Reads which models are asked, and their limits. Raises ConfigurationError."""
    return _read(path).models


def retry_limits(path: Path) -> RetryLimits:
    """Reads the limits of retries. Raises ConfigurationError, also if the file has none."""
    limits = _read(path).retry_limits
    if limits is None:
        raise ConfigurationError(f"{path}: retry_limits: the section is missing, so nothing is checked; add it")
    return limits


def _read(path: Path) -> _File:
    return yaml_file.read(path, _File, remedy=_REMEDY).value
