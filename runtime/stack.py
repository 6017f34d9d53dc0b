"""The whole product as separate processes on free ports, for tests, crash drills and benchmarks.

    with Stack(tmp_path, worker_env={"REFUND_AGENT_X": "1"}, latency_seconds=0.2) as stack:
        httpx.post(f"{stack.web_url}/api/...")
        stack.kill("worker")          # SIGKILL; also stop(name), start(name)
        stack.start("worker")         # same ports, same state; waits until it is ready

The processes start in this order: sentry, placement, scheduler, sandbox, daprd, worker; `parts` selects some of them.
All files are below `folder`: components/, resiliency/ and config/ are copies with the stack's loopback ports (daprd
reloads a component that a test rewrites there), `.state` is the state folder, `.state/logs/<name>.log` are the logs.
The dapr CLI is not used; mTLS and signing are on. A daprd that ends by itself is restarted, as kubelet would do: the
worker asks a locked-up daprd to end.

With `pairs=2`, the app has a second worker and a second sidecar, as on a cluster: `worker-2`, `daprd-2`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from runtime import paths, processes
from runtime.control_plane import NAMES as CONTROL_PLANE
from runtime.control_plane import ControlPlane
from runtime.errors import UserError
from runtime.loopback import answers
from runtime.processes import Child
from runtime.stack_commands import (
    StackPorts,
    daprd_command,
    project_ports,
    render,
    sandbox_command,
    worker_command,
    worker_environment,
)
from runtime.state import api_token, prepare

NAMES = (*CONTROL_PLANE, "sandbox", "daprd", "worker")
SECOND = ("daprd-2", "worker-2")
READY_SECONDS = 60.0
_POLL_SECONDS = 0.1


class Stack:
    """The processes of one run. A `folder` can have only one stack at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        parts: Sequence[str] = NAMES,
        worker_env: Mapping[str, str] | None = None,
        overlay: Mapping[str, str] | None = None,
        latency_seconds: float = 0.0,
        worker: Sequence[str] | None = None,
        bin_dir: Path | None = None,
        pairs: int = 1,
    ) -> None:
        """Prepares `folder` without starting anything.

        worker_env: added to the worker's environment; may be changed before the next start("worker").
        overlay: YAML text by file name in components/; replaces or adds files.
        latency_seconds: the base latency of the sandbox's model.
        worker: the command of the worker; default is the agent's.
        bin_dir: the folder of daprd, placement, scheduler and sentry; default is that of set-up.
        pairs: 2 for a second worker with its own sidecar.
        """
        self.folder = folder.resolve()
        self.state = self.folder / ".state"
        self.components = self.folder / "components"
        chosen = tuple(name for name in NAMES if name in _check_names(parts))
        self.parts = chosen if pairs == 1 else tuple(sorted((*chosen, *SECOND), key=_start_order))
        self.worker_env = dict(worker_env or {})
        self.latency_seconds = latency_seconds
        self._worker = list(worker or worker_command())
        self.ports = StackPorts.free()
        self._second_ports = self.ports.second() if pairs > 1 else self.ports
        self.bin_dir = bin_dir or _default_programs()
        self.control_plane = ControlPlane(self.bin_dir, self.state, self.ports.control_plane)
        self._children: dict[str, Child] = {}
        self._turn = threading.RLock()
        self._ended = threading.Event()
        prepare(self.state)
        render(self.folder, _port_replacements(self.ports), overlay or {})

    @property
    def web_url(self) -> str:
        """The base URL of the agent's API."""
        return f"http://127.0.0.1:{self.ports.web}"

    @property
    def web_urls(self) -> tuple[str, ...]:
        """The base URLs of all workers' APIs."""
        return tuple(f"http://127.0.0.1:{self._ports_of(name).web}" for name in self.parts if _role(name) == "worker")

    @property
    def model_url(self) -> str:
        """The sandbox's model server: /bill, /faults, /latency, /v1/..."""
        return f"http://127.0.0.1:{self.ports.model}"

    @property
    def systems_url(self) -> str:
        """The sandbox's internal systems: /books/..., /faults, /<system>/<method>."""
        return f"http://127.0.0.1:{self.ports.systems}"

    @property
    def dapr_url(self) -> str:
        """The base URL of daprd's HTTP API."""
        return f"http://127.0.0.1:{self.ports.dapr_http}"

    @property
    def dapr_grpc(self) -> str:
        """The address of daprd's gRPC API, host:port."""
        return f"127.0.0.1:{self.ports.dapr_grpc}"

    @property
    def api_token(self) -> str:
        """The token of daprd's APIs, for the header `dapr-api-token`."""
        return api_token(self.state)

    @property
    def dapr_metrics_url(self) -> str:
        """The base URL of daprd's Prometheus metrics."""
        return f"http://127.0.0.1:{self.ports.dapr_metrics}"

    def __enter__(self) -> Stack:
        """Starts all parts and waits until they are ready."""
        self.start_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything."""
        self.stop_all()

    def start_all(self) -> None:
        """Starts the parts that do not run, in order. Stops all if one fails."""
        try:
            for name in self.parts:
                if not self.alive(name):
                    self.start(name)
            self._ended.clear()
            threading.Thread(target=self._restart_ended_sidecars, name="stack", daemon=True).start()
        except BaseException:
            self.stop_all()
            raise

    def stop_all(self) -> None:
        """Stops everything in reverse order."""
        self._ended.set()
        with self._turn:
            children = list(self._children.values())
            self._children.clear()
            try:
                processes.stop_all(children)
            finally:
                self.control_plane.stop()

    def start(self, name: str) -> None:
        """Starts one process with its ports and state, and waits until it is ready.

        Raises `ChildDied` or `NotReady`, both with the last lines of its log.
        """
        _check_names([name])
        with self._turn:
            if self.alive(name):
                raise UserError(f"{name} runs already.", remedy=f'Call stop("{name}") or kill("{name}") first.')
            self._start(name)

    def _start(self, name: str) -> None:
        if name in CONTROL_PLANE:
            self.control_plane.children.pop(name, None)
            self.control_plane.start_one(name)
            return
        child, ready = self._spawn(name)
        processes.wait_until(ready, what=name, deadline_seconds=READY_SECONDS, children=[child])

    def _spawn(self, name: str) -> tuple[Child, Callable[[], bool]]:
        command, environment, ready = self._launch_options(name)
        child = self._children[name] = processes.start(
            name,
            command,
            log=self.log(name),
            environment=environment,
            folder=self.folder if _role(name) == "daprd" else paths.ROOT,
        )
        return child, ready

    def stop(self, name: str) -> None:
        """Stops one process: SIGTERM, then SIGKILL after ten seconds."""
        with self._turn:
            processes.stop(self._remove(name))

    def kill(self, name: str) -> None:
        """Kills one process with SIGKILL."""
        with self._turn:
            processes.kill(self._remove(name))

    def freeze(self, name: str) -> None:
        """Stops a process with SIGSTOP; it keeps its connections, and continues with `thaw`."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Continues a frozen process with SIGCONT."""
        os.kill(self.pid(name), signal.SIGCONT)

    def alive(self, name: str) -> bool:
        """Whether the process runs; False also after it ended by itself."""
        child = self._children_with(name).get(name)
        return child is not None and child.alive()

    def pid(self, name: str) -> int:
        """The id of a started process."""
        return self._child(name).pid

    def log(self, name: str) -> Path:
        """The log file of a process, which is kept over restarts."""
        return self.state / "logs" / f"{name}.log"

    def wait_dead(self, name: str, *, deadline_seconds: float = 30.0) -> None:
        """Waits until a process has ended by itself, for example by an injected crash."""
        child = self._child(name)
        processes.wait_until(lambda: not child.alive(), what=f"the end of {name}", deadline_seconds=deadline_seconds)

    def _restart_ended_sidecars(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            with self._turn:
                for name in self.parts:
                    child = self._children.get(name) if _role(name) == "daprd" else None
                    if child is not None and not child.alive() and not self._ended.is_set():
                        self._spawn(name)

    def _launch_options(self, name: str) -> tuple[list[str], dict[str, str], Callable[[], bool]]:
        ports = self._ports_of(name)
        if name == "sandbox":
            ready = lambda: answers(ports.model, "/healthz") and answers(ports.systems, "/healthz")  # noqa: E731
            return sandbox_command(ports, self.state, self.latency_seconds), {}, ready
        if _role(name) == "daprd":
            command = daprd_command(self.bin_dir, ports)
            return command, self.control_plane.environment(), lambda: answers(ports.dapr_http, "/v1.0/healthz/outbound")
        environment = {**worker_environment(ports, self.state), **self.worker_env}
        return self._worker, environment, lambda: answers(ports.web, "/healthz")

    def _ports_of(self, name: str) -> StackPorts:
        return self._second_ports if name in SECOND else self.ports

    def _children_with(self, name: str) -> dict[str, Child]:
        return self.control_plane.children if name in CONTROL_PLANE else self._children

    def _child(self, name: str) -> Child:
        child = self._children_with(name).get(name)
        if child is None:
            raise UserError(f"{name} was not started.", remedy=f"Parts of this stack: {', '.join(self.parts)}.")
        return child

    def _remove(self, name: str) -> Child:
        child = self._child(name)
        del self._children_with(name)[name]
        return child


def _port_replacements(ports: StackPorts) -> dict[int, int]:
    model, systems = project_ports()
    return {model: ports.model, systems: ports.systems}


def _default_programs() -> Path:
    if not (paths.LAUNCH_BIN / "daprd").exists():
        raise UserError(f"There are no Dapr programs in {paths.LAUNCH_BIN}.", remedy="Run make setup first.")
    return paths.LAUNCH_BIN


def _role(name: str) -> str:
    """The name of a process without its number, such as `worker` for `worker-2`."""
    return name.removesuffix("-2")


def _start_order(name: str) -> int:
    return NAMES.index(_role(name))


def _check_names(names: Sequence[str]) -> Sequence[str]:
    unknown = set(names) - {*NAMES, *SECOND}
    if unknown:
        raise UserError(f"No such process: {', '.join(sorted(unknown))}.", remedy=f"Use {', '.join(NAMES)}.")
    return names
