"""Dapr's control plane on this machine: sentry (certificates), placement, scheduler; mTLS on, loopback only.

Every port is on 127.0.0.1 but each program's health port: Dapr 1.18 ignores the address given for it.
Sentry makes its certificate authority under `state_dir/keys` at the first start and keeps it: histories
signed under it can be verified as long as it is there. The scheduler keeps its jobs in `state_dir/scheduler`.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from runtime import processes, state
from runtime.errors import UserError
from runtime.loopback import HOST, answers, free_ports, past_proxies
from runtime.processes import Child

NAMES = ("sentry", "placement", "scheduler")
NAMESPACE = "default"
# Go's collector runs when the heap has doubled; Dapr's heaps are small and churn, so it runs all the time. Letting them
# grow to five times costs some 100 MB and takes a quarter off the CPU time of daprd and scheduler.
GO_MEMORY = {"GOGC": "400"}
TRUST_DOMAIN = "localhost"
_SCHEDULER_ID = "dapr-scheduler-server-0"
_SENTRY_CONFIGURATION = """\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata:
  name: sentry
spec:
  mtls:
    enabled: true
"""


@dataclass(frozen=True)
class ControlPlanePorts:
    """Where daprd finds the control plane. The defaults are those that `dapr run` expects."""

    sentry: int = 50001
    placement: int = 50005
    scheduler: int = 50006

    @classmethod
    def free(cls) -> ControlPlanePorts:
        """Three ports that nobody uses now."""
        return cls(*free_ports(3))


class ControlPlane:
    """The three programs. `start` and `stop` treat all; the `..._one` methods treat one, for crash tests."""

    def __init__(
        self, bin_dir: Path, state_dir: Path, ports: ControlPlanePorts, *, log_dir: Path | None = None
    ) -> None:
        self.bin_dir = bin_dir
        self.state_dir = state_dir
        self.ports = ports
        self.log_dir = log_dir or state_dir / "logs"
        self.children: dict[str, Child] = {}
        self._health: dict[str, int] = {}
        self._metrics: dict[str, int] = {}

    @property
    def trust_anchors(self) -> Path:
        """The certificate authority's certificate (PEM)."""
        return self.state_dir / "keys" / "ca.crt"

    def metrics_url(self, name: str) -> str:
        """The Prometheus metrics of placement or scheduler, once it was started; sentry has none."""
        return f"http://{HOST}:{self._metrics[name]}"

    def start(self) -> None:
        """Starts all three and waits until each is healthy; stops what was started when one fails."""
        try:
            for name in NAMES:
                self.spawn_one(name)
                if name == "sentry":
                    self.wait_one(name)  # the others need its authority's certificate to start at all
            for name in NAMES:
                self.wait_one(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops what runs, in reverse order."""
        processes.stop_all(self.children.values())
        self.children.clear()

    def start_one(self, name: str) -> None:
        """Starts one of `NAMES` and waits until it is healthy."""
        self.spawn_one(name)
        self.wait_one(name)

    def kill_one(self, name: str) -> None:
        """SIGKILLs one of `NAMES`."""
        processes.kill(self.children.pop(name))

    def spawn_one(self, name: str) -> None:
        """Starts one of `NAMES` without waiting for it."""
        if name in self.children:
            raise UserError(f"{name} runs already (pid {self.children[name].pid}).")
        self._prepare(name)
        self._health[name], self._metrics[name] = free_ports(2)
        commands = {"sentry": self._sentry, "placement": self._placement, "scheduler": self._scheduler}
        command = [str(self.bin_dir / name), *commands[name](), *_side_ports(self._health[name], self._metrics[name])]
        self.children[name] = processes.start(
            name, command, log=self.log_dir / f"{name}.log", environment={"NAMESPACE": NAMESPACE, **GO_MEMORY}
        )

    def wait_one(self, name: str, *, deadline_seconds: float = 30.0) -> None:
        """Waits until one of `NAMES` is healthy. Raises `ChildDied` or `NotReady`."""
        health = self._health[name]
        ready = lambda: answers(health, "/healthz") and self.trust_anchors.exists()  # noqa: E731
        processes.wait_until(ready, what=name, deadline_seconds=deadline_seconds, children=[self.children[name]])
        if name == "sentry":
            self._protect_keys()

    def check(self) -> None:
        """Raises `ChildDied` when one that was started has ended."""
        for child in list(self.children.values()):
            child.check()

    def environment(self) -> dict[str, str]:
        """What daprd (or the shell of `dapr run`) needs to join this control plane, and to answer its app alone."""
        return {
            "DAPR_API_TOKEN": state.api_token(self.state_dir),
            "DAPR_TRUST_ANCHORS": self.trust_anchors.read_text(),
            "NAMESPACE": NAMESPACE,
            "DAPR_HOST_IP": HOST,
            **GO_MEMORY,
            **past_proxies(),
        }

    def __enter__(self) -> ControlPlane:
        """Starts all three."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops all three."""
        self.stop()

    def _prepare(self, name: str) -> None:
        # The scheduler writes its short-lived certificate anew at each start, beside the old ones.
        if name == "scheduler":
            shutil.rmtree(self.state_dir / "identity", ignore_errors=True)
        keys, identity = self.state_dir / "keys", self.state_dir / "identity"
        for folder in (keys, identity, self.state_dir / "scheduler", self.log_dir):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (keys, identity):
            folder.chmod(0o700)
        (keys / "sentry.yaml").write_text(_SENTRY_CONFIGURATION)

    def _protect_keys(self) -> None:
        for path in (self.state_dir / "keys").iterdir():
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o600)

    def _sentry(self) -> list[str]:
        keys = self.state_dir / "keys"
        return [
            *("--mode", "standalone", "--listen-address", HOST, "--port", str(self.ports.sentry)),
            *("--issuer-credentials", str(keys), "--config", str(keys / "sentry.yaml")),
            # Sentry's metrics server ignores its listen address and would be open to the network.
            *("--trust-domain", TRUST_DOMAIN, "--enable-metrics=false"),
        ]

    def _placement(self) -> list[str]:
        (raft,) = free_ports(1)
        return [
            *self._secured(),
            *("--listen-address", HOST, "--port", str(self.ports.placement)),
            *("--initial-cluster", f"dapr-placement-0={HOST}:{raft}"),
        ]

    def _scheduler(self) -> list[str]:
        etcd_client, etcd_peer = free_ports(2)
        return [
            *self._secured(),
            *("--listen-address", HOST, "--port", str(self.ports.scheduler)),
            *("--override-broadcast-host-port", f"{HOST}:{self.ports.scheduler}"),
            *("--id", _SCHEDULER_ID, "--etcd-data-dir", str(self.state_dir / "scheduler")),
            *("--etcd-initial-cluster", f"{_SCHEDULER_ID}=https://{HOST}:{etcd_peer}"),
            *("--identity-directory-write", str(self.state_dir / "identity" / "tls")),
            *("--etcd-client-listen-address", HOST, "--etcd-client-port", str(etcd_client)),
        ]

    def _secured(self) -> list[str]:
        return [
            *(
                "--tls-enabled",
                "--trust-domain",
                TRUST_DOMAIN,
                "--trust-anchors-file",
                str(self.trust_anchors),
            ),
            *("--sentry-address", f"{HOST}:{self.ports.sentry}"),
        ]


def _side_ports(health: int, metrics: int) -> list[str]:
    return [
        *("--healthz-listen-address", HOST, "--healthz-port", str(health)),
        *("--metrics-listen-address", HOST, "--metrics-port", str(metrics)),
    ]
