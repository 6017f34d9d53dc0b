"""The sidecar's retry, time-out and breaker policies, as Dapr 1.18 reads them from Resiliency resources.

All resources share one set of policy names; a later policy replaces an earlier one of the same name. Dapr silently
ignores unknown keys: after a misspelt `maxRetries`, the default applies, which is to retry without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)"
_WHOLE = re.compile(rf"(?:{_PART})+")


def duration(value: Any) -> timedelta:
    """A duration as Dapr reads it: Go's format (`1m30s`, `200ms`), or a number of milliseconds. Raises ValueError."""
    text = str(value).strip()
    if re.fullmatch(r"\d+", text):
        return timedelta(milliseconds=int(text))
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{value!r} is not a duration; write it as in 30s or 1m30s")
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text)))


@dataclass(frozen=True)
class PolicyFinding:
    """A finding in a Resiliency file, which daprd ignores, at most logging one line. `wrong`: a fault; otherwise a
    setting without effect, or with a doubtful one."""

    where: str
    problem: str
    wrong: bool


# Dapr 1.18's defaults and constants of retry policies.
CONSTANT_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(seconds=60)
NO_LIMIT = -1
# The first pause of an exponential policy: Dapr reads `duration` for constant policies only.
FIRST_PAUSE = timedelta(milliseconds=500)
FACTOR = 1.5
JITTER = 0.5  # the share of each pause by which it varies at random, up or down
# An exponential policy stops if its next pause would end later than this. It cannot be configured.
LONGEST_RETRYING = timedelta(minutes=15)


@dataclass(frozen=True)
class Retry:
    """A retry policy of the sidecar. `max_retries`: requests after the first; negative means without end."""

    exponential: bool = False
    duration: timedelta = CONSTANT_PAUSE
    max_interval: timedelta = LONGEST_PAUSE
    max_retries: int = NO_LIMIT

    @property
    def requests(self) -> int | None:
        """The most requests of one call: those that fit if each fails at once. None without a bound."""
        if not self.exponential or self.max_interval <= timedelta():
            return None if self.max_retries < 0 else 1 + self.max_retries
        fitting = 1 + self._pauses_within_limit(1 - JITTER)
        return fitting if self.max_retries < 0 else min(fitting, 1 + self.max_retries)

    @property
    def first_pause(self) -> timedelta:
        """The shortest possible first pause."""
        return FIRST_PAUSE * (1 - JITTER) if self.exponential else self.duration

    def pauses(self, requests: int) -> timedelta:
        """The sum of all pauses between the requests of one call, each at its longest."""
        if not self.exponential:
            return self.duration * (requests - 1)
        return sum((pause * (1 + JITTER) for pause in islice(self._intervals(), requests - 1)), timedelta())

    def longest_duration(self, requests: int, timeout: timedelta) -> timedelta:
        """The longest duration of a call with that many requests, if each takes its whole time-out."""
        duration = timeout * requests + self.pauses(requests)
        return min(duration, LONGEST_RETRYING + timeout) if self.exponential else duration

    def _pauses_within_limit(self, factor: float) -> int:
        """The number of pauses that end within `LONGEST_RETRYING`, if each is its interval times `factor`."""
        count, elapsed = 0, timedelta()
        for interval in self._intervals():
            if interval == self.max_interval:  # all further intervals are equal
                return count + (LONGEST_RETRYING - elapsed) // (interval * factor)
            elapsed += interval * factor
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
_KINDS = ("timeouts", "retries", "circuitBreakers")
_RETRY = ("policy", "duration", "maxInterval", "maxRetries", "matching")
_MATCHING = ("httpStatusCodes", "gRPCStatusCodes")
_BREAKER = ("maxRequests", "interval", "timeout", "trip")
_NAMES = ("timeout", "retry", "circuitBreaker")
_ENDPOINT = (*_NAMES, "circuitBreakerCacheSize")
_NO_MAPPING = "is not a mapping; daprd ignores the file"
# Levels of Dapr's default policies for a target without an entry, in `Default<level>TimeoutPolicy` and so on.
APP_LEVELS = ("App", "")
MODEL_LEVELS = ("ConversationComponentOutbound", "ComponentOutbound", "Component", "")


@dataclass(frozen=True)
class Names:
    """The names of a target's policies; empty if it has none of that kind."""

    timeout: str = ""
    retry: str = ""
    breaker: str = ""


