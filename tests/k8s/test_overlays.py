"""Every overlay builds, is what its schemas allow, and keeps the rules of a cluster that is looked after."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from runtime import paths
from sandbox.faults import SYSTEMS
from tests.k8s.make_schemas import FILE
from tests.k8s.manifests import NAMESPACE, OVERLAYS, Document, build, built, containers, named, pods

SCHEMAS = json.loads(FILE.read_text())
overlays = pytest.mark.parametrize("overlay", OVERLAYS)
CLUSTER_WIDE = {"Namespace"}
# What the injector knows in Dapr 1.18 (pkg/injector/annotations): of another one it says nothing.
ANNOTATIONS = {
    "enabled",
    "app-id",
    "config",
    "api-token-secret",
    "enable-native-sidecar",
    "graceful-shutdown-seconds",
    "block-shutdown-duration",
    "disable-builtin-k8s-secret-store",
    "sidecar-seccomp-profile-type",
    "sidecar-cpu-request",
    "sidecar-cpu-limit",
    "sidecar-memory-request",
    "sidecar-memory-limit",
    "env",
    "volume-mounts",
    "volume-mounts-rw",
    "log-as-json",
}


@overlays
def test_everything_is_what_its_schema_allows(overlay: str) -> None:
    for document in build(overlay):
        assert not list(faults(document)), f"{document['kind']} {document['metadata']['name']}"


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "said"),
    [
        ("Deployment", "agent", ("spec", "replica"), 1, "replica"),
        ("Deployment", "agent", ("spec", "template", "spec", "containers", 0, "resources", "limit"), {}, "limit"),
        ("Component", "secrets", ("spec", "metadata"), None, "metadata"),
        ("Configuration", "refund-agent", ("spec", "accessControl", "defaultaction"), "deny", "defaultaction"),
        ("NetworkPolicy", "agent", ("spec", "ingress", 0, "ports", 0, "port"), [], "port"),
    ],
)
def test_a_schema_finds_what_the_server_would_refuse(
    kind: str, name: str, path: tuple[Any, ...], value: object, said: str
) -> None:
    document = copy.deepcopy(named(build("local"), kind, name))
    place = document
    for each in path[:-1]:
        place = place[each]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    assert said in str(list(faults(document)))


def test_what_the_documents_show_is_what_the_server_takes() -> None:
    shown = [
        document
        for file in sorted((paths.ROOT / "docs").glob("*.md"))
        for block in re.findall(r"^```\w*\n(apiVersion.*?)^```", file.read_text(), re.MULTILINE | re.DOTALL)
        for document in yaml.safe_load_all(block)
    ]
    assert shown
    for document in shown:
        assert not list(faults(document)), document["metadata"]["name"]


def faults(document: Document) -> Iterator[str]:
    """What the bundled schemas of Kubernetes and Dapr have against it."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    schema = {"$ref": f"#/definitions/{SCHEMAS['kinds'][kind]}", "definitions": SCHEMAS["definitions"]}
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


@overlays
def test_everything_is_in_the_agents_own_namespace(overlay: str) -> None:
    for document in build(overlay):
        if document["kind"] not in CLUSTER_WIDE:
            assert document["metadata"]["namespace"] == NAMESPACE, document["metadata"]["name"]


@overlays
def test_every_pod_is_as_the_restricted_standard_asks(overlay: str) -> None:
    found = dict(pods(build(overlay)))
    assert "Deployment/agent" in found
    for name, template in found.items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        assert all(volume.keys() - {"name"} <= allowed for volume in spec.get("volumes", ())), name
        for container in containers(template):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not context.get("privileged"), name


@overlays
def test_every_container_has_its_share_and_a_named_image(overlay: str) -> None:
    for name, template in pods(build(overlay)):
        for container in containers(template):
            resources = container["resources"]
            assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}, name
            image = container["image"]
            assert re.search(r"[:@]", image.rpartition("/")[2]), f"{name}: {image} names no version"
            assert not image.endswith(":latest"), name
            assert container["imagePullPolicy"] != "Always", name


