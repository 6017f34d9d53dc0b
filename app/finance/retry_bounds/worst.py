"""The worst case of a step: requests, time and money, multiplied layer by layer.

In the worst case every request fails, as late as possible, until the task is parked. Executions that are lost with
their worker or sidecar are not included; no policy limits them.
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


class TargetKind(StrEnum):
    """The kind of a target: a model behind a Conversation component, or an internal system."""

    MODEL = "model"
    SYSTEM = "system"


@dataclass(frozen=True)
class Target:
    """A target of requests. type: a component's type, such as conversation.openai. model: the model in the component's
    file; empty if there is none."""

    name: str
    kind: TargetKind
    type: str = "HTTPEndpoint"
    model: str = ""


@dataclass(frozen=True)
class Client:
    """How often a client library within daprd sends one request, which neither the sidecar's policies nor its breaker
    see. requests: None if unknown. fact: a sentence for the reader."""

    requests: int | None
    fact: str


_ONCE = Client(1, "its client sends each request once")
# Read from the code of components-contrib 1.18.3, langchaingo and their dependencies.
_CLIENTS: Mapping[str, Client] = {
    "HTTPEndpoint": _ONCE,
    "conversation.anthropic": _ONCE,
    "conversation.deepseek": _ONCE,
    "conversation.echo": Client(1, "it sends no request"),
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
    """The client library that daprd uses for a target."""
    unknown = Client(None, f"it is unknown how often the client of {target.type} sends a request")
    return _CLIENTS.get(target.type, unknown)


def model(component: Mapping[str, Any]) -> Target:
    """The target of a Conversation component."""
    spec = component["spec"]
    entries = {str(entry.get("name", "")).lower(): entry.get("value") for entry in spec.get("metadata") or []}
    name = str(component["metadata"]["name"])
    return Target(name, TargetKind.MODEL, str(spec["type"]), str(entries.get("model") or ""))


def system(endpoint: Mapping[str, Any]) -> Target:
    """The target of an HTTPEndpoint."""
    return Target(str(endpoint["metadata"]["name"]), TargetKind.SYSTEM)


# The targets of each step of the workflow, and the number of such steps of a task. Not included: each decision of a
# person makes one more hold, and a lookup of the order if the refund system refuses it; a resumed step starts anew.

MODEL = ""  # in place of a system's name
CLASSIFY_TURNS = 2  # the second corrects the first
LOOKUPS_A_TURN = 4
# The first pause of a task varies with its id, up to this factor.
_SPREAD = 2


@dataclass(frozen=True)
class StepCalls:
    """One kind of step. targets: the systems that each attempt calls one after another, or the model."""

    step: str
    targets: tuple[str, ...]
    per_task: int


def calls_by_step(rules: Rules) -> tuple[StepCalls, ...]:
    """All steps that call a target, each with the most steps of that kind in a task."""
    turns = rules.drafting.max_turns
    return (
        StepCalls("classify", (MODEL,), CLASSIFY_TURNS),
        StepCalls("retrieve_account", ("accounts", "cases"), 1),  # cases only if the ticket is worked again
        StepCalls("draft_refund", (MODEL,), turns),
        StepCalls("lookup_order", ("orders",), turns * LOOKUPS_A_TURN),
        StepCalls("lookup_refund_policy", ("policies",), turns * LOOKUPS_A_TURN),
        StepCalls("hold_refund", ("refunds",), 1),
        StepCalls("notify_customer", ("refunds", "notifications"), 1),
        StepCalls("close_case", ("refunds", "cases"), 1),
    )


def pauses(retries: Retries) -> timedelta:
    """The sum of the workflow's pauses between the attempts of one step, each at its longest."""
    first = retries.first_seconds * _SPREAD
    lengths = (min(first * 2**number, retries.max_seconds) for number in range(retries.attempts - 1))
    return timedelta(seconds=sum(lengths))


_PER = Decimal(1_000_000)


@dataclass(frozen=True)
class LongestRequest:
    """The most tokens that a request may use, as the journal reserves them before the call."""

    input_tokens: int
    output_tokens: int


# The input of the longest letter in English with its prompt, and the reserved output.
LONGEST = LongestRequest(15_000, 1_000)