@dataclass(frozen=True)
class Guard:
    """The policies that apply to calls of one target. timeout: None without one. matched: whether `matching` limits
    the failures that are retried. counting_interval: of the breaker; zero means that it never resets its counts."""

    timeout: timedelta | None
    retry: Retry
    breaker: bool
    matched: bool
    counting_interval: timedelta = timedelta()


@dataclass
class Policies:
    """All policies and targets that one sidecar reads. `matched`: names of retry policies with `matching`; `breakers`:
    counting intervals."""

    timeouts: dict[str, timedelta] = field(default_factory=dict)
    retries: dict[str, Retry] = field(default_factory=dict)
    matched: set[str] = field(default_factory=set)
    breakers: dict[str, timedelta] = field(default_factory=dict)
    apps: dict[str, Names] = field(default_factory=dict)
    components: dict[str, Names] = field(default_factory=dict)
    findings: list[PolicyFinding] = field(default_factory=list)

    def note(self, where: str, problem: str, *, wrong: bool = True) -> None:
        """Adds a finding."""
        self.findings.append(PolicyFinding(where, problem, wrong))

    def of_app(self, name: str) -> Guard:
        """The policies of an app or HTTPEndpoint."""
        return self._guard(self.apps.get(name) or self._defaults(APP_LEVELS))

    def of_model(self, name: str) -> Guard:
        """The policies of a Conversation component."""
        return self._guard(self.components.get(name) or self._defaults(MODEL_LEVELS))

    def _defaults(self, levels: Iterable[str]) -> Names:
        def first(kind: str, defined: Iterable[str]) -> str:
            candidates = [f"Default{level}{kind}Policy" for level in levels]
            return next((name for name in candidates if name in set(defined)), "")

        return Names(
            first("Timeout", self.timeouts), first("Retry", self.retries), first("CircuitBreaker", self.breakers)
        )

    def _guard(self, names: Names) -> Guard:
        return Guard(
            timeout=self.timeouts.get(names.timeout) or None,
            retry=self.retries.get(names.retry, NONE),
            breaker=names.breaker in self.breakers,
            matched=names.retry in self.matched,
            counting_interval=self.breakers.get(names.breaker, timedelta()),
        )


def read(resources: Iterable[tuple[str, Mapping[str, Any]]], app_id: str) -> Policies:
    """The policies in the resources, each a (place, resource), in the order in which daprd reads them. Resources that
    are scoped to other apps are skipped."""
    policies = Policies()
    for where, resource in resources:
        scopes = resource.get("scopes") or []
        if not scopes or app_id in scopes:
            _add(policies, where, resource)
    policies.findings += [*_undefined_policies(policies), *_breakers_that_never_open(policies)]
    return policies


def _add(policies: Policies, where: str, resource: Mapping[str, Any]) -> None:
    spec = _known_keys(policies, where, resource, _ROOT).get("spec") or {}
    parts = _known_keys(policies, f"{where}: spec", spec, ("policies", "targets"))
    kinds = _known_keys(
        policies, f"{where}: policies", parts.get("policies"), ("timeouts", "retries", "circuitBreakers")
    )
    for name, value in _entries(policies, f"{where}: policies.timeouts", kinds.get("timeouts")):
        policies.timeouts[name] = _duration(policies, f"{where}: timeouts.{name}", value, timedelta())
    for name, value in _entries(policies, f"{where}: policies.retries", kinds.get("retries")):
        _add_retry(policies, f"{where}: retries.{name}", name, value)
    for name, value in _entries(policies, f"{where}: policies.circuitBreakers", kinds.get("circuitBreakers")):
        place = f"{where}: circuitBreakers.{name}"
        given = _known_keys(policies, place, value, _BREAKER)
        policies.breakers[name] = _duration(policies, f"{place}.interval", given.get("interval"), timedelta())
    _add_targets(policies, where, parts.get("targets"))


def _add_targets(policies: Policies, where: str, value: Any) -> None:
    targets = _known_keys(policies, f"{where}: targets", value, ("apps", "actors", "components"))
    for name, given in _entries(policies, f"{where}: targets.apps", targets.get("apps")):
        policies.apps[name] = _names(policies, f"{where}: apps.{name}", given, _ENDPOINT)
    for name, given in _entries(policies, f"{where}: targets.components", targets.get("components")):
        place = f"{where}: components.{name}"
        directions = _known_keys(policies, place, given, ("inbound", "outbound"))
        if "inbound" in directions:
            _names(policies, f"{place}.inbound", directions["inbound"], _NAMES)
        policies.components[name] = _names(policies, f"{place}.outbound", directions.get("outbound"), _NAMES)


