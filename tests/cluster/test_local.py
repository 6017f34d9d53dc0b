"""`kubectl apply -k k8s/overlays/local`: the samples end as they must, and nobody gets in who must not."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from tests.cluster.harness import CLIENTS, Installed, apply, kubectl, until
from tests.k8s.manifests import OVERLAYS, build
from tests.whole import tickets

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_manifest(local: Installed, overlay: str) -> None:
    """In a namespace where nothing of it is yet: a job of the same name cannot be changed."""
    documents = [copy.deepcopy(each) for each in build(overlay) if each["kind"] != "Namespace"]
    for document in documents:
        document["metadata"]["namespace"] = CLIENTS
        for port in document["spec"]["ports"] if document["kind"] == "Service" else ():
            port.pop("nodePort", None)  # taken by the one that is there
    taken = kubectl("apply", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(documents), namespace="")
    assert taken.count("server dry run") == len(documents)


def test_every_pod_is_ready_with_its_sidecar(local: Installed) -> None:
    (agent,) = local.pods()
    states = [*agent["status"].get("initContainerStatuses", ()), *agent["status"]["containerStatuses"]]
    assert {each["name"]: (each["ready"], each["restartCount"]) for each in states} == {
        "agent": (True, 0),
        "daprd": (True, 0),
    }
    assert local.ready("sandbox") == 1


def test_the_samples_end_as_they_must_and_the_bill_agrees(local: Installed) -> None:
    shown = local.agent("demo", "--systems-url", "http://sandbox:8092")
    assert "204 booked, all exactly as expected" in shown
    found = local.agent_json("cost", "reconcile", "--sandbox-url", "http://sandbox:8091")
    assert found["verdict"].endswith("they agree to the token.")
    assert found["calls"]["compared"] == found["calls"]["agreeing"] == 1209
    assert "no difference" in local.agent("ledger", "check")


def test_pages_and_api_are_reached_through_the_service(local: Installed) -> None:
    ask = "import urllib.request as u; a = u.urlopen(u.Request({url!r}, headers={headers})); print(a.status, a.url)"
    for path, headers, said in (
        ("/pages/tasks", {}, "200 http://agent.refund-agent/signin"),
        ("/openapi.json", {}, "200 "),
        ("/tasks", {"Authorization": f"Bearer {local.token}"}, "200 "),
    ):
        script = ask.format(url=f"http://agent.refund-agent{path}", headers=headers)
        assert said in kubectl("exec", "client", "--", "python", "-c", script, namespace=CLIENTS)


def test_another_provider_is_one_component_and_no_restart(local: Installed) -> None:
    before = [(pod["metadata"]["uid"], restarts(pod)) for pod in local.pods()]
    component = json.loads(kubectl("get", "component", "llm", "-o", "json"))
    for entry in component["spec"]["metadata"]:
        if entry["name"] == "model":
            entry["value"] = "gpt-5-mini"
    apply(json.dumps(component))

    def answered_by() -> set[str]:
        ticket = tickets.question(f"switch-{next(NUMBERS)}", 70_000)
        (task_id,) = local.working([ticket], 10).result()["tasks"]
        until(lambda: local.agent_json("record", task_id)["status"] == "completed", "its record")
        return {call["model"] for call in local.agent_json("record", task_id)["calls"]}

    until(lambda: answered_by() == {"gpt-5-mini"}, "the new model answers", 120)
    assert [(pod["metadata"]["uid"], restarts(pod)) for pod in local.pods()] == before
    found = local.agent_json("cost", "reconcile", "--sandbox-url", "http://sandbox:8091")
    assert (found["unexplained_tokens"], found["difference_tokens"]) == (0, 0)


NUMBERS = iter(range(1000))


def restarts(pod: dict[str, object]) -> int:
    """How often a container of it has begun anew."""
    status = pod["status"]
    assert isinstance(status, dict)
    return sum(
        each["restartCount"] for each in [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    )


def test_another_app_may_neither_invoke_the_agent_nor_steer_its_workflows(local: Installed) -> None:
    apply(STRANGER)
    kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=180s")
    told = kubectl("exec", "stranger", "-c", "app", "--", "python", "-c", TRY)
    found = json.loads(told.splitlines()[-1])
    assert "failed to invoke, id: agent" in found["invoked"], "it listens to nobody: it has no app port"
    assert "access denied by workflow access policy" in found["activity"], found
    refunds = local.agent_json("ledger", "check")["refunds"]
    assert refunds["in_books"] == refunds["in_ledger"], "nothing was posted"


STRANGER = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: elsewhere, namespace: refund-agent}
scopes: [stranger]
spec:
  type: state.in-memory
  version: v1
  metadata: [{name: actorStateStore, value: "true"}]
---
apiVersion: v1
kind: Pod
metadata:
  name: stranger
  namespace: refund-agent
  annotations: {dapr.io/enabled: "true", dapr.io/app-id: stranger}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {name: app, image: "refund-agent:dev", imagePullPolicy: IfNotPresent, command: [sleep, infinity]}
"""
TRY = """
import json, urllib.error, urllib.request
from dapr.ext.workflow import DaprWorkflowClient, WorkflowRuntime

def invoked():
    try:
        request = urllib.request.Request("http://127.0.0.1:3500/v1.0/invoke/agent/method/tasks", b"{}")
        return urllib.request.urlopen(request, timeout=60).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

def thief(context, _):
    return (yield context.call_activity("close_case", input={}, app_id="agent"))

worker = WorkflowRuntime()
worker.register_workflow(thief)
worker.start()
client = DaprWorkflowClient()
instance = client.schedule_new_workflow(thief)
state = client.wait_for_workflow_completion(instance, timeout_in_seconds=60)
print(json.dumps({"invoked": invoked(), "activity": str(state.failure_details.message)}))
worker.shutdown()
"""
