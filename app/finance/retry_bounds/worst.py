"""What one failure may come to at worst: requests, time and money of a step, layer by layer. Pure.

The worst is that every request fails, as late as it can, until the task is parked. Executions that are lost with their
worker or sidecar come on top; no policy bounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from app.config.policy import RetryLimits, Rules
from app.finance.retry_bounds import step_calls
from app.finance.retry_bounds.file_findings import Finding
from app.finance.retry_bounds.resiliency import Guard, Policies
from app.finance.retry_bounds.step_calls import MODEL, StepCalls, askings
from app.finance.retry_bounds.targets import Kind, Target, client

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
class Price:
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
    asking: tuple[StepCalls, ...]
    until_parked: timedelta | None
    price: Price
    notes: tuple[str, ...]

    @property
    def requests(self) -> int | None:
        """Requests of one step."""
        return self.layers.requests

    @property
    def per_task(self) -> int | None:
        """Requests of all steps that a task may have."""
        steps_ = sum(each.per_task for each in self.asking)
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
        models = self.target.kind is Kind.MODEL
        return limits.model_requests_per_step if models else limits.system_requests_per_step

    def over(self, limits: RetryLimits) -> tuple[Over, ...]:
        """Which limits are passed; no bound passes any. A currency without a limit of its own has none."""
        found = []
        if self.requests is None or self.requests > self.limit(limits):
            found.append(Over.REQUESTS)
        if self.until_parked is None or self.until_parked > timedelta(hours=limits.hours_until_parked):
            found.append(Over.TIME)
        if any(amount > limits.money_per_step.get(currency, amount) for currency, amount in self.money.items()):
            found.append(Over.MONEY)
        return tuple(found)


def worst(
    targets: Sequence[Target], policies: Policies, rules: Rules, billed: int, prices: Mapping[str, Price]
) -> tuple[Worst, ...]:
    """Each target, a model as if all models' steps asked it. billed: how many of a step's requests to a model may be
    lost and billed. prices: of a request, by the model component's name."""
    return tuple(_worst(target, policies, rules, billed, prices.get(target.name, Price({}))) for target in targets)


def _worst(target: Target, policies: Policies, rules: Rules, billed: int, price: Price) -> Worst:
    model = target.kind is Kind.MODEL
    name = MODEL if model else target.name
    asking = tuple(each for each in askings(rules) if name in each.asks)
    guard = policies.of_model(target.name) if model else policies.of_app(target.name)
    attempts = rules.retries.attempts
    at_most = min(attempts, billed) if model else 0
    layers = Layers(client(target).requests, SDK_REQUESTS, guard.retry.requests, attempts, at_most)
    # A step holds its task for as long as all that it asks one after another hold it.
    together = [[guard] if model else [policies.of_app(each) for each in step.asks] for step in asking] or [[guard]]
    lengths = [_attempt(target.kind, guards) for guards in together]
    return Worst(target, layers, asking, _parked(lengths, rules), price, _notes(target, guard, asking))


def _parked(attempts: Sequence[timedelta | None], rules: Rules) -> timedelta | None:
    """From the first failure until the task is parked, for the longest of these attempts."""
    known = [each for each in attempts if each is not None]
    if len(known) < len(attempts):
        return None
    return max(known) * rules.retries.attempts + step_calls.pauses(rules.retries)


def _attempt(kind: Kind, guards: Sequence[Guard]) -> timedelta | None:
    """How long one attempt may last that asks these one after another."""
    lengths = [_asked(kind, guard) for guard in guards]
    known = [each for each in lengths if each is not None]
    return sum(known, timedelta()) if len(known) == len(lengths) else None


def _asked(kind: Kind, guard: Guard) -> timedelta | None:
    """How long one target may hold an attempt."""
    requests = guard.retry.requests
    if guard.timeout is None or requests is None:
        return GIVE_UP if kind is Kind.SYSTEM else None
    lasts = guard.retry.lasts(requests, guard.timeout)
    return min(lasts, GIVE_UP) if kind is Kind.SYSTEM else lasts


def _notes(target: Target, guard: Guard, asking: Sequence[StepCalls]) -> tuple[str, ...]:
    model, repeats = target.kind is Kind.MODEL, guard.retry.requests != 1
    said = [
        (not asking, "no step asks it"),
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
    return tuple(text for holds, text in said if holds)


def unknown_names(
    targets: Sequence[Target], policies: Policies, rules: Rules, components: frozenset[str]
) -> Iterator[Finding]:
    """Names that stand in one kind of file and are missing in the other."""
    systems = {each.name for each in targets if each.kind is Kind.SYSTEM}
    for step in askings(rules):
        for name in step.asks:
            if name != MODEL and name not in systems:
                yield Finding(f"step {step.step}", f"asks {name}, and no HTTPEndpoint is called so", wrong=True)
    for name in policies.apps:
        if name not in systems:
            yield Finding(f"apps.{name}", "no HTTPEndpoint is called so: it guards nothing that we ask", wrong=False)
    for name in policies.components:
        if name not in components:
            yield Finding(f"components.{name}", "no component is called so: it guards nothing", wrong=False)