def _names(policies: Policies, where: str, value: Any, keys: tuple[str, ...]) -> Names:
    given = _known_keys(policies, where, value, keys)
    names = Names(*(str(given.get(key) or "") for key in _NAMES))
    if names == Names():
        policies.note(where, "names no policy: there is no time-out and no breaker", wrong=False)
    return names


def _add_retry(policies: Policies, where: str, name: str, value: Any) -> None:
    given = _known_keys(policies, where, value, _RETRY)
    kind = str(given.get("policy") or "constant").lower()
    if kind not in ("constant", "exponential"):
        policies.note(where, f"policy {kind!r} is neither constant nor exponential")
    if kind == "exponential" and "duration" in given:
        policies.note(where, "duration has no effect on an exponential policy: it begins with 0.5 s", wrong=False)
    policies.retries[name] = Retry(
        exponential=kind == "exponential",
        duration=_duration(policies, f"{where}.duration", given.get("duration"), Retry.duration),
        max_interval=_duration(policies, f"{where}.maxInterval", given.get("maxInterval"), Retry.max_interval),
        max_retries=_count(policies, f"{where}.maxRetries", given.get("maxRetries")),
    )
    policies.matched.discard(name)
    if _known_keys(policies, f"{where}.matching", given.get("matching"), _MATCHING):
        policies.matched.add(name)


def _duration(policies: Policies, where: str, value: Any, default: timedelta) -> timedelta:
    if value is None:
        return default
    try:
        return duration(value)
    except ValueError as error:
        policies.note(where, f"{error}; daprd ignores the rest of the resource")
        return default


def _count(policies: Policies, where: str, value: Any) -> int:
    if value is None:
        return Retry.max_retries
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    policies.note(where, f"{value!r} is not a whole number; daprd ignores the file")
    return Retry.max_retries


def _entries(policies: Policies, where: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The entries of a mapping from names; none, with a finding, if it is not a mapping."""
    if value is not None and not isinstance(value, Mapping):
        policies.note(where, _NO_MAPPING)
        return ()
    return [(str(name), policy) for name, policy in (value or {}).items()]


def _known_keys(policies: Policies, where: str, value: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The mapping's known keys in our spelling, because Dapr ignores case; each unknown key becomes a finding."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        policies.note(where, _NO_MAPPING)
        return {}
    spelling = {key.lower(): key for key in keys}
    for key in value:
        if str(key).lower() not in spelling:
            policies.note(f"{where}.{key}", f"unknown key; the keys are {', '.join(keys)}")
    return {spelling[str(key).lower()]: part for key, part in value.items() if str(key).lower() in spelling}


def _undefined_policies(policies: Policies) -> Iterator[PolicyFinding]:
    """Names of undefined policies, which daprd treats as none; it ends at an undefined breaker of a component."""
    targets = [(f"apps.{name}", names) for name, names in policies.apps.items()]
    targets += [(f"components.{name}", names) for name, names in policies.components.items()]
    for where, names in targets:
        for kind, name, defined in (
            ("timeout", names.timeout, set(policies.timeouts)),
            ("retry", names.retry, set(policies.retries)),
            ("circuitBreaker", names.breaker, set(policies.breakers)),
        ):
            if name and name not in defined:
                yield PolicyFinding(f"{where}.{kind}", f"there is no policy {name!r}", wrong=True)


def _breakers_that_never_open(policies: Policies) -> Iterator[PolicyFinding]:
    """Breakers whose counting interval is shorter than the time-out. A call that starts in one interval and fails in
    the next is not counted, so a target that never answers in time does not open the breaker."""
    targets = [(f"apps.{name}", policies.of_app(name)) for name in policies.apps]
    targets += [(f"components.{name}", policies.of_model(name)) for name in policies.components]
    for where, guard in targets:
        if guard.timeout is not None and timedelta() < guard.counting_interval < guard.timeout:
            interval, timeout = guard.counting_interval.total_seconds(), guard.timeout.total_seconds()
            yield PolicyFinding(
                f"{where}.circuitBreaker",
                f"its interval ({interval:g} s) is shorter than the time-out ({timeout:g} s): calls that get no "
                f"answer in time are never counted, and it never opens; make it {2 * timeout:g} s",
                wrong=True,
            )