@overlays
def test_what_runs_for_long_is_probed_without_its_sidecar(overlay: str) -> None:
    for name, template in pods(build(overlay)):
        if name.partition("/")[0] not in ("Deployment", "StatefulSet"):
            continue
        for container in template["spec"]["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                how = container[probe]
                assert "exec" in how or how["httpGet"]["port"] in ports, f"{name}: {probe}"


@overlays
def test_a_pod_that_is_told_to_go_has_the_time_for_a_model_call(overlay: str) -> None:
    template = dict(pods(build(overlay)))["Deployment/agent"]
    (agent,) = template["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in agent["env"]}
    (policies,) = yaml.safe_load_all((paths.ROOT / "resiliency" / "llm.yaml").read_text())
    model = max(map(seconds, policies["spec"]["policies"]["timeouts"].values()))
    grace = float(environment["REFUND_AGENT_GRACE_SECONDS"])
    pause = agent["lifecycle"]["preStop"]["sleep"]["seconds"]
    sidecar = int(template["metadata"]["annotations"]["dapr.io/graceful-shutdown-seconds"])
    assert grace > model, "the call that runs delivers"
    assert template["spec"]["terminationGracePeriodSeconds"] >= pause + grace + sidecar + 10


def seconds(text: str) -> float:
    """`60s` as a number."""
    assert text.endswith("s")
    return float(text.removesuffix("s"))


@overlays
def test_the_sidecar_is_told_nothing_that_it_does_not_know(overlay: str) -> None:
    template = dict(pods(build(overlay)))["Deployment/agent"]
    given = {name.removeprefix("dapr.io/") for name in template["metadata"]["annotations"] if "dapr.io/" in name}
    assert given <= ANNOTATIONS
    limit = template["metadata"]["annotations"]["dapr.io/sidecar-memory-limit"]
    assert re.fullmatch(r"\d+Mi", limit)
    memory = re.fullmatch(r"GOMEMLIMIT=(\d+)MiB", template["metadata"]["annotations"]["dapr.io/env"])
    assert memory is not None
    assert 0.8 < int(memory[1]) / int(limit.removesuffix("Mi")) < 0.95


@overlays
def test_what_dapr_reads_is_what_a_laptop_has_with_other_addresses(overlay: str) -> None:
    """Not copied: a retry that is changed in resiliency/ is changed everywhere."""
    documents = build(overlay)
    for file in sorted((paths.ROOT / "resiliency").glob("*.yaml")):
        for ours in yaml.safe_load_all(file.read_text()):
            assert named(documents, "Resiliency", ours["metadata"]["name"])["spec"] == ours["spec"]
    for file in sorted((paths.ROOT / "components").glob("*.yaml")):
        for ours in yaml.safe_load_all(file.read_text()):
            theirs = named(documents, ours["kind"], ours["metadata"]["name"])
            assert theirs["scopes"] == ours["scopes"]
            assert "127.0.0.1" not in str(theirs["spec"]), "nobody answers there in a pod"


@pytest.mark.parametrize("folder", ["k8s/overlays/local", "tests/cluster/production"])
def test_with_the_sandbox_every_address_is_its_own(folder: str) -> None:
    documents = built(paths.ROOT / folder)
    for system in SYSTEMS:
        assert named(documents, "HTTPEndpoint", system)["spec"]["baseUrl"] == f"http://sandbox:8092/{system}"
    model = {each["name"]: each["value"] for each in named(documents, "Component", "llm")["spec"]["metadata"]}
    assert model == {"key": "sandbox", "model": "sandbox-small", "endpoint": "http://sandbox:8091/v1"}


@overlays
def test_every_network_policy_is_about_a_pod_that_there_is(overlay: str) -> None:
    documents = build(overlay)
    labels = [template["metadata"]["labels"] for _, template in pods(documents)]
    policies = [each for each in documents if each["kind"] == "NetworkPolicy"]
    closed = named(documents, "NetworkPolicy", "nothing-else")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for selector in selectors(policy["spec"]):
            assert any(selector.items() <= each.items() for each in labels), policy["metadata"]["name"]


def selectors(value: Any) -> list[Document]:
    """The labels of each pod selector below, wherever it stands."""
    if isinstance(value, list):
        return [found for each in value for found in selectors(each)]
    if not isinstance(value, dict):
        return []
    own = [value["podSelector"].get("matchLabels", {})] if "podSelector" in value else []
    return own + [found for name, each in value.items() if name != "podSelector" for found in selectors(each)]


@overlays
def test_the_agent_may_read_the_secrets_that_it_uses_and_no_others(overlay: str) -> None:
    documents = build(overlay)
    (rule,) = named(documents, "Role", "agent-secrets")["rules"]
    assert rule["verbs"] == ["get"]
    keys = {
        entry["secretKeyRef"]["name"]
        for file in (paths.ROOT / "components" / "providers").glob("*.yaml")
        for entry in yaml.safe_load(file.read_text())["spec"]["metadata"]
        if "secretKeyRef" in entry
    }
    assert keys | {"api-tokens"} <= set(rule["resourceNames"])
    scopes = named(documents, "Configuration", "refund-agent")["spec"]["secrets"]["scopes"]
    assert scopes == [{"storeName": "secrets", "defaultAccess": "deny", "allowedSecrets": ["api-tokens"]}]


@overlays
def test_nobody_else_runs_the_agents_workflows_or_invokes_it(overlay: str) -> None:
    documents = build(overlay)
    policy = named(documents, "WorkflowAccessPolicy", "agent-alone")
    assert (policy["scopes"], policy["spec"]) == (["agent"], {"rules": []})
    assert named(documents, "Configuration", "refund-agent")["spec"]["accessControl"]["defaultAction"] == "deny"
