"""The files, command lines and environments with which `Stack` starts its processes; no process is started here."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runtime import paths, state
from runtime.control_plane import NAMESPACE, TRUST_DOMAIN, ControlPlanePorts
from runtime.loopback import HOST, free_ports, past_proxies
from runtime.ports import read_ports

# Copies components, policies and Configuration into a folder, with other ports for the sandbox.

_LOOPBACK = re.compile(r"\b(127\.0\.0\.1|localhost):(\d+)\b")


def render(folder: Path, ports: Mapping[int, int], overlay: Mapping[str, str]) -> None:
    """Fills `folder` with components/, resiliency/ and config/, ready for a daprd whose working folder it is.

    `ports` maps each loopback port of the project's files to the one to use instead. `overlay` maps a
    file name of components/ to its text: it replaces the file of that name, or is added.
    """
    for source in (paths.COMPONENTS, paths.RESILIENCY, paths.CONFIGURATION.parent):
        target = folder / source.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(source.glob("*.yaml")):
            (target / file.name).write_text(repoint(file.read_text(), ports))
    for name, text in overlay.items():
        (folder / "components" / name).write_text(text)


def repoint(text: str, ports: Mapping[int, int]) -> str:
    """Replaces the loopback ports that `ports` names; other addresses stay as they are."""

    def replace(found: re.Match[str]) -> str:
        return f"{found[1]}:{ports.get(int(found[2]), int(found[2]))}"

    return _LOOPBACK.sub(replace, text)


@dataclass(frozen=True)
class StackPorts:
    """Every port of one stack."""

    web: int
    model: int
    systems: int
    dapr_http: int
    dapr_grpc: int
    dapr_internal: int
    dapr_metrics: int
    control_plane: ControlPlanePorts

    def beside(self) -> StackPorts:
        """The ports of another worker and its sidecar in the same stack."""
        web, http, grpc, internal, metrics = free_ports(5)
        return replace(self, web=web, dapr_http=http, dapr_grpc=grpc, dapr_internal=internal, dapr_metrics=metrics)

    @classmethod
    def free(cls) -> StackPorts:
        """Ports that nobody uses now."""
        web, model, systems, http, grpc, internal, metrics, *control = free_ports(10)
        return cls(web, model, systems, http, grpc, internal, metrics, ControlPlanePorts(*control))


def project_ports() -> tuple[int, int]:
    """The model's and the systems' ports in the project's files, as dapr.yaml says."""
    ports = read_ports(paths.DAPR_YAML)
    return ports["sandbox model"].number, ports["sandbox systems"].number


def sandbox_command(ports: StackPorts, state_dir: Path, latency_seconds: float) -> list[str]:
    """The model server and the internal systems."""
    return [
        *(str(paths.VENV_PYTHON), "-m", "sandbox"),
        *("--model-port", str(ports.model), "--systems-port", str(ports.systems)),
        *("--state", str(state_dir / "sandbox"), "--latency", str(latency_seconds)),
    ]


def worker_command() -> list[str]:
    """The agent: workflow worker and web in one process."""
    return [str(paths.VENV_PYTHON), "-m", "app", "serve"]


def worker_environment(ports: StackPorts, state_dir: Path) -> dict[str, str]:
    """What `dapr run` would give the agent, and where its own state and web go."""
    return {
        **past_proxies(),
        "APP_ID": "agent",
        "DAPR_API_TOKEN": state.api_token(state_dir),
        "DAPR_HTTP_PORT": str(ports.dapr_http),
        "DAPR_GRPC_PORT": str(ports.dapr_grpc),
        "DAPR_METRICS_PORT": str(ports.dapr_metrics),
        "REFUND_AGENT_WEB_PORT": str(ports.web),
        "REFUND_AGENT_STATE_DIR": str(state_dir),
    }


def daprd_command(bin_dir: Path, ports: StackPorts) -> list[str]:
    """The agent's sidecar; its working folder is the stack's folder."""
    control = ports.control_plane
    return [
        *(str(bin_dir / "daprd"), "--app-id", "agent", "--config", "config/dapr.yaml"),
        *("--resources-path", "components", "--resources-path", "resiliency"),
        *("--dapr-listen-addresses", HOST, "--dapr-http-port", str(ports.dapr_http)),
        *("--dapr-grpc-port", str(ports.dapr_grpc), "--dapr-internal-grpc-port", str(ports.dapr_internal)),
        *("--dapr-internal-grpc-listen-address", HOST),
        *("--metrics-listen-address", HOST, "--metrics-port", str(ports.dapr_metrics)),
        *("--placement-host-address", f"{HOST}:{control.placement}"),
        *("--scheduler-host-address", f"{HOST}:{control.scheduler}"),
        *("--enable-mtls", "--sentry-address", f"{HOST}:{control.sentry}"),
        *("--control-plane-trust-domain", TRUST_DOMAIN, "--control-plane-namespace", NAMESPACE),
    ]
