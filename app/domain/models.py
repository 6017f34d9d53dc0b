"""What travels between the rooms: frozen, validated, JSON-safe; money is `Decimal`, time is UTC.

Everything here may cross the workflow's history, so nothing here holds a person's text, address or
secret: texts stay in the ledger and are named by digest. Import nothing but the standard library,
pydantic, iso4217, `app.domain.errors` and `app.domain.texts`.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import iso4217
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)

from app.domain.texts import Text

# Decimal places of every currency that money is paid in; precious metals and test codes have none and are left out.
_MINOR_UNITS = {currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None}


def minor_units(currency: str) -> int:
    """How many decimal places amounts in `currency` have by ISO 4217: USD 2, JPY 0, KWD 3. Raises ValueError."""
    if currency not in _MINOR_UNITS:
        raise ValueError(f"{currency} is no currency of ISO 4217 that money is paid in")
    return _MINOR_UNITS[currency]


def is_currency(word: str) -> bool:
    """Whether the word is a code of ISO 4217 for something that money is paid in."""
    return word in _MINOR_UNITS


def in_minor_units(amount: Decimal, currency: str) -> Decimal:
    """`amount` in its one normal form, with exactly the decimal places of its currency: 1E+1 USD gives 10.00.

    Raises ValueError for an amount with finer parts, such as 100.50 JPY.
    """
    places = minor_units(currency)
    normal = amount.quantize(Decimal(1).scaleb(-places))
    if normal != amount:
        raise ValueError(f"{amount:f} {currency} has more than the {places} decimal places of {currency}")
    return normal


def _currency(code: str) -> str:
    minor_units(code)
    return code


def _digits(amount: object) -> object:
    """Python reads `1_000` and the digits of every script as numbers; who writes so may mean something else."""
    if isinstance(amount, str) and ("_" in amount or not amount.isascii()):
        raise ValueError("an amount is written with the digits 0 to 9 and a point")
    return amount


Money = Annotated[
    Decimal,
    BeforeValidator(_digits),
    Field(ge=0, max_digits=14, decimal_places=4),
    PlainSerializer(lambda amount: format(amount, "f"), return_type=str),
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
TicketId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

# Who calls, by the name of its token; stands in decisions.
CallerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}$")]

Confidence = Annotated[Decimal, Field(ge=0, le=1), PlainSerializer(str, return_type=str)]

MAX_TICKET_CHARACTERS = 64_000


class Frozen(BaseModel):
    """A value: immutable, and strict about keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InCurrency(Frozen):
    """Something with an amount and its currency; with both, the amount is kept in the currency's normal form."""

    currency: Currency | None
    amount: Money | None

    @field_validator("amount")
    @classmethod
    def _normal(cls, amount: Decimal | None, known: ValidationInfo) -> Decimal | None:
        currency = known.data.get("currency")
        return amount if amount is None or currency is None else in_minor_units(amount, currency)


class Category(StrEnum):
    """What a ticket is about."""

    DAMAGED = "damaged"  # arrived broken, defective, spoiled
    NOT_RECEIVED = "not_received"  # never arrived, lost, marked delivered but is not there
    WRONG_ITEM = "wrong_item"  # another product, size or colour than ordered; an item missing from the parcel
    CHANGED_MIND = "changed_mind"  # wants to return something that is fine
    DOUBLE_CHARGE = "double_charge"  # charged twice, or more than the order's total
    CANCELLATION = "cancellation"  # wants an order stopped before it is sent
    QUESTION = "question"  # asks for information; wants no money back
    COMPLAINT = "complaint"  # is unhappy; wants no money back
    FRAUD = "fraud"  # says that somebody else ordered or paid, threatens a chargeback over an unknown order
    UNCLEAR = "unclear"  # says too little to tell


REFUNDABLE = frozenset(
    {
        Category.DAMAGED,
        Category.NOT_RECEIVED,
        Category.WRONG_ITEM,
        Category.CHANGED_MIND,
        Category.DOUBLE_CHARGE,
        Category.CANCELLATION,
    }
)


class UsageBasis(StrEnum):
    """How a quantity is known, best first; a sum is as good as the worst of its parts. Unknown is never zero."""

    REPORTED = "reported"  # by the provider
    ESTIMATED = "estimated"  # counted by us
    UNREPORTED = "unreported"  # not known


class Action(StrEnum):
    """What the drafted answer proposes."""

    REFUND = "refund"
    DECLINE = "decline"  # the policy or the order does not allow a refund
    ANSWER = "answer"  # no money is asked for, or a question back to the customer
    ESCALATE = "escalate"  # the model is unsure: a person decides


class Outcome(StrEnum):
    """How a task ended."""

    REFUNDED = "refunded"
    DECLINED = "declined"  # by the refund policy
    ANSWERED = "answered"
    REJECTED = "rejected"  # by a person
    EXPIRED = "expired"  # nobody decided in time; the case stays open with the support desk


