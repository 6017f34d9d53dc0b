"""Reads `config/policy.yaml`: unknown keys and wrong types are errors that name the line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from app.config import yaml_file
from app.config.yaml_file import plain_number
from app.domain.errors import ConfigurationError
from app.domain.models import Confidence, Currency, Frozen, Money

# Numbers as they are written in the file, and no larger than time can be reckoned with.
_Plain = BeforeValidator(plain_number)
Whole = Annotated[int, _Plain]
Amount = Annotated[Money, _Plain]
_Hours = Annotated[float, _Plain, Field(gt=0, le=87_600)]  # ten years
_Seconds = Annotated[float, _Plain, Field(gt=0, le=604_800)]  # a week
_REMEDY = "run this in the project's folder, restore it, or set REFUND_AGENT_POLICY_FILE"


class ApprovalRules(Frozen):
    """When a person decides, and how long the task waits for it."""

    limits: dict[Currency, Amount]
    min_confidence: Annotated[Confidence, _Plain]
    serial_refunds: Whole = Field(ge=1)
    time_limit_hours: _Hours


class Drafting(Frozen):
    """How long a draft may take."""

    max_turns: Whole = Field(ge=1, le=20)


class Retries(Frozen):
    """The workflow's own retries of one step: exponential, factor 2."""

    first_seconds: _Seconds
    max_seconds: _Seconds
    attempts: Whole = Field(ge=1, le=100)


class Rules(Frozen):
    """What a task is worked by. It travels in the workflow's input, so a task keeps what it started with."""

    approval: ApprovalRules
    drafting: Drafting
    retries: Retries

    def limit(self, currency: str) -> Decimal:
        """The amount up to which no person is asked; zero for a currency without a limit."""
        return self.approval.limits.get(currency, Decimal(0))


class RetryLimits(Frozen):
    """How much the retries of all layers together may amount to for one step. Checked by `doctor retries`; in no
    task's input, since it decides nothing about a task."""

    model_requests_per_step: Whole = Field(ge=1)
    system_requests_per_step: Whole = Field(ge=1)
    hours_until_parked: _Hours
    money_per_step: dict[Currency, Amount]


class Losses(Retries):
    """Retries, and how many of a step's requests to a model may be lost after the model has probably worked and was
    probably billed. The agent's own, for all tasks: in no task's input."""

    billed_attempts: Whole = Field(default=3, ge=1, le=100)


class ComponentLimits(Frozen):
    """What a model component may be asked, by all workers together; None is no limit."""

    concurrent_calls: Annotated[Whole, Field(ge=1)] | None = None
    requests_per_minute: Annotated[Whole, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[Whole, Field(ge=1)] | None = None
    longest_wait_seconds: _Seconds = 20.0


UNLIMITED = ComponentLimits()


class Models(Frozen):
    """Which component answers which stage, and the limits of components, by their names. Read at the agent's start, for
    all tasks."""

    stages: dict[Literal["classify", "draft_refund"], str] = Field(default_factory=dict)
    limits: dict[str, ComponentLimits] = Field(default_factory=dict)


class _File(Rules):
    """All of the policy file."""

    retries: Losses
    retry_limits: RetryLimits | None = None
    models: Models = Models()


def load(path: Path) -> Rules:
    """Reads the rules. Raises ConfigurationError with file, line, key and what is wrong."""
    found = _read(path)
    retries = Retries(**found.retries.model_dump(include=set(Retries.model_fields)))
    return Rules(approval=found.approval, drafting=found.drafting, retries=retries)


def losses(path: Path) -> Losses:
    """Reads how many answers a step may lose. Raises ConfigurationError."""
    return _read(path).retries


def models(path: Path) -> Models:
    """Reads which models are asked, and their limits. Raises ConfigurationError."""
    return _read(path).models


def retry_limits(path: Path) -> RetryLimits:
    """Reads the limits of retries. Raises ConfigurationError, also where the file has none."""
    found = _read(path).retry_limits
    if found is None:
        raise ConfigurationError(f"{path}: retry_limits: is not there, so nothing is over the limit; write the section")
    return found


def _read(path: Path) -> _File:
    return yaml_file.read(path, _File, remedy=_REMEDY).value
