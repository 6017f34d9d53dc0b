"""What one failure may come to at worst: requests, time and money of a step, layer by layer. Pure.

The worst is that every request fails, as late as it can, until the task is parked. Executions that are lost with their
worker or sidecar come on top; no policy bounds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.config.policy import Retries, RetryLimits, Rules
from app.domain.money import amount_of, total
from app.finance.retry_bounds.policies import Guard, Policies, PolicyFinding
from app.pricing.book import PriceBook
from app.pricing.charge_types import Meter
from app.pricing.schedule import NoPrice, rates_at

# Who may be asked: the models behind Conversation components, and the internal systems.


class TargetKind(StrEnum):
    """What a target is."""

    MODEL = "model"
    SYSTEM = "system"


@dataclass(frozen=True)
class Target:
    """type: a component's type, like conversation.openai. model: as its file names it; empty where it does not."""

    name: str
    kind: TargetKind
    type: str = "HTTPEndpoint"
    model: str = ""


@dataclass(frozen=True)
class Client:
    """How often a client of daprd's sends one request itself, out of the sidecar's sight and outside its breaker's
    count. requests: None is not known."""

    requests: int | None
    fact: str


_ONCE = Client(1, "its client sends each request once")
# As found in components-contrib 1.18.3, langchaingo and what they use.
_CLIENTS: Mapping[str, Client] = {
    "HTTPEndpoint": _ONCE,
    "conversation.anthropic": _ONCE,
    "conversation.deepseek": _ONCE,
    "conversation.echo": Client(1, "it asks nobody"),
    "conversation.googleai": _ONCE,
    "conversation.huggingface": _ONCE,
    "conversation.ollama": _ONCE,
    "conversation.openai": _ONCE,
    "conversation.mistral": Client(
        5, "its client sends a request up to 5 times (429, 500, 502, 503, 504, no answer), also after the time-out"
    ),
    "conversation.aws.bedrock": Client(3, "AWS's client sends a request up to 3 times (throttled, 5xx, no answer)"),
}


def client(target: Target) -> Client:
    """The client that daprd uses for a target."""
    unknown = Client(None, f"nobody has looked how often the client of {target.type} sends a request")
    return _CLIENTS.get(target.type, unknown)


def model(component: Mapping[str, Any]) -> Target:
    """Of a Conversation component."""
    spec = component["spec"]
    entries = {str(entry.get("name", "")).lower(): entry.get("value") for entry in spec.get("metadata") or []}
    name = str(component["metadata"]["name"])
    return Target(name, TargetKind.MODEL, str(spec["type"]), str(entries.get("model") or ""))


def system(endpoint: Mapping[str, Any]) -> Target:
    """Of an HTTPEndpoint."""
    return Target(str(endpoint["metadata"]["name"]), TargetKind.SYSTEM)


# Which step of the workflow asks whom, and how many such steps a task may have.
#
# Each decision of a person has one more hold, and a look at the order where the books refuse it. A parked step that a
# person resumes begins anew.

MODEL = ""  # in the place of a system's name: the model
CLASSIFY_TURNS = 2  # the second corrects the first
LOOKUPS_A_TURN = 4
# Each task's first pause is its own, up to this much longer.
_SPREAD = 2


@dataclass(frozen=True)
class StepCalls:
    """One kind of step. asks: the systems that it asks one after another in each attempt, or the model."""

    step: str
    asks: tuple[str, ...]
    per_task: int


def calls_by_step(rules: Rules) -> tuple[StepCalls, ...]:
    """All steps that ask anybody, at their most."""
    turns = rules.drafting.max_turns
    return (
        StepCalls("classify", (MODEL,), CLASSIFY_TURNS),
        StepCalls("retrieve_account", ("accounts", "cases"), 1),  # cases only where the ticket is worked again
        StepCalls("draft_refund", (MODEL,), turns),
        StepCalls("lookup_order", ("orders",), turns * LOOKUPS_A_TURN),
        StepCalls("lookup_refund_policy", ("policies",), turns * LOOKUPS_A_TURN),
        StepCalls("hold_refund", ("refunds",), 1),
        StepCalls("notify_customer", ("refunds", "notifications"), 1),
        StepCalls("close_case", ("refunds", "cases"), 1),
    )


def pauses(retries: Retries) -> timedelta:
    """All of the workflow's pauses between the attempts of one step, each at its longest."""
    first = retries.first_seconds * _SPREAD
    lengths = (min(first * 2**number, retries.max_seconds) for number in range(retries.attempts - 1))
    return timedelta(seconds=sum(lengths))


