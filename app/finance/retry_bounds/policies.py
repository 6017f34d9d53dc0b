"""What the sidecar does about a failure, as its Resiliency resources say and as Dapr 1.18 reads them. Pure.

Names of policies are shared by all resources; what is read later replaces what was read before. A key that Dapr does
not know is passed over in silence, and what it was meant for keeps its default, which for `maxRetries` is no end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any

# Durations as Dapr writes them: Go's (`1m30s`, `200ms`), or a bare number of milliseconds.

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)"
_WHOLE = re.compile(rf"(?:{_PART})+")


def duration(value: Any) -> timedelta:
    """Raises ValueError for what Dapr could not read."""
    text = str(value).strip()
    if re.fullmatch(r"\d+", text):
        return timedelta(milliseconds=int(text))
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{value!r} is not a duration; write it as in 30s or 1m30s")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text)))


# What is wrong with a resiliency file: daprd says nothing, or one line in its log, and goes on without it.


@dataclass(frozen=True)
class PolicyFinding:
    """`wrong`: what stands there cannot be meant; else it only has no effect, or a doubtful one."""

    where: str
    problem: str
    wrong: bool


# How often, and how long, a retry policy asks again at worst. The numbers are Dapr 1.18's.

# What holds where a policy says nothing.
CONSTANT_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(seconds=60)
NO_LIMIT = -1
# An exponential policy begins here, whatever its `duration` says: Dapr reads that for a constant one only.
FIRST_PAUSE = timedelta(milliseconds=500)
FACTOR = 1.5
JITTER = 0.5  # of each pause, by chance, either way
# An exponential policy stops when its next pause would end later than this. Nothing sets it otherwise.
LONGEST_RETRYING = timedelta(minutes=15)


@dataclass(frozen=True)
class Retry:
    """A retry policy of the sidecar. `max_retries` counts the requests after the first; negative is without end."""

    exponential: bool = False
    duration: timedelta = CONSTANT_PAUSE
    max_interval: timedelta = LONGEST_PAUSE
    max_retries: int = NO_LIMIT

    @property
    def requests(self) -> int | None:
        """Requests of one call, when each fails at once: then most fit into the time. None without a bound."""
        if not self.exponential or self.max_interval <= timedelta():
            return None if self.max_retries < 0 else 1 + self.max_retries
        within = 1 + self._in_time(1 - JITTER)
        return within if self.max_retries < 0 else min(within, 1 + self.max_retries)

    @property
    def first_pause(self) -> timedelta:
        """The shortest that it can be."""
        return FIRST_PAUSE * (1 - JITTER) if self.exponential else self.duration

    def pauses(self, requests: int) -> timedelta:
        """All pauses between so many requests of one call, each as long as chance makes it."""
        if not self.exponential:
            return self.duration * (requests - 1)
        return sum((pause * (1 + JITTER) for pause in islice(self._intervals(), requests - 1)), timedelta())

    def lasts(self, requests: int, timeout: timedelta) -> timedelta:
        """How long a call of so many requests may take, each as long as its time-out."""
        whole = timeout * requests + self.pauses(requests)
        return min(whole, LONGEST_RETRYING + timeout) if self.exponential else whole

    def _in_time(self, chance: float) -> int:
        """How many pauses end in time, each being so much of its interval."""
        count, elapsed = 0, timedelta()
        for interval in self._intervals():
            if interval == self.max_interval:  # it stays so
                return count + (LONGEST_RETRYING - elapsed) // (interval * chance)
            elapsed += interval * chance
            if elapsed > LONGEST_RETRYING:
                break
            count += 1
        return count

    def _intervals(self) -> Iterator[timedelta]:
        interval = FIRST_PAUSE
        while True:
            yield interval
            interval = min(self.max_interval, interval * FACTOR)


NONE = Retry(max_retries=0)


_ROOT = ("apiVersion", "kind", "metadata", "scopes", "spec")
_RETRY = ("policy", "duration", "maxInterval", "maxRetries", "matching")
_MATCHING = ("httpStatusCodes", "gRPCStatusCodes")
_BREAKER = ("maxRequests", "interval", "timeout", "trip")
_NAMES = ("timeout", "retry", "circuitBreaker")
_ENDPOINT = (*_NAMES, "circuitBreakerCacheSize")
_NO_MAPPING = "is not a mapping; daprd leaves the file out"
# What a target without an entry of its own is under, where policies of these names are defined.
APPS = ("App", "")
MODELS = ("ConversationComponentOutbound", "ComponentOutbound", "Component", "")


@dataclass(frozen=True)
class Names:
    """The policies that a target names; empty where it names none."""

    timeout: str = ""
    retry: str = ""
    breaker: str = ""


@dataclass(frozen=True)
class Guard:
    """What stands between a call and its target. timeout: None is none. matched: refusals are not asked again.
    counting: for how long the breaker counts; zero is for ever."""

    timeout: timedelta | None
    retry: Retry
    breaker: bool
    matched: bool
    counting: timedelta = timedelta()


@dataclass
class Policies:
    """All that one sidecar reads."""

    timeouts: dict[str, timedelta] = field(default_factory=dict)
    retries: dict[str, Retry] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)
    breakers: dict[str, timedelta] = field(default_factory=dict)  # for how long each counts; zero is for ever
    apps: dict[str, Names] = field(default_factory=dict)
    components: dict[str, Names] = field(default_factory=dict)
    findings: list[PolicyFinding] = field(default_factory=list)

    def note(self, where: str, problem: str, *, wrong: bool = True) -> None:
        """Adds a finding."""
        self.findings.append(PolicyFinding(where, problem, wrong))

    def of_app(self, name: str) -> Guard:
        """Of an app or HTTPEndpoint."""
        return self._guard(self.apps.get(name) or self._defaults(APPS))

    def of_model(self, name: str) -> Guard:
        """Of a Conversation component."""
        return self._guard(self.components.get(name) or self._defaults(MODELS))

    def _defaults(self, levels: Iterable[str]) -> Names:
        def first(kind: str, defined: Iterable[str]) -> str:
            wanted = [f"Default{level}{kind}Policy" for level in levels]
            return next((name for name in wanted if name in set(defined)), "")

        return Names(
            first("Timeout", self.timeouts), first("Retry", self.retries), first("CircuitBreaker", self.breakers)
        )

    def _guard(self, names: Names) -> Guard:
        return Guard(
            timeout=self.timeouts.get(names.timeout) or None,
            retry=self.retries.get(names.retry, NONE),
            breaker=names.breaker in self.breakers,
            matched=names.retry in self.matched,
            counting=self.breakers.get(names.breaker, timedelta()),
        )


def read(resources: Iterable[tuple[str, Mapping[str, Any]]], app_id: str) -> Policies:
    """Reads resources in the order in which daprd does; each with what it is called. Those scoped to other apps are
    not this sidecar's."""
    policies = Policies()
    for where, resource in resources:
        scopes = resource.get("scopes") or []
        if not scopes or app_id in scopes:
            _add(policies, where, resource)
    policies.findings += [*_undefined(policies), *_never_open(policies)]
    return policies


