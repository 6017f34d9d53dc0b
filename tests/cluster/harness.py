"""The cluster that the current kubeconfig names, as a test handles it."""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMESPACE = "refund-agent"
CLIENTS = "refund-agent-test"
IMAGE = "refund-agent:dev"
_OURS = "refund-agent/test"
_HERE = Path(__file__).parent

CLIENT_PODS = f"""
apiVersion: v1
kind: Namespace
metadata:
  name: {CLIENTS}
  labels: {{{_OURS}: "true", refund-agent/client: "true"}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {CLIENTS}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - {{name: client, image: "{IMAGE}", imagePullPolicy: IfNotPresent, command: [sleep, infinity]}}
"""
# Where a cluster makes no volumes of its own: a folder of its one node, open to the agent.
VOLUME = f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: refund-agent-test}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {{namespace: {NAMESPACE}, name: state}}
  hostPath: {{path: /var/tmp/refund-agent-test, type: DirectoryOrCreate}}
---
apiVersion: v1
kind: Pod
metadata: {{name: volume, namespace: {CLIENTS}}}
spec:
  restartPolicy: Never
  containers:
    - name: volume
      image: "{IMAGE}"
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "rm -rf /state/* && chmod 0777 /state"]
      securityContext: {{runAsUser: 0}}
      volumeMounts: [{{name: state, mountPath: /state}}]
  volumes:
    - {{name: state, hostPath: {{path: /var/tmp/refund-agent-test, type: DirectoryOrCreate}}}}
"""


class ClusterFault(Exception):
    """kubectl said no; the message is its own."""


def kubectl(*arguments: str, given: str | None = None, namespace: str = NAMESPACE, seconds: float = 900) -> str:
    """Runs kubectl and returns what it printed. Raises ClusterFault."""
    command = ["kubectl", *(["--namespace", namespace] if namespace else []), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise ClusterFault(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}{done.stdout.strip()[-2000:]}")
    return done.stdout


def apply(documents: str) -> None:
    """Applies documents; once more when a namespace is so new that it has no service account yet."""
    until(lambda: _applied(documents), "the documents to be taken", 30)


def _applied(documents: str) -> bool:
    try:
        kubectl("apply", "-f", "-", given=documents, namespace="")
    except ClusterFault as fault:
        if "serviceaccount" not in str(fault):
            raise
        return False
    return True


def until(condition: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """Polls until the condition holds, and returns what it gave. Raises AssertionError."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
    return found


class Installed:
    """An overlay that is applied. `token` is an administrator's, for all tenants."""

    def __init__(self, token: str) -> None:
        self.token = token

    def agent(self, *words: str) -> str:
        """Runs one of the agent's own commands beside it."""
        name = f"REFUND_AGENT_TOKEN={self.token}"
        return kubectl("exec", "deploy/agent", "-c", "agent", "--", "env", name, "python", "-m", "app", *words)

    def agent_json(self, *words: str) -> Any:
        """The same, as a program is told."""
        return json.loads(self.agent(*words, "--json"))

    def billed_rows(self) -> int:
        """How many requests stand on the sandbox's bill."""
        ask = "import json, urllib.request as u; print(len(json.load(u.urlopen('http://sandbox:8091/bill'))['rows']))"
        return int(kubectl("exec", "deploy/agent", "-c", "agent", "--", "python", "-c", ask))

    def pods(self, name: str = "agent", *, ending: bool = False) -> list[dict[str, Any]]:
        """The pods of that name; those on their way out, which may still be at work, only when they are asked for."""
        found = json.loads(kubectl("get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o", "json"))["items"]
        return [pod for pod in found if ending or "deletionTimestamp" not in pod["metadata"]]

    def ready(self, name: str = "agent") -> int:
        """How many of them are ready, sidecars included."""
        return sum(
            any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
            for pod in self.pods(name)
        )

    def scale(self, count: int) -> None:
        """So many agents, and no more of those before."""
        kubectl("scale", "deploy/agent", f"--replicas={count}")
        kubectl("rollout", "status", "deploy/agent", "--timeout=300s")
        until(lambda: len(self.pods(ending=True)) == count == self.ready(), f"{count} agents, and no other")

    def working(self, tickets: Sequence[dict[str, Any]], rate: float) -> Client:
        """Begins to send tickets, so many a second, from a pod beside the agent."""
        return Client(self.token, tickets, rate)


class Client:
    """Tickets on their way. `result` waits for the end of their tasks."""

    def __init__(self, token: str, tickets: Sequence[dict[str, Any]], rate: float) -> None:
        asked = {"url": f"http://agent.{NAMESPACE}", "token": token, "tickets": list(tickets), "rate": rate}
        command = ["kubectl", "-n", CLIENTS, "exec", "-i", "client", "--", "python", "-c"]
        self._process = subprocess.Popen(
            [*command, (_HERE / "client.py").read_text()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked))
        self._process.stdin.close()
        self._process.stdin = None

    def result(self, seconds: float = 900) -> dict[str, Any]:
        """What became of them: `taken` and `seconds` from the first ticket on, `tasks` by id."""
        out, _ = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, "the client failed"
        found: dict[str, Any] = json.loads(out)
        return found


@contextmanager
def installed(overlay: Path, *, tokens: bool) -> Iterator[Installed]:
    """Applies an overlay to a namespace that it makes, and takes all of it away again. `tokens`: the overlay expects
    the tokens of people from a secret. Raises ClusterFault when the namespace is somebody's."""
    _clear()
    token = secrets.token_hex(24)
    record = {"name": "tests", "sha256": hashlib.sha256(token.encode()).hexdigest(), "roles": ["admin"], "tenants": "*"}
    apply(CLIENT_PODS)
    if not kubectl("get", "storageclass", "-o", "name").strip():
        apply(VOLUME)
        phase = ("get", "pod", "volume", "-o", "jsonpath={.status.phase}")
        until(lambda: kubectl(*phase, namespace=CLIENTS) == "Succeeded", "a volume")
    kubectl("create", "namespace", NAMESPACE)
    kubectl("label", "namespace", NAMESPACE, f"{_OURS}=true")
    if tokens:
        kubectl(
            "create", "secret", "generic", "api-tokens", f"--from-literal=api-tokens={json.dumps({'tokens': [record]})}"
        )
    kubectl("apply", "-k", str(overlay), namespace="")
    try:
        for name in ("sandbox", "agent"):
            kubectl("rollout", "status", f"deploy/{name}", "--timeout=300s")
        kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s", namespace=CLIENTS)
        if not tokens:
            token = kubectl("exec", "deploy/agent", "-c", "agent", "--", "cat", "/state/agent/token").strip()
        yield Installed(token)
    finally:
        _clear()


def _clear() -> None:
    for name in (NAMESPACE, CLIENTS):
        found = json.loads(kubectl("get", "namespace", name, "--ignore-not-found", "-o", "json") or "null")
        if found is None:
            continue
        if _OURS not in found["metadata"].get("labels", {}):
            raise ClusterFault(f"namespace {name} is there and not of these tests; use another cluster, or delete it")
        kubectl("delete", "namespace", name, "--timeout=300s")
    kubectl("delete", "persistentvolume", "refund-agent-test", "--ignore-not-found")
