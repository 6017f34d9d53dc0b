"""The production overlay with PostgreSQL: kills, rolling updates and an absent control plane lose nothing."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from tests.cluster.harness import IMAGE, Installed, kubectl, until
from tests.whole import tickets

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

CALLS = 3  # of a model, for one refund
RATE = 2  # refunds a second: what a node of two cores bears while agents begin and end beside it
_numbers = itertools.count(40_000)
_names = itertools.count()


def refunds(count: int) -> list[dict[str, Any]]:
    """So many clear refunds of orders that no test has had."""
    name = f"load-{next(_names)}"
    return [tickets.refund(f"{name}-{number}", next(_numbers)) for number in range(count)]


def billed(agent: Installed) -> dict[str, Any]:
    """What the provider's bill and our record say of each other."""
    found: dict[str, Any] = agent.agent_json("cost", "reconcile", "--sandbox-url", "http://sandbox:8091")
    return found


def hold(agent: Installed, sent: Sequence[dict[str, Any]], rate: float, disturb: Callable[[], None]) -> dict[str, Any]:
    """Works the tickets while something is disturbed; nothing may be lost or doubled, and all must be explained.
    Returns the client's report with `calls`, the requests that the provider saw for them."""
    before = agent.billed_rows()
    client = agent.working(sent, rate)
    disturb()
    report = client.result()
    outcomes = Counter((each["status"], each["outcome"]) for each in report["tasks"].values())
    assert outcomes == {("completed", "refunded"): len(sent)}, why_not(agent, report["tasks"])
    assert len({each["refund_id"] for each in report["tasks"].values()}) == len(sent)
    until(lambda: agent_is_quiet(agent), "everything is recorded")
    after = billed(agent)
    assert after["unexplained_tokens"] == 0
    checked = agent.agent_json("ledger", "check")
    assert checked["differences"] == []
    assert checked["refunds"]["in_books"] == checked["refunds"]["in_ledger"]
    return report | {"calls": after["bill"]["rows"] - before, "causes": set(after["causes"])}


def why_not(agent: Installed, tasks: Mapping[str, Any]) -> str:
    """What the agent says of the tasks that did not end with a refund, and what its log says of them."""
    others = [task_id for task_id, each in tasks.items() if each["outcome"] != "refunded"]
    logs = [kubectl("logs", pod["metadata"]["name"], "-c", "agent").splitlines() for pod in agent.pods()]
    lines = [line for log in logs for line in log if any(task_id in line for task_id in others)]
    errors = [f"{task_id}: {agent.agent_json('task', 'show', task_id)['error']}" for task_id in others]
    return "\n".join([*errors, *lines])


def agent_is_quiet(agent: Installed) -> bool:
    """Whether the record has everything that the histories have."""
    return not agent.agent_json("ledger", "check")["differences"]


def test_the_tables_were_made_by_their_owner_and_two_agents_use_them(production: Installed) -> None:
    job = json.loads(kubectl("get", "job", "migrate-ledger", "-o", "json"))
    assert job["status"]["succeeded"] == 1
    assert production.ready() == 2
    report = hold(production, refunds(20), 10, lambda: None)
    assert report["calls"] == CALLS * 20


@pytest.mark.parametrize("count", [1, 2, 3])
def test_agents_share_the_work(production: Installed, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it arrives at once, so the cores are what bounds it: the figures say what another agent adds."""
    production.scale(count)
    try:
        report = hold(production, refunds(200), 1_000, lambda: None)
        worked = Counter(each["worker"] for each in executions(production, list(report["tasks"])[::8]))
        with capsys.disabled():
            shares = ", ".join(f"{100 * each / sum(worked.values()):.0f} %" for each in sorted(worked.values()))
            print(f"\n{count} agents: 200 refunds in {report['seconds']:.1f} s; shares of the steps: {shares}")
        assert report["calls"] == CALLS * 200
        assert len(worked) == count
        assert min(worked.values()) > 0.4 * sum(worked.values()) / count, worked
    finally:
        production.scale(2)


def executions(agent: Installed, task_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The executions of these tasks' steps."""
    records = [agent.agent_json("record", task_id) for task_id in task_ids]
    steps = [step for record in records for step in record["steps"]]
    return [one for step in steps for attempt in step["attempts"] for one in attempt["executions"]]


def test_an_agent_that_is_killed_in_mid_task_loses_nothing(production: Installed) -> None:
    def kill() -> None:
        for _ in range(3):
            time.sleep(8)  # in the middle of the traffic: there is nothing to wait for
            pod = production.pods()[0]["metadata"]["name"]
            kubectl("delete", "pod", pod, "--force", "--grace-period=0")
            until(lambda: production.ready() == 2, "another agent")

    report = hold(production, refunds(100), RATE, kill)
    assert report["causes"] <= {"interrupted_call", "failed_call"}, "only what was in flight is paid again"
    assert report["calls"] - CALLS * 100 <= 3 * 20, "and that is what some seconds bring"


def test_a_rolling_update_under_load_repeats_no_model_call(production: Installed) -> None:
    def roll() -> None:
        time.sleep(5)
        kubectl("rollout", "restart", "deploy/agent")
        kubectl("rollout", "status", "deploy/agent", "--timeout=400s")

    report = hold(production, refunds(100), RATE, roll)
    assert report["calls"] == CALLS * 100


def test_a_placement_that_begins_anew_loses_nothing(production: Installed) -> None:
    def restart() -> None:
        time.sleep(5)
        kubectl(
            "delete", "pod", "-l", "app=dapr-placement-server", "--force", "--grace-period=0", namespace="dapr-system"
        )

    report = hold(production, refunds(100), RATE, restart)
    assert report["calls"] == CALLS * 100


def test_schedulers_that_begin_anew_one_after_another_lose_nothing(production: Installed) -> None:
    """The process ends and not the pod: what a scheduler keeps may last no longer than its pod (in memory, or with a
    volume of the node); without its data there is nothing left to hand out."""

    def restart() -> None:
        time.sleep(5)
        for pod in pods_of("dapr-scheduler-server"):
            before = restarts(pod)
            end = "import os; os.kill(1, 15)"
            name, options = pod["metadata"]["name"], ("--quiet", "--profile=general", f"--image={IMAGE}")
            target = "--target=dapr-scheduler-server"
            kubectl("debug", name, *options, target, "--", "python", "-c", end, namespace="dapr-system")
            until(partial(_is_back, name, before), f"{name} begins anew")

    report = hold(production, refunds(100), RATE, restart)
    assert report["calls"] == CALLS * 100


def pods_of(app: str) -> list[dict[str, Any]]:
    """The pods of a part of Dapr's control plane."""
    found = json.loads(kubectl("get", "pods", "-l", f"app={app}", "-o", "json", namespace="dapr-system"))
    return list(found["items"])


def restarts(pod: dict[str, Any]) -> int:
    """How often its container began anew."""
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def _is_back(name: str, before: int) -> bool:
    (pod,) = (each for each in pods_of("dapr-scheduler-server") if each["metadata"]["name"] == name)
    return restarts(pod) > before and bool(pod["status"]["containerStatuses"][0]["ready"])