def _add(policies: Policies, where: str, resource: Mapping[str, Any]) -> None:
    spec = _known(policies, where, resource, _ROOT).get("spec") or {}
    parts = _known(policies, f"{where}: spec", spec, ("policies", "targets"))
    kinds = _known(policies, f"{where}: policies", parts.get("policies"), ("timeouts", "retries", "circuitBreakers"))
    for name, value in _named(policies, f"{where}: policies.timeouts", kinds.get("timeouts")):
        policies.timeouts[name] = _duration(policies, f"{where}: timeouts.{name}", value, timedelta())
    for name, value in _named(policies, f"{where}: policies.retries", kinds.get("retries")):
        _add_retry(policies, f"{where}: retries.{name}", name, value)
    for name, value in _named(policies, f"{where}: policies.circuitBreakers", kinds.get("circuitBreakers")):
        place = f"{where}: circuitBreakers.{name}"
        given = _known(policies, place, value, _BREAKER)
        policies.breakers[name] = _duration(policies, f"{place}.interval", given.get("interval"), timedelta())
    _add_targets(policies, where, parts.get("targets"))


def _add_targets(policies: Policies, where: str, value: Any) -> None:
    targets = _known(policies, f"{where}: targets", value, ("apps", "actors", "components"))
    for name, given in _named(policies, f"{where}: targets.apps", targets.get("apps")):
        policies.apps[name] = _names(policies, f"{where}: apps.{name}", given, _ENDPOINT)
    for name, given in _named(policies, f"{where}: targets.components", targets.get("components")):
        place = f"{where}: components.{name}"
        directions = _known(policies, place, given, ("inbound", "outbound"))
        if "inbound" in directions:
            _names(policies, f"{place}.inbound", directions["inbound"], _NAMES)
        policies.components[name] = _names(policies, f"{place}.outbound", directions.get("outbound"), _NAMES)


