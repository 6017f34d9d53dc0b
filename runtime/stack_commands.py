"""The files, command lines and environments with which `Stack` starts its processes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runtime import paths, state
from runtime.control_plane import NAMESPACE, TRUST_DOMAIN, ControlPlanePorts
from runtime.loopback import HOST, bypass_proxies, free_ports
from runtime.ports import read_ports

_LOOPBACK = re.compile(r"\b(127\.0\.0\.1|localhost):(\d+)\b")


def render(folder: Path, ports: Mapping[int, int], overlay: Mapping[str, str]) -> None:
    """Fills `folder`, the working folder of a daprd, with components/, resiliency/ and config/.

    ports: the port to use instead of each loopback port in the project's files. overlay: texts by file name in
    components/; each replaces the file of that name, or is added.
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
    """Replaces the loopback ports that are in `ports`."""

    def replace(match: re.Match[str]) -> str:
        return f"{match[1]}:{ports.get(int(match[2]), int(match[2]))}"

    return _LOOPBACK.sub(replace, text)


@dataclass(frozen=True)
class StackPorts:
    """All ports of one stack."""

    web: int
    model: int
    systems: int
    dapr_http: int
    dapr_grpc: int
    dapr_internal: int
    dapr_metrics: int
    control_plane: ControlPlanePorts

    def second(self) -> StackPorts:
        """The ports of a second worker and its sidecar in the same stack."""
        web, http, grpc, internal, metrics = free_ports(5)
        return replace(self, web=web, dapr_http=http, dapr_grpc=grpc, dapr_internal=internal, dapr_metrics=metrics)

    @classmethod
    def free(cls) -> StackPorts:
        """Ports that are free now."""
        web, model, systems, http, grpc, internal, metrics, *control = free_ports(10)
        return cls(web, model, systems, http, grpc, internal, metrics, ControlPlanePorts(*control))


def project_ports() -> tuple[int, int]:
    """The ports of model and systems in dapr.yaml."""
    ports = read_ports(paths.DAPR_YAML)
    return ports["sandbox model"].number, ports["sandbox systems"].number


def sandbox_command(ports: StackPorts, state_dir: Path, latency_seconds: float) -> list[str]:
    """The command of the sandbox: model server and internal systems."""
    return [
        *(str(paths.VENV_PYTHON), "-m", "sandbox"),
        *("--model-port", str(ports.model), "--systems-port", str(ports.systems)),
        *("--state", str(state_dir / "sandbox"), "--latency", str(latency_seconds)),
    ]


def worker_command() -> list[str]:
    """The command of the agent: workflow worker and web server in one process."""
    return [str(paths.VENV_PYTHON), "-m", "app", "serve"]


def worker_environment(ports: StackPorts, state_dir: Path) -> dict[str, str]:
    """The environment variables that `dapr run` would give the agent, and its state folder and web port."""
    return {
        **bypass_proxies(),
        "APP_ID": "agent",
        "DAPR_API_TOKEN": state.api_token(state_dir),
        "DAPR_HTTP_PORT": str(ports.dapr_http),
        "DAPR_GRPC_PORT": str(ports.dapr_grpc),
        "DAPR_METRICS_PORT": str(ports.dapr_metrics),
        "REFUND_AGENT_WEB_PORT": str(ports.web),
        "REFUND_AGENT_STATE_DIR": str(state_dir),
    }


def daprd_command(bin_dir: Path, ports: StackPorts) -> list[str]:
    """The command of the agent's sidecar, to run in the stack's folder."""
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
