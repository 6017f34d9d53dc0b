"""The result as JSON. Money and shares are exact decimals as text. docs/crash-cost.md describes all keys."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

from pydantic import PlainSerializer

from app.domain.models import Frozen
from app.domain.money import plain
from lab.crash_cost.spend import Spend
from lab.crash_cost.trace import Arm, Kind

Exact = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
_PLACES = Decimal("0.0001")


class SpendView(Frozen):
    """Sums of a bill. `input_tokens` includes the cached ones."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    amount: Exact


class PointView(Frozen):
    """One kill. moment: share of the task's time that was over. request, number: the target of the interrupted request,
    and its number among the task's requests to this target."""

    task: str
    moment: float
    request: str
    number: int
    kind: Kind


class ArmView(Frozen):
    """What one arm paid twice.

    share: of the clean spend. expected: what it must repeat by the trace, each request at its price in the clean run.
    unexplained: requests by which the bill differs from the trace. refunds_otherwise, notices_otherwise,
    cases_otherwise: entries in which the books differ from the clean run's.
    """

    arm: Arm
    repeated: SpendView
    share: Exact
    expected: SpendView
    unexplained: int
    refunds_otherwise: int
    notices_otherwise: int
    cases_otherwise: int
    seconds: float


class TraceView(Frozen):
    """The result at one rate.

    upper_bound: the rate times the clean spend. ceiling: the clean spend of the killed tasks. ratio: what resume
    repeated, divided by what restart did; null if restart repeated nothing.
    """

    rate: Exact
    kills: int
    upper_bound: Exact
    ceiling: Exact
    restart: ArmView
    resume: ArmView
    ratio: Exact | None
    points: tuple[PointView, ...]


class KindView(Frozen):
    """All kills of one kind, over all rates. clean: the spend of their tasks without kills."""

    kind: Kind
    kills: int
    clean: Exact
    restart: Exact
    resume: Exact


class LoadView(Frozen):
    """The result of one load. model_calls: of a task, on average. expected_ratio: 2 / (model_calls + 1)."""

    name: str
    title: str
    tasks: int
    model_calls: Exact
    clean: SpendView
    traces: tuple[TraceView, ...]
    kinds: tuple[KindView, ...]
    ratio: Exact | None
    expected_ratio: Exact


class Assumptions(Frozen):
    """The durations that the traces assume, in seconds."""

    on_the_way_seconds: float
    model_seconds: float
    system_seconds: float


class CrashCostView(Frozen):
    """The result of the experiment."""

    seed: int
    seconds: float
    currency: str
    price_id: str
    book_digest: str
    machine: dict[str, str]
    assumptions: Assumptions
    loads: tuple[LoadView, ...]


def spend_view(spend: Spend) -> SpendView:
    """A spend as JSON."""
    return SpendView(**vars(spend))


def share(part: Decimal, whole: Decimal) -> Decimal:
    """`part / whole`, rounded to four places."""
    return (part / whole).quantize(_PLACES, rounding=ROUND_HALF_EVEN)


def ratio(traces: Sequence[TraceView]) -> Decimal | None:
    """What resume repeated in these traces, divided by what restart did; None if restart repeated nothing."""
    restart = sum((trace.restart.repeated.amount for trace in traces), Decimal(0))
    resume = sum((trace.resume.repeated.amount for trace in traces), Decimal(0))
    return share(resume, restart) if restart else None