def most_expensive(
    book: PriceBook, models: Iterable[tuple[str, str]], reserve: LongestRequest, at: datetime
) -> RequestPrice:
    """The highest price of one request in each currency, at the most tokens. `models`: pairs of a provider (component
    type) and a model's name."""
    amounts, unpriced = dict[str, tuple[Decimal, str]](), []
    for provider, model in sorted(set(models)):
        price = book.find(provider, model, at)
        if isinstance(price, NoPrice):
            unpriced.append(model or "(none)")
            continue
        rates = rates_at(price.contracted, reserve.input_tokens)
        usage = ((Meter.INPUT, reserve.input_tokens), (Meter.OUTPUT, reserve.output_tokens))
        amount = total(amount_of(Decimal(tokens), rates[line], _PER) for line, tokens in usage)
        amounts[price.currency] = max(amounts.get(price.currency, (amount, model)), (amount, model))
    return RequestPrice(
        {currency: amount for currency, (amount, _) in amounts.items()},
        tuple(sorted({model for _, model in amounts.values()})),
        tuple(unpriced),
    )


# After this time, the agent's client gives up a call of an internal system, which also ends the sidecar's retries.
GIVE_UP = timedelta(seconds=90)
# If the sidecar's first pause is shorter, the record cannot distinguish a breaker's refusal of a first request from the
# refusal of a retry.
SHORTEST_CLEAR_PAUSE = timedelta(seconds=1)
# The SDK's retries are switched off in the code, whatever DAPR_API_MAX_RETRIES says.
SDK_REQUESTS = 1


class Over(StrEnum):
    """An exceeded limit."""

    REQUESTS = "requests"
    TIME = "time"
    MONEY = "money"


@dataclass(frozen=True)
class Layers:
    """The factor of each layer; None without a bound. billed: the number of the workflow's requests that may fail after
    the model has probably worked."""

    client: int | None
    sdk: int
    sidecar: int | None
    workflow: int
    billed: int = 0

    @property
    def requests(self) -> int | None:
        """The product of all layers."""
        return self._times(self.workflow)

    @property
    def billed_requests(self) -> int | None:
        """The product of all layers for requests that are probably billed."""
        return self._times(self.billed)

    def _times(self, attempts: int) -> int | None:
        if self.client is None or self.sidecar is None:
            return None
        return self.client * self.sdk * self.sidecar * attempts


@dataclass(frozen=True)
class RequestPrice:
    """The most that one request costs, by currency; empty without a price. models: the models with these prices;
    unpriced: the models without a price."""

    amounts: Mapping[str, Decimal]
    models: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Worst:
    """The worst case of one target. calls: the steps that call it. until_parked: the longest time from a step's first
    failure to parking, of the steps that call it; None without a bound. price: of one request."""

    target: Target
    layers: Layers
    calls: tuple[StepCalls, ...]
    until_parked: timedelta | None
    price: RequestPrice
    notes: tuple[str, ...]

    @property
    def requests(self) -> int | None:
        """The most requests of one step; None without a bound."""
        return self.layers.requests

    @property
    def per_task(self) -> int | None:
        """The most requests of all steps of a task; None without a bound."""
        steps = sum(calls.per_task for calls in self.calls)
        return None if self.requests is None else self.requests * steps

    @property
    def money(self) -> Mapping[str, Decimal]:
        """The cost of a step, by currency, if each answer is lost after the model has worked; empty without a price or
        a bound."""
        billed = self.layers.billed_requests
        if billed is None:
            return {}
        return {currency: amount * billed for currency, amount in self.price.amounts.items()}

    def limit(self, limits: RetryLimits) -> int:
        """The limit of requests of one step."""
        is_model = self.target.kind is TargetKind.MODEL
        return limits.model_requests_per_step if is_model else limits.system_requests_per_step

    def over(self, limits: RetryLimits) -> tuple[Over, ...]:
        """The exceeded limits. A figure without a bound exceeds any limit; money in a currency without a limit none."""
        exceeded = []
        if self.requests is None or self.requests > self.limit(limits):
            exceeded.append(Over.REQUESTS)
        if self.until_parked is None or self.until_parked > timedelta(hours=limits.hours_until_parked):
            exceeded.append(Over.TIME)
        if any(amount > limits.money_per_step.get(currency, amount) for currency, amount in self.money.items()):
            exceeded.append(Over.MONEY)
        return tuple(exceeded)


def worst(
    targets: Sequence[Target], policies: Policies, rules: Rules, billed: int, prices: Mapping[str, RequestPrice]
) -> tuple[Worst, ...]:
    """The worst case of each target; every model counts as the target of all steps that call a model. billed: how many
    of a step's requests to a model may be lost and billed. prices: of one request, by name of the model component."""
    return tuple(
        _worst(target, policies, rules, billed, prices.get(target.name, RequestPrice({}))) for target in targets
    )


