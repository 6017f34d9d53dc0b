"""Reads `config/policy.yaml`: unknown keys and wrong types are errors that name the line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pydantic import Field

from app import yamlfile
from app.models import Confidence, Currency, Frozen, Money


class Approval(Frozen):
    """When a person decides, and how long the task waits for it."""

    limits: dict[Currency, Money]
    min_confidence: Confidence
    serial_refunds: int = Field(ge=1)
    time_limit_hours: float = Field(gt=0)


class Drafting(Frozen):
    """How long a draft may take."""

    max_turns: int = Field(ge=1, le=20)


class Retries(Frozen):
    """The workflow's own retries of one step: exponential, factor 2."""

    first_seconds: float = Field(gt=0)
    max_seconds: float = Field(gt=0)
    attempts: int = Field(ge=1, le=100)


class Rules(Frozen):
    """All of the policy file. It travels in the workflow's input, so a task keeps what it started with."""

    approval: Approval
    drafting: Drafting
    retries: Retries

    def limit(self, currency: str) -> Decimal:
        """The amount up to which no person is asked; zero for a currency without a limit."""
        return self.approval.limits.get(currency, Decimal(0))


def load(path: Path) -> Rules:
    """Reads the rules. Raises ConfigurationError with file, line, key and what is wrong."""
    return yamlfile.read(path, Rules, remedy="restore it or set REFUND_AGENT_POLICY_FILE").value
