"""The policies that the sidecar reads from Resiliency resources, and what it ignores."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml

from app.finance.retry_bounds.policies import NONE, Policies, Retry, read

GOOD = """
kind: Resiliency
apiVersion: dapr.io/v1alpha1
metadata: {name: x}
scopes: [agent]
spec:
  policies:
    timeouts: {slow: 60s, quick: 250}
    retries: {few: {policy: constant, duration: 1s, maxRetries: 2, matching: {httpStatusCodes: "429,500-599"}}}
    circuitBreakers: {trips: {maxRequests: 1, interval: 60s, timeout: 30s, trip: consecutiveFailures >= 6}}
  targets:
    apps: {orders: {timeout: quick, retry: few, circuitBreaker: trips}}
    components: {llm: {outbound: {timeout: slow, circuitBreaker: trips}}}
"""


def policies(*texts: str, app_id: str = "agent") -> Policies:
    """The policies of these resources."""
    return read([(f"file {number}", yaml.safe_load(text)) for number, text in enumerate(texts)], app_id)


def changed(*changes: tuple[str, str]) -> str:
    """The good resource with replaced texts."""
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def complaints(*changes: tuple[str, str]) -> list[tuple[str, str, bool]]:
    """The findings for the changed resource."""
    return [(finding.where, finding.problem, finding.wrong) for finding in policies(changed(*changes)).findings]


def test_a_good_resource() -> None:
    read_policies = policies(GOOD)
    assert read_policies.findings == []
    model, system = read_policies.of_model("llm"), read_policies.of_app("orders")
    assert (model.timeout, model.retry, model.breaker) == (timedelta(seconds=60), NONE, True)
    assert (system.timeout, system.breaker, system.matched) == (timedelta(milliseconds=250), True, True)
    assert system.retry == Retry(duration=timedelta(seconds=1), max_retries=2)


def test_a_resource_for_another_app_is_skipped() -> None:
    assert policies(GOOD, app_id="other").of_app("orders").timeout is None
    assert policies(GOOD.replace("scopes: [agent]\n", ""), app_id="other").of_app("orders").timeout


def test_what_is_read_later_replaces_what_was_read_before() -> None:
    later = changed(("maxRetries: 2", "maxRetries: 5"))
    assert policies(GOOD, later).of_app("orders").retry.requests == 6
    assert policies(later, GOOD).of_app("orders").retry.requests == 3


def test_a_target_without_an_entry_has_the_default_policies_of_its_kind() -> None:
    text = changed(("few:", "DefaultConversationComponentOutboundRetryPolicy:"), ("slow:", "DefaultTimeoutPolicy:"))
    read_policies = policies(text)
    assert read_policies.of_model("another").retry.requests == 3
    assert read_policies.of_app("another").retry == NONE
    assert read_policies.of_app("another").timeout == timedelta(seconds=60)
    assert read_policies.of_model("another").breaker is False


def test_dapr_ignores_the_case_of_keys() -> None:
    assert policies(changed(("maxRetries", "MAXRETRIES"))).of_app("orders").retry.requests == 3


def test_a_misspelt_number_of_retries_is_named_and_means_no_end() -> None:
    read_policies = policies(changed(("maxRetries: 2", "maxRetires: 2")))
    assert read_policies.of_app("orders").retry.requests is None
    ((where, problem, wrong),) = [(finding.where, finding.problem, finding.wrong) for finding in read_policies.findings]
    assert where == "file 0: retries.few.maxRetires"
    assert problem.startswith("unknown key; the keys are policy, duration")
    assert wrong


@pytest.mark.parametrize(
    ("old", "new", "where", "problem"),
    [
        ("timeouts: {", "timeout: {", "file 0: policies.timeout", "unknown key"),
        ("  targets:", "  target:", "file 0: spec.target", "unknown key"),
        ("duration: 1s", "duration: 1 s", "file 0: retries.few.duration", "'1 s' is not a duration"),
        ("maxRetries: 2", "maxRetries: two", "file 0: retries.few.maxRetries", "'two' is not a whole number"),
        ("policy: constant", "policy: linear", "file 0: retries.few", "policy 'linear' is neither"),
        ("retry: few", "retry: many", "apps.orders.retry", "there is no policy 'many'"),
        ("{timeout: slow, ", "{timeout: late, ", "components.llm.timeout", "there is no policy 'late'"),
        ("outbound: {", "outgoing: {", "file 0: components.llm.outgoing", "unknown key"),
        ("{slow: 60s, quick: 250}", "60s", "file 0: policies.timeouts", "is not a mapping"),
        (
            "{llm: {outbound: {timeout: slow, circuitBreaker: trips}}}",
            "[llm]",
            "file 0: targets.components",
            "is not a map",
        ),
    ],
)
def test_what_daprd_does_not_read_is_named(old: str, new: str, where: str, problem: str) -> None:
    findings = complaints((old, new))
    assert any(place == where and said.startswith(problem) and wrong for place, said, wrong in findings), findings


def test_a_setting_without_effect_is_named_and_not_a_fault() -> None:
    ((where, problem, wrong),) = complaints(("policy: constant", "policy: exponential"))
    assert (where, wrong) == ("file 0: retries.few", False)
    assert "duration has no effect" in problem


def test_a_target_that_names_no_policy_is_named() -> None:
    ((where, problem, wrong),) = complaints(("{timeout: quick, retry: few, circuitBreaker: trips}", "{}"))
    assert (where, wrong) == ("file 0: apps.orders", False)
    assert problem.startswith("names no policy")