def _worst(target: Target, policies: Policies, rules: Rules, billed: int, price: RequestPrice) -> Worst:
    is_model = target.kind is TargetKind.MODEL
    name = MODEL if is_model else target.name
    calls = tuple(calls for calls in calls_by_step(rules) if name in calls.targets)
    guard = policies.of_model(target.name) if is_model else policies.of_app(target.name)
    attempts = rules.retries.attempts
    billed_attempts = min(attempts, billed) if is_model else 0
    layers = Layers(client(target).requests, SDK_REQUESTS, guard.retry.requests, attempts, billed_attempts)
    # An attempt of a step takes as long as all the calls that it makes one after another.
    guards_by_step = [[guard] if is_model else [policies.of_app(name) for name in step.targets] for step in calls]
    durations = [_attempt_duration(target.kind, guards) for guards in guards_by_step or [[guard]]]
    return Worst(target, layers, calls, _time_until_parked(durations, rules), price, _notes(target, guard, calls))


def _time_until_parked(attempts: Sequence[timedelta | None], rules: Rules) -> timedelta | None:
    """The time from the first failure until the task is parked, for the longest of these attempts."""
    bounded = [attempt for attempt in attempts if attempt is not None]
    if len(bounded) < len(attempts):
        return None
    return max(bounded) * rules.retries.attempts + pauses(rules.retries)


def _attempt_duration(kind: TargetKind, guards: Sequence[Guard]) -> timedelta | None:
    """The longest duration of an attempt that calls targets with these policies one after another."""
    durations = [_call_duration(kind, guard) for guard in guards]
    bounded = [duration for duration in durations if duration is not None]
    return sum(bounded, timedelta()) if len(bounded) == len(durations) else None


def _call_duration(kind: TargetKind, guard: Guard) -> timedelta | None:
    """The longest duration of one call with its retries; None without a bound."""
    requests = guard.retry.requests
    if guard.timeout is None or requests is None:
        return GIVE_UP if kind is TargetKind.SYSTEM else None
    duration = guard.retry.longest_duration(requests, guard.timeout)
    return min(duration, GIVE_UP) if kind is TargetKind.SYSTEM else duration


def _notes(target: Target, guard: Guard, calls: Sequence[StepCalls]) -> tuple[str, ...]:
    is_model, retries = target.kind is TargetKind.MODEL, guard.retry.requests != 1
    notes = [
        (not calls, "no step calls it"),
        (client(target).requests != 1, client(target).fact),
        (guard.retry.requests is None, "the sidecar retries without end: set maxRetries"),
        (is_model and retries, "the sidecar also retries refused requests (`matching` has no effect on models)"),
        (
            is_model and retries and guard.retry.first_pause < SHORTEST_CLEAR_PAUSE,
            "its first pause is shorter than 1 s: a first request that the breaker refused looks like a retry",
        ),
        (
            is_model and guard.retry.requests not in (1, 2),
            "daprd's metrics show that a call was retried, not how often: the record counts one retry",
        ),
        (not is_model and retries and not guard.matched, "no `matching`: the sidecar also retries refused requests"),
        (guard.timeout is None, "no time-out"),
        (not guard.breaker, "no circuit breaker: during an outage, each attempt of each task is a request"),
    ]
    return tuple(text for holds, text in notes if holds)


def unknown_names(
    targets: Sequence[Target], policies: Policies, rules: Rules, components: frozenset[str]
) -> Iterator[PolicyFinding]:
    """A finding for each system that steps call and no file defines, and for each unknown target of a policy."""
    systems = {target.name for target in targets if target.kind is TargetKind.SYSTEM}
    for step in calls_by_step(rules):
        for name in step.targets:
            if name != MODEL and name not in systems:
                yield PolicyFinding(f"step {step.step}", f"calls {name}, and no HTTPEndpoint has that name", wrong=True)
    for name in policies.apps:
        if name not in systems:
            yield PolicyFinding(
                f"apps.{name}", "no HTTPEndpoint has that name: the policies have no effect", wrong=False
            )
    for name in policies.components:
        if name not in components:
            yield PolicyFinding(
                f"components.{name}", "no component has that name: the policies have no effect", wrong=False
            )