class Ticket(Frozen):
    """A customer's request as it arrives. `tenant` and `ticket_id` together are its identity."""

    tenant: TenantId
    ticket_id: TicketId
    customer_id: Reference
    order_id: Reference | None = None
    subject: Text = Field(default="", max_length=500)
    text: Text = Field(default="", max_length=MAX_TICKET_CHARACTERS)

    @field_validator("ticket_id", "customer_id", "order_id", mode="before")
    @classmethod
    def _id_of_a_help_desk(cls, value: Any) -> Any:
        """Many help desks number their tickets, customers and orders, and export the bare number."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**20 else value

    @field_validator("subject", "text", mode="before")
    @classmethod
    def _nothing_said(cls, value: Any) -> Any:
        """They export an empty subject as null."""
        return "" if value is None else value

    @property
    def task_id(self) -> str:
        """The workflow instance id of the ticket's task: `tenant:ticket_id`."""
        return task_id(self.tenant, self.ticket_id)


def task_id(tenant: str, ticket_id: str) -> str:
    """Names the task of a ticket. A tenant holds no colon, so the id can be taken apart again."""
    return f"{tenant}:{ticket_id}"


class Refund(InCurrency):
    """Money that goes back for one order."""

    order_id: Reference
    currency: Currency
    amount: Annotated[Money, Field(gt=0)]


class Decision(Frozen):
    """What a person said about a waiting task. `refund` replaces the drafted one when given; `question` is the number
    of the question that it answers, `decision_id` names it in the ledger. A note for it stays in the ledger."""

    verdict: Literal["approve", "reject"]
    by: CallerName
    refund: Refund | None = None
    question: int | None = None
    decision_id: str = Field(default="", max_length=36)


class DecisionState(StrEnum):
    """What became of a decision."""

    HANDED_OVER = "handed_over"  # to the task, which has not taken it yet, as far as is known
    ACCEPTED = "accepted"
    REFUSED = "refused"  # by the books, or before it reached the task
    TOO_LATE = "too_late"  # its question was answered, or the task over, before it came


class SettledDecision(Frozen):
    """What became of a decision, as the task itself says it: `code` is why it was not accepted, `most` what the order
    had left then. Figures and ids alone, since it travels in the history."""

    decision_id: str
    question: int | None
    verdict: Literal["approve", "reject"]
    by: str
    refund: Refund | None = None  # what was approved, the proposed one included
    at: str  # ISO 8601, UTC
    state: DecisionState
    code: str = ""
    most: Money | None = None
    currency: Currency | None = None  # of `most`
    reason: str = ""  # why the person was asked


class DecisionView(Frozen):
    """A decision about a task, or an attempt at one, for a reader. `words` says what became of it; `most` is what the
    order had left then, in `currency`."""

    decision_id: str
    at: str  # ISO 8601, UTC
    by: str
    verdict: Literal["approve", "reject"]
    question: int | None = None
    refund: Refund | None = None
    note: str = ""
    state: DecisionState
    code: str = ""
    most: Money | None = None
    currency: Currency | None = None
    words: str
    settled_at: str | None = None
    reason: str = ""  # why the person was asked; empty when that is not known


class AnsweredBy(StrEnum):
    """Where the answer to a model call came from."""

    PROVIDER = "provider"
    JOURNAL = "journal"  # the step was executed again; the answer was paid before


class CallState(StrEnum):
    """Where a model call is."""

    STARTED = "started"
    SETTLED = "settled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # begun by an execution that is gone, or overtaken by another one's answer


class Deferred(Frozen):
    """A step's result when it could not begin: the task pauses for so long, and the step is run anew."""

    deferred_seconds: float = Field(gt=0)


class ToolForm(StrEnum):
    """How a model call offered its tools."""

    NATIVE = "native"  # as the provider's own tools
    JSON = "json"  # in words, answered by JSON, since the component cannot pass tools on


class ModelUse(Frozen):
    """What one model call used, and how that is known; `None` is not known, which is not zero."""

    answered_by: AnsweredBy
    component: str
    model: str
    prompt_version: str
    request_digest: str
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    usage_basis: UsageBasis


class Classification(Frozen):
    """What the classify stage found."""

    category: Category
    wants_refund: bool
    order_id: Reference | None = None
    language: str = Field(pattern=r"^[a-z]{2}$")
    confidence: Confidence


class Proposal(InCurrency):
    """What the model proposes, without the letter that goes with it."""

    action: Action
    order_id: Reference | None = None
    amount: Money | None = None
    currency: Currency | None = None
    reason: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    confidence: Confidence


class Draft(Proposal):
    """A proposal as it travels. The reply to the customer lies in the ledger under `reply_digest`."""

    reply_digest: str


class Intake(StrEnum):
    """What became of a ticket that was sent."""

    NEW = "new"  # its task is started
    KNOWN = "known"  # it is the same ticket as before, and the same task
    LATER = "later"  # it is kept; its task is started as soon as the engine answers


