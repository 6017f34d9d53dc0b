"""What the API says and hears beyond `app.domain.models`: small frozen bodies, all of them documented."""

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
    """The web process answers. Says nothing about Dapr or the models: that is `doctor`'s work."""

    status: str = Field(pattern="^ok$")
    version: str


class Index(Frozen):
    """What this is, and where to go on: paths below this agent's own address."""

    name: str = "refund-agent"
    version: str
    description: str = "/openapi.json"
    tasks: str = "/tasks"
    pages: str = "/pages/tasks"


class Nothing(Frozen):
    """A body without a field. It may be left out."""


QuestionNumber = Annotated[int, Field(ge=1, le=999_999)]
Note = Annotated[str, Field(max_length=500)]


class Approval(Frozen):
    """Approves what waits. `refund` replaces the drafted one; without it the drafted one is paid. `note` is kept in the
    ledger, redacted. `question` is the number of the question that is answered: when another one is asked by now, the
    approval comes too late."""

    refund: Refund | None = None
    note: Note = ""
    question: QuestionNumber | None = None


class Rejection(Frozen):
    """Rejects what waits. `note` is kept in the ledger, redacted; the customer does not see it. `question`: as with an
    approval."""

    note: Note = ""
    question: QuestionNumber | None = None


class Termination(Frozen):
    """Ends a task for good."""

    reason: Text = Field(min_length=1, max_length=200)


class TaskQuery(Frozen):
    """Which tasks to list, oldest first. `after` is the `next_after` of the page before."""

    tenant: TenantId | None = None
    status: TaskStatus | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 50
    after: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | None = None


class PeriodQuery(Frozen):
    """Which days, in UTC, `until` not among them; and which tenant."""

    since: date | None = None
    until: date | None = None
    tenant: TenantId | None = None

    @model_validator(mode="after")
    def _holds_a_day(self) -> Self:
        if self.since and self.until and self.since >= self.until:
            raise ValueError("`until` is not after `since`, so that no day is among them")
        return self


class CostQuery(PeriodQuery):
    """Which charges to sum, by what: dimensions with commas between them."""

    by: Annotated[str, Field(pattern=f"^{_DIMENSION}(,{_DIMENSION})*$")] = "tenant,stage"

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What to sum by, each once."""
        return tuple(Dimension(name) for name in dict.fromkeys(self.by.split(",")))


class FieldProblem(Frozen):
    """One field that cannot be accepted. It names the field, never the value."""

    field: str
    detail: str
    code: str


class Problem(Frozen):
    """What went wrong, as RFC 9457 says it. A program should look at `code` alone (`docs/operations.md` lists them):
    it is stable, and `type` is the same as a URI; the words may change with any version."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str
    code: str = Field(pattern="^[a-z][a-z0-9_]*$")
    reason: str | None = None  # why a decision was refused, such as above_refundable
    errors: tuple[FieldProblem, ...] | None = None
    error_id: str | None = None  # stands in the agent's log as well
