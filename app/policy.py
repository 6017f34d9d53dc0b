"""Reads `config/policy.yaml`: unknown keys and wrong types are errors that name the line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from app.errors import ConfigurationError
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
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return Rules.model_validate(yaml.safe_load(text))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}; restore it or set REFUND_AGENT_POLICY_FILE"
        ) from None
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise ConfigurationError(f"{path}: is not text in UTF-8 ({error.reason}); restore it") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(path, node, problem) for problem in error.errors())) from None


def _explain(path: Path, node: yaml.Node | None, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    message = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
    return f"{path}:{_line(node, problem['loc'])}: {where or 'file'}: {message}"


def _line(node: yaml.Node | None, location: tuple[Any, ...]) -> int:
    """The line of the deepest part of `location` that stands in the file."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