# What one request may cost: the most expensive model that may answer it, at the largest question and answer.

_PER = Decimal(1_000_000)


@dataclass(frozen=True)
class LongestRequest:
    """Tokens that a request may use, as the journal reserves them before it."""

    input_tokens: int
    output_tokens: int


# The longest letter that a model is shown, in English, with everything around it; and the answer that is reserved.
LONGEST = LongestRequest(15_000, 1_000)


def most_expensive(
    book: PriceBook, models: Iterable[tuple[str, str]], reserve: LongestRequest, at: datetime
) -> RequestPrice:
    """For each currency the highest price of a request among these models, each a provider (component type) and a
    name."""
    amounts, unpriced = dict[str, tuple[Decimal, str]](), []
    for provider, model in sorted(set(models)):
        price = book.find(provider, model, at)
        if isinstance(price, NoPrice):
            unpriced.append(model or "(none)")
            continue
        rates = rates_at(price.contracted, reserve.input_tokens)
        used = ((Meter.INPUT, reserve.input_tokens), (Meter.OUTPUT, reserve.output_tokens))
        amount = total(amount_of(Decimal(tokens), rates[line], _PER) for line, tokens in used)
        amounts[price.currency] = max(amounts.get(price.currency, (amount, model)), (amount, model))
    return RequestPrice(
        {currency: amount for currency, (amount, _) in amounts.items()},
        tuple(sorted({model for _, model in amounts.values()})),
        tuple(unpriced),
    )


# The agent's client gives an internal system's sidecar up after this, and with it what that would still ask.
GIVE_UP = timedelta(seconds=90)
# Shorter, and the record cannot tell a breaker's refusal of a first request from that of a repeat.
TELLING_PAUSE = timedelta(seconds=1)
# The SDK's retries are switched off in the code, whatever DAPR_API_MAX_RETRIES says.
SDK_REQUESTS = 1


class Over(StrEnum):
    """Which limit is passed."""

    REQUESTS = "requests"
    TIME = "time"
    MONEY = "money"


@dataclass(frozen=True)
class Layers:
    """How many times each layer multiplies what the one above it asks; None without a bound. billed: how many of the
    workflow's may be lost after the model has probably worked."""

    client: int | None
    sdk: int
    sidecar: int | None
    workflow: int
    billed: int = 0

    @property
    def requests(self) -> int | None:
        """Their product."""
        return self._times(self.workflow)

    @property
    def billed_requests(self) -> int | None:
        """Their product for what is probably billed."""
        return self._times(self.billed)

    def _times(self, attempts: int) -> int | None:
        if self.client is None or self.sidecar is None:
            return None
        return self.client * self.sdk * self.sidecar * attempts


@dataclass(frozen=True)
class RequestPrice:
    """What one request costs at most, by currency; empty when it has no price. models: whose price it is."""

    amounts: Mapping[str, Decimal]
    models: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Worst:
    """The worst of one target. requests: of one step. until_parked: of the longest step that asks it. None is without
    a bound. money: of one step, by currency."""

    target: Target
    layers: Layers
    calls: tuple[StepCalls, ...]
    until_parked: timedelta | None
    price: RequestPrice
    notes: tuple[str, ...]

    @property
    def requests(self) -> int | None:
        """Requests of one step."""
        return self.layers.requests

    @property
    def per_task(self) -> int | None:
        """Requests of all steps that a task may have."""
        steps_ = sum(calls.per_task for calls in self.calls)
        return None if self.requests is None else self.requests * steps_

    @property
    def money(self) -> Mapping[str, Decimal]:
        """What a step costs when every answer is lost after the model has worked; empty without a price or a bound."""
        billed = self.layers.billed_requests
        if billed is None:
            return {}
        return {currency: amount * billed for currency, amount in self.price.amounts.items()}

    def limit(self, limits: RetryLimits) -> int:
        """Requests that a step may make."""
        models = self.target.kind is TargetKind.MODEL
        return limits.model_requests_per_step if models else limits.system_requests_per_step

    def over(self, limits: RetryLimits) -> tuple[Over, ...]:
        """Which limits are passed; no bound passes any. A currency without a limit of its own has none."""
        limits_passed = []
        if self.requests is None or self.requests > self.limit(limits):
            limits_passed.append(Over.REQUESTS)
        if self.until_parked is None or self.until_parked > timedelta(hours=limits.hours_until_parked):
            limits_passed.append(Over.TIME)
        if any(amount > limits.money_per_step.get(currency, amount) for currency, amount in self.money.items()):
            limits_passed.append(Over.MONEY)
        return tuple(limits_passed)


