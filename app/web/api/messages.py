"""The API's models in addition to `app.domain.models`; their docstrings appear in the OpenAPI document."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Self

from pydantic import Field, model_validator

from app.domain.models import Frozen, Refund, TaskStatus, TenantId
from app.domain.texts import Text
from app.finance.rollup import Dimension

MAX_PAGE = 200
_DIMENSION = f"({'|'.join(Dimension)})"


class Health(Frozen):
    """The answer of a health check. It says nothing about Dapr or the models; `refund-agent doctor` checks them."""

    status: str = Field(pattern="^ok$")
    version: str


class Index(Frozen):
    """The API's entry point. `description`, `tasks` and `pages` are paths below the agent's address."""

    name: str = "refund-agent"
    version: str
    description: str = "/openapi.json"
    tasks: str = "/tasks"
    pages: str = "/pages/tasks"


class Nothing(Frozen):
    """A body without fields; it may be empty."""


QuestionNumber = Annotated[int, Field(ge=1, le=999_999)]
Note = Annotated[str, Field(max_length=500)]


class Approval(Frozen):
    """Approves a refund for a waiting task. `refund` replaces the drafted refund; without it, the drafted refund is
    paid. `note` is stored in the ledger, redacted. `question` is the number of the answered question: if the task asks
    another question by now, the approval is too late."""

    refund: Refund | None = None
    note: Note = ""
    question: QuestionNumber | None = None


class Rejection(Frozen):
    """Rejects a refund for a waiting task. `note` is stored in the ledger, redacted; the customer does not see it.
    `question` is the number of the answered question: if the task asks another question by now, the rejection is too
    late."""

    note: Note = ""
    question: QuestionNumber | None = None


class Termination(Frozen):
    """Ends a task for good."""

    reason: Text = Field(min_length=1, max_length=200)


class TaskQuery(Frozen):
    """Selects tasks to list, oldest first. `after` is the `next_after` of the previous page."""

    tenant: TenantId | None = None
    status: TaskStatus | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50
    after: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | None = None


class PeriodQuery(Frozen):
    """Selects days in UTC, with `until` exclusive, and a tenant."""

    since: date | None = None
    until: date | None = None
    tenant: TenantId | None = None

    @model_validator(mode="after")
    def _holds_a_day(self) -> Self:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("`until` is not after `since`, so the period contains no day")
        return self


class CostQuery(PeriodQuery):
    """Selects the charges to sum; `by` lists the dimensions, separated by commas."""

    by: Annotated[str, Field(pattern=f"^{_DIMENSION}(,{_DIMENSION})*$")] = "tenant,stage"

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions of `by` without repeats."""
        return tuple(Dimension(name) for name in dict.fromkeys(self.by.split(",")))


class FieldProblem(Frozen):
    """One field that cannot be accepted. It contains the field's name, never its value."""

    field: str
    detail: str
    code: str


class Problem(Frozen):
    """A problem document of RFC 9457. Programs should read `code`, which is stable (`docs/operations.md` lists the
    codes); `type` is the code as a URI. The texts may change with any version."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str
    code: str = Field(pattern="^[a-z][a-z0-9_]*$")
    reason: str | None = None  # why a decision was refused, such as above_refundable
    errors: tuple[FieldProblem, ...] | None = None
    error_id: str | None = None  # also in the agent's log
