"""Runs Dapr's control plane on this machine, with mTLS: sentry (certificates), placement and scheduler.

All ports are on 127.0.0.1 except the health ports, for which Dapr 1.18 ignores the given address. Sentry makes its
certificate authority under `state_dir/keys` at the first start and keeps it there: it is needed to verify signed
histories. The scheduler keeps its jobs in `state_dir/scheduler`.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from runtime import processes, state
from runtime.errors import UserError
from runtime.loopback import HOST, answers, bypass_proxies, free_ports, is_listened_on
from runtime.processes import Child

NAMES = ("sentry", "placement", "scheduler")
NAMESPACE = "default"
# Go collects garbage when the heap has doubled, which Dapr's small heaps do all the time. Letting them grow fivefold
# costs about 100 MB and saves a quarter of the CPU time of daprd and scheduler.
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
    """The ports of the control plane. The defaults are those that `dapr run` expects."""

    sentry: int = 50001
    placement: int = 50005
    scheduler: int = 50006

    @classmethod
    def free(cls) -> ControlPlanePorts:
        """Three ports that are free now."""
        return cls(*free_ports(3))


class ControlPlane:
    """The three programs. `start` and `stop` act on all, the `..._one` methods on one, for crash tests."""

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
        """The file with the certificate of the authority (PEM)."""
        return self.state_dir / "keys" / "ca.crt"

    def metrics_url(self, name: str) -> str:
        """The base URL of the Prometheus metrics of placement or scheduler after its start. Sentry has none."""
        return f"http://{HOST}:{self._metrics[name]}"

    def start(self) -> None:
        """Starts all three and waits until they are healthy. Stops those that run if one fails."""
        try:
            for name in NAMES:
                self.spawn_one(name)
                if name == "sentry":
                    self.wait_one(name)  # the others cannot start without the certificate
            for name in NAMES:
                self.wait_one(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the running programs in reverse order."""
        processes.stop_all(self.children.values())
        self.children.clear()

    def start_one(self, name: str) -> None:
        """Starts one of `NAMES` and waits until it is healthy."""
        self.spawn_one(name)
        self.wait_one(name)

    def kill_one(self, name: str) -> None:
        """Kills one of `NAMES` with SIGKILL."""
        processes.kill(self.children.pop(name))

    def spawn_one(self, name: str) -> None:
        """Starts one of `NAMES` without waiting for it."""
        if name in self.children:
            raise UserError(f"{name} runs already (pid {self.children[name].pid}).")
        self._prepare(name)
        self._health[name], self._metrics[name] = free_ports(2)
        commands = {
            "sentry": self._sentry_options,
            "placement": self._placement_options,
            "scheduler": self._scheduler_options,
        }
        command = [
            str(self.bin_dir / name),
            *commands[name](),
            *_health_and_metrics_options(self._health[name], self._metrics[name]),
        ]
        self.children[name] = processes.start(
            name, command, log=self.log_dir / f"{name}.log", environment={"NAMESPACE": NAMESPACE, **GO_MEMORY}
        )

    def wait_one(self, name: str, *, deadline_seconds: float = 30.0) -> None:
        """Waits until one of `NAMES` is healthy and listens, since it reports health a moment before it does, and daprd
        ends if sentry does not. Raises `ChildDied` or `NotReady`."""
        health, port = self._health[name], getattr(self.ports, name)

        def ready() -> bool:
            return answers(health, "/healthz") and self.trust_anchors.exists() and is_listened_on(port)

        processes.wait_until(ready, what=name, deadline_seconds=deadline_seconds, children=[self.children[name]])
        if name == "sentry":
            self._protect_keys()

    def check(self) -> None:
        """Raises `ChildDied` if a started program has ended."""
        for child in list(self.children.values()):
            child.check()

    def environment(self) -> dict[str, str]:
        """Environment variables with which daprd, or `dapr run`, joins this control plane and serves its app only."""
        return {
            "DAPR_API_TOKEN": state.api_token(self.state_dir),
            "DAPR_TRUST_ANCHORS": self.trust_anchors.read_text(),
            "NAMESPACE": NAMESPACE,
            "DAPR_HOST_IP": HOST,
            **GO_MEMORY,
            **bypass_proxies(),
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
        # The scheduler writes a new short-lived certificate at each start; remove the old ones.
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

    def _sentry_options(self) -> list[str]:
        keys = self.state_dir / "keys"
        return [
            *("--mode", "standalone", "--listen-address", HOST, "--port", str(self.ports.sentry)),
            *("--issuer-credentials", str(keys), "--config", str(keys / "sentry.yaml")),
            # Sentry's metrics server ignores its listen address and would be open to the network.
            *("--trust-domain", TRUST_DOMAIN, "--enable-metrics=false"),
        ]

    def _placement_options(self) -> list[str]:
        (raft,) = free_ports(1)
        return [
            *self._mtls_options(),
            *("--listen-address", HOST, "--port", str(self.ports.placement)),
            *("--initial-cluster", f"dapr-placement-0={HOST}:{raft}"),
        ]

    def _scheduler_options(self) -> list[str]:
        etcd_client, etcd_peer = free_ports(2)
        return [
            *self._mtls_options(),
            *("--listen-address", HOST, "--port", str(self.ports.scheduler)),
            *("--override-broadcast-host-port", f"{HOST}:{self.ports.scheduler}"),
            *("--id", _SCHEDULER_ID, "--etcd-data-dir", str(self.state_dir / "scheduler")),
            *("--etcd-initial-cluster", f"{_SCHEDULER_ID}=https://{HOST}:{etcd_peer}"),
            *("--identity-directory-write", str(self.state_dir / "identity" / "tls")),
            *("--etcd-client-listen-address", HOST, "--etcd-client-port", str(etcd_client)),
        ]

    def _mtls_options(self) -> list[str]:
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


def _health_and_metrics_options(health: int, metrics: int) -> list[str]:
    return [
        *("--healthz-listen-address", HOST, "--healthz-port", str(health)),
        *("--metrics-listen-address", HOST, "--metrics-port", str(metrics)),
    ]