def worst(
    targets: Sequence[Target], policies: Policies, rules: Rules, billed: int, prices: Mapping[str, RequestPrice]
) -> tuple[Worst, ...]:
    """Each target, a model as if all models' steps asked it. billed: how many of a step's requests to a model may be
    lost and billed. prices: of a request, by the model component's name."""
    return tuple(
        _worst(target, policies, rules, billed, prices.get(target.name, RequestPrice({}))) for target in targets
    )


def _worst(target: Target, policies: Policies, rules: Rules, billed: int, price: RequestPrice) -> Worst:
    model = target.kind is TargetKind.MODEL
    name = MODEL if model else target.name
    calls = tuple(calls for calls in calls_by_step(rules) if name in calls.asks)
    guard = policies.of_model(target.name) if model else policies.of_app(target.name)
    attempts = rules.retries.attempts
    at_most = min(attempts, billed) if model else 0
    layers = Layers(client(target).requests, SDK_REQUESTS, guard.retry.requests, attempts, at_most)
    # A step holds its task for as long as all that it asks one after another hold it.
    together = [[guard] if model else [policies.of_app(ask) for ask in step.asks] for step in calls] or [[guard]]
    lengths = [_attempt(target.kind, guards) for guards in together]
    return Worst(target, layers, calls, _parked(lengths, rules), price, _notes(target, guard, calls))


def _parked(attempts: Sequence[timedelta | None], rules: Rules) -> timedelta | None:
    """From the first failure until the task is parked, for the longest of these attempts."""
    bounded = [attempt for attempt in attempts if attempt is not None]
    if len(bounded) < len(attempts):
        return None
    return max(bounded) * rules.retries.attempts + pauses(rules.retries)


def _attempt(kind: TargetKind, guards: Sequence[Guard]) -> timedelta | None:
    """How long one attempt may last that asks these one after another."""
    lengths = [_asked(kind, guard) for guard in guards]
    bounded = [length for length in lengths if length is not None]
    return sum(bounded, timedelta()) if len(bounded) == len(lengths) else None


def _asked(kind: TargetKind, guard: Guard) -> timedelta | None:
    """How long one target may hold an attempt."""
    requests = guard.retry.requests
    if guard.timeout is None or requests is None:
        return GIVE_UP if kind is TargetKind.SYSTEM else None
    lasts = guard.retry.lasts(requests, guard.timeout)
    return min(lasts, GIVE_UP) if kind is TargetKind.SYSTEM else lasts


def _notes(target: Target, guard: Guard, calls: Sequence[StepCalls]) -> tuple[str, ...]:
    model, repeats = target.kind is TargetKind.MODEL, guard.retry.requests != 1
    notes = [
        (not calls, "no step asks it"),
        (client(target).requests != 1, client(target).fact),
        (guard.retry.requests is None, "the sidecar asks again without end: set maxRetries"),
        (model and repeats, "the sidecar asks a refused request again too (`matching` has no effect on models)"),
        (
            model and repeats and guard.retry.first_pause < TELLING_PAUSE,
            "its first pause is shorter than 1 s: what was refused by the breaker at once cannot be told from a repeat",
        ),
        (
            model and guard.retry.requests not in (1, 2),
            "daprd's metrics tell that a call was repeated, not how often: the record counts one repeat",
        ),
        (not model and repeats and not guard.matched, "no `matching`: the sidecar asks a refused request again too"),
        (guard.timeout is None, "no time-out"),
        (not guard.breaker, "no circuit breaker: each attempt of each task is a request, however long it is down"),
    ]
    return tuple(text for holds, text in notes if holds)


def unknown_names(
    targets: Sequence[Target], policies: Policies, rules: Rules, components: frozenset[str]
) -> Iterator[PolicyFinding]:
    """Names that stand in one kind of file and are missing in the other."""
    systems = {target.name for target in targets if target.kind is TargetKind.SYSTEM}
    for step in calls_by_step(rules):
        for name in step.asks:
            if name != MODEL and name not in systems:
                yield PolicyFinding(f"step {step.step}", f"asks {name}, and no HTTPEndpoint is called so", wrong=True)
    for name in policies.apps:
        if name not in systems:
            yield PolicyFinding(
                f"apps.{name}", "no HTTPEndpoint is called so: it guards nothing that we ask", wrong=False
            )
    for name in policies.components:
        if name not in components:
            yield PolicyFinding(f"components.{name}", "no component is called so: it guards nothing", wrong=False)