class TaskStatus(StrEnum):
    """Where a task is, for a reader."""

    RUNNING = "running"
    WAITING = "waiting"  # for a person's decision
    PARKED = "parked"  # something outside stayed down longer than the retries last; `task resume` goes on
    PAUSED = "paused"  # by a person
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"

    @property
    def ended(self) -> bool:
        """Whether nothing can change the task any more."""
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.TERMINATED)


class OrderFigures(Frozen):
    """What our books said of an order when they were asked."""

    order_id: Reference
    currency: Currency
    charged: Money
    refunded: Money
    held: Money = Decimal(0)  # in flight for other tickets
    refundable: Money  # what was charged, not given back and not in flight


class AccountFigures(Frozen):
    """What our books said of the customer's account when they were asked."""

    tier: str
    risk: str
    since_days: int
    refunds_90d: int
    refunded_90d: Money | None = None  # received in 90 days or in flight for other tickets, in the order's currency


class Figures(Frozen):
    """What a person needs to know to decide, as it was when the question was asked. Figures alone, no text."""

    limit: Money | None = None  # up to which no person is asked, in the proposed refund's currency
    order: OrderFigures | None = None
    account: AccountFigures | None = None


class Question(Figures):
    """What a person is asked, beside the reason and the proposed refund. Each question of a task has a number of its
    own, which the decision names."""

    number: int
    asked_at: str  # ISO 8601, UTC
    expires_at: str  # when nobody has decided by then, the task ends as expired


class Progress(Frozen):
    """What a running task says of itself; travels as the workflow's custom status."""

    status: Literal[TaskStatus.RUNNING, TaskStatus.WAITING, TaskStatus.PARKED]
    reason: str = ""  # a short code such as above_limit, or the stage and error it is parked at
    category: Category | None = None
    refund: Refund | None = None  # the drafted refund that waits for approval
    question: Question | None = None
    decisions: tuple[SettledDecision, ...] = ()  # the last ones that the task has taken


class TaskResult(Frozen):
    """How a task ended."""

    outcome: Outcome
    category: Category | None
    refund: Refund | None = None
    refund_id: str | None = None
    decided_by: str | None = None


class TaskOutput(TaskResult):
    """What the workflow returns: how it ended, and what became of the decisions that it was given."""

    decisions: tuple[SettledDecision, ...] = ()

    @property
    def result(self) -> TaskResult:
        """How it ended."""
        return TaskResult.model_validate(self.model_dump(exclude={"decisions"}))


class Retrying(Frozen):
    """A step that failed and is tried again. attempt: the one that failed last, of `attempts` at most; code: of its
    error, None when that is none of the agent's own; next_at: when it is tried again; None when that is under way."""

    step: str
    attempt: int
    attempts: int | None
    error: str
    code: str | None = None
    next_at: str | None  # ISO 8601, UTC

    @property
    def words(self) -> str:
        """For a reader."""
        of = f" of {self.attempts}" if self.attempts else ""
        again = f"next at {self.next_at[:19].replace('T', ' ')} UTC" if self.next_at else "the next is under way"
        return f"{self.step}: attempt {self.attempt}{of} failed, {again}: {self.error}"


class TaskView(Frozen):
    """A task for a reader: API, CLI and pages."""

    task_id: str
    tenant: TenantId
    ticket_id: TicketId
    status: TaskStatus
    created_at: str  # ISO 8601, UTC
    updated_at: str | None = None
    category: Category | None = None  # as far as it is known yet
    waiting_for: str | None = None  # the reason of a waiting or parked task
    proposed_refund: Refund | None = None
    question: Question | None = None  # of a waiting task
    result: TaskResult | None = None
    error: str | None = None
    retrying: Retrying | None = None  # what a running task is stuck at; not in lists
    decisions: tuple[DecisionView, ...] = ()  # oldest first; not in lists
    caveat: str | None = None  # why this may not be how the task is now, and what to do about it


class TaskPage(Frozen):
    """One page of tasks, in the order that was asked for; `next_after` is the cursor of the next page."""

    tasks: tuple[TaskView, ...]
    next_after: str | None = None


class TicketView(Frozen):
    """A ticket as it is kept: e-mail addresses, card numbers and the like are taken out of its texts."""

    task_id: str
    customer_id: str
    order_id: str | None
    subject: str
    text: str
    received_at: str  # ISO 8601, UTC


class Case(Frozen):
    """A task that waits for a person, with what its customer wrote."""

    task: TaskView
    ticket: TicketView


class Inbox(Frozen):
    """One page of tasks that wait for a person, the oldest first. `total` is how many there are of what was asked for;
    `reasons` and `tenants` count all that wait."""

    cases: tuple[Case, ...]
    total: int
    reasons: dict[str, int]
    tenants: dict[str, int]
    next_after: str | None = None