def _names(policies: Policies, where: str, value: Any, keys: tuple[str, ...]) -> Names:
    given = _known(policies, where, value, keys)
    names = Names(*(str(given.get(key) or "") for key in _NAMES))
    if names == Names():
        policies.note(where, "names no policy: no time-out, no breaker", wrong=False)
    return names


def _add_retry(policies: Policies, where: str, name: str, value: Any) -> None:
    given = _known(policies, where, value, _RETRY)
    exponential = str(given.get("policy") or "constant").lower()
    if exponential not in ("constant", "exponential"):
        policies.note(where, f"policy {exponential!r} is neither constant nor exponential")
    if exponential == "exponential" and "duration" in given:
        policies.note(where, "duration has no effect on an exponential policy: it begins with 0.5 s", wrong=False)
    policies.retries[name] = Retry(
        exponential=exponential == "exponential",
        duration=_duration(policies, f"{where}.duration", given.get("duration"), Retry.duration),
        max_interval=_duration(policies, f"{where}.maxInterval", given.get("maxInterval"), Retry.max_interval),
        max_retries=_count(policies, f"{where}.maxRetries", given.get("maxRetries")),
    )
    policies.matched.discard(name)
    if _known(policies, f"{where}.matching", given.get("matching"), _MATCHING):
        policies.matched.add(name)


def _duration(policies: Policies, where: str, value: Any, default: timedelta) -> timedelta:
    if value is None:
        return default
    try:
        return duration(value)
    except ValueError as error:
        policies.note(where, f"{error}; daprd leaves out the rest of the resource")
        return default


def _count(policies: Policies, where: str, value: Any) -> int:
    if value is None:
        return Retry.max_retries
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    policies.note(where, f"{value!r} is not a whole number; daprd leaves the file out")
    return Retry.max_retries


def _named(policies: Policies, where: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The entries of a mapping whose keys are names."""
    if value is not None and not isinstance(value, Mapping):
        policies.note(where, _NO_MAPPING)
        return ()
    return [(str(name), policy) for name, policy in (value or {}).items()]


def _known(policies: Policies, where: str, value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The value's known keys, in our spelling: Dapr does not mind capitals. The others are named."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        policies.note(where, _NO_MAPPING)
        return {}
    spelt = {key.lower(): key for key in keys}
    for key in value:
        if str(key).lower() not in spelt:
            policies.note(f"{where}.{key}", f"unknown key; there are {', '.join(keys)}")
    return {spelt[str(key).lower()]: policy for key, policy in value.items() if str(key).lower() in spelt}


def _undefined(policies: Policies) -> Iterator[PolicyFinding]:
    """Names of policies that nobody defined: daprd takes them for none, and a component's breaker ends it."""
    targets = [*((f"apps.{name}", policy) for name, policy in policies.apps.items())]
    targets += [(f"components.{name}", policy) for name, policy in policies.components.items()]
    for where, names in targets:
        for kind, name, defined in (
            ("timeout", names.timeout, set(policies.timeouts)),
            ("retry", names.retry, set(policies.retries)),
            ("circuitBreaker", names.breaker, set(policies.breakers)),
        ):
            if name and name not in defined:
                yield PolicyFinding(f"{where}.{kind}", f"no policy is called {name!r}", wrong=True)


def _never_open(policies: Policies) -> Iterator[PolicyFinding]:
    """Breakers that count for less time than a call may last. A call that begins in one count and fails in the next is
    counted nowhere: a target that never answers in time does not open them."""
    targets = [(f"apps.{name}", policies.of_app(name)) for name in policies.apps]
    targets += [(f"components.{name}", policies.of_model(name)) for name in policies.components]
    for where, guard in targets:
        if guard.timeout is not None and timedelta() < guard.counting < guard.timeout:
            counting, timeout = guard.counting.total_seconds(), guard.timeout.total_seconds()
            yield PolicyFinding(
                f"{where}.circuitBreaker",
                f"its interval ({counting:g} s) is shorter than the time-out ({timeout:g} s): calls that get no "
                f"answer in time are never counted, and it never opens; make it {2 * timeout:g} s",
                wrong=True,
            )
