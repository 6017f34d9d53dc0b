"""The whole product as separate processes on free ports, for tests, crash drills and benchmarks.

    with Stack(tmp_path, worker_env={"REFUND_AGENT_X": "1"}, latency_seconds=0.2) as stack:
        httpx.post(f"{stack.web_url}/api/...")
        stack.kill("worker")          # SIGKILL; also stop(name), start(name)
        stack.start("worker")         # same ports, same state; waits until it is ready

Processes, in the order of their start: sentry, placement, scheduler, sandbox, daprd, worker. `parts` takes
fewer of them. Everything is written below `folder`: components/, resiliency/ and config/ are copies whose
loopback ports are the free ones (daprd reloads a component that a test rewrites there), `.state` is the
state folder, `.state/logs/<name>.log` the logs. No dapr CLI is involved; mTLS and signing are on. A daprd that ends
by itself is started again, as kubelet does: the worker asks it to end when it has locked up.

With `pairs=2` there are a second sidecar and a second worker of the same app, as on a cluster: `daprd-2`, `worker-2`.
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
_LOOK_SECONDS = 0.1


class Stack:
    """The processes of one run. Use one `folder` for one stack at a time."""

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
        """Prepares `folder`; starts nothing.

        worker_env: added to the worker's environment; may be changed before the next start("worker").
        overlay: file name in components/ -> YAML text, replacing or adding.
        latency_seconds: the sandbox model's base latency.
        worker: another command in the place of the agent's own.
        bin_dir: the folder of daprd, placement, scheduler and sentry; those that set-up has found or built by default.
        pairs: 1, or 2 for a second worker with a sidecar of its own.
        """
        self.folder = folder.resolve()
        self.state = self.folder / ".state"
        self.components = self.folder / "components"
        chosen = tuple(name for name in NAMES if name in _known(parts))
        self.parts = chosen if pairs == 1 else tuple(sorted((*chosen, *SECOND), key=_place))
        self.worker_env = dict(worker_env or {})
        self.latency_seconds = latency_seconds
        self._worker = list(worker or worker_command())
        self.ports = StackPorts.free()
        self._second_ports = self.ports.beside() if pairs > 1 else self.ports
        self.bin_dir = bin_dir or _programs()
        self.control_plane = ControlPlane(self.bin_dir, self.state, self.ports.control_plane)
        self._children: dict[str, Child] = {}
        self._turn = threading.RLock()
        self._ended = threading.Event()
        prepare(self.state)
        render(self.folder, _replacements(self.ports), overlay or {})

    @property
    def web_url(self) -> str:
        """The agent's API."""
        return f"http://127.0.0.1:{self.ports.web}"

    @property
    def web_urls(self) -> tuple[str, ...]:
        """The API of each worker."""
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
        """daprd's HTTP API."""
        return f"http://127.0.0.1:{self.ports.dapr_http}"

    @property
    def dapr_grpc(self) -> str:
        """daprd's gRPC API, host:port."""
        return f"127.0.0.1:{self.ports.dapr_grpc}"

    @property
    def api_token(self) -> str:
        """What opens daprd's APIs: header `dapr-api-token`."""
        return api_token(self.state)

    @property
    def dapr_metrics_url(self) -> str:
        """daprd's Prometheus metrics."""
        return f"http://127.0.0.1:{self.ports.dapr_metrics}"

    def __enter__(self) -> Stack:
        """Starts every part and waits until each is ready."""
        self.start_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything, whatever happened."""
        self.stop_all()

    def start_all(self) -> None:
        """Starts the parts that do not run, in order; stops all when one fails."""
        try:
            for name in self.parts:
                if not self.alive(name):
                    self.start(name)
            self._ended.clear()
            threading.Thread(target=self._look_after_daprd, name="stack", daemon=True).start()
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
        """Starts one process on its old ports and state, and waits until it is ready.

        Raises `ChildDied` or `NotReady`, both with the last lines of its log.
        """
        _known([name])
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
        command, environment, ready = self._recipe(name)
        child = self._children[name] = processes.start(
            name,
            command,
            log=self.log(name),
            environment=environment,
            folder=self.folder if _role(name) == "daprd" else paths.ROOT,
        )
        return child, ready

    def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL after ten seconds."""
        with self._turn:
            processes.stop(self._take(name))

    def kill(self, name: str) -> None:
        """SIGKILL, at once."""
        with self._turn:
            processes.kill(self._take(name))

    def freeze(self, name: str) -> None:
        """SIGSTOP: the process stands still, and keeps its connections, until `thaw`."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.pid(name), signal.SIGCONT)

    def alive(self, name: str) -> bool:
        """Whether the process runs now; false also after a crash of its own."""
        child = self._holder(name).get(name)
        return child is not None and child.alive()

    def pid(self, name: str) -> int:
        """The process id of a process that was started."""
        return self._child(name).pid

    def log(self, name: str) -> Path:
        """The log file of a process; it outlives restarts."""
        return self.state / "logs" / f"{name}.log"

    def wait_dead(self, name: str, *, deadline_seconds: float = 30.0) -> None:
        """Waits until a process has ended by itself, for instance by an injected crash."""
        child = self._child(name)
        processes.wait_until(lambda: not child.alive(), what=f"the end of {name}", deadline_seconds=deadline_seconds)

    def _look_after_daprd(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            with self._turn:
                for name in self.parts:
                    child = self._children.get(name) if _role(name) == "daprd" else None
                    if child is not None and not child.alive() and not self._ended.is_set():
                        self._spawn(name)

    def _recipe(self, name: str) -> tuple[list[str], dict[str, str], Callable[[], bool]]:
        ports = self._ports_of(name)
        if name == "sandbox":
            ready = lambda: answers(ports.model, "/healthz") and answers(ports.systems, "/healthz")  # noqa: E731
            return sandbox_command(ports, self.state, self.latency_seconds), {}, ready
        if _role(name) == "daprd":
            command = daprd_command(self.bin_dir, ports)
            return command, self._joined(), lambda: answers(ports.dapr_http, "/v1.0/healthz/outbound")
        environment = {**worker_environment(ports, self.state), **self.worker_env}
        return self._worker, environment, lambda: answers(ports.web, "/healthz")

    def _ports_of(self, name: str) -> StackPorts:
        return self._second_ports if name in SECOND else self.ports

    def _joined(self) -> dict[str, str]:
        return self.control_plane.environment()

    def _holder(self, name: str) -> dict[str, Child]:
        return self.control_plane.children if name in CONTROL_PLANE else self._children

    def _child(self, name: str) -> Child:
        child = self._holder(name).get(name)
        if child is None:
            raise UserError(f"{name} was not started.", remedy=f"Parts of this stack: {', '.join(self.parts)}.")
        return child

    def _take(self, name: str) -> Child:
        child = self._child(name)
        del self._holder(name)[name]
        return child


def _replacements(ports: StackPorts) -> dict[int, int]:
    model, systems = project_ports()
    return {model: ports.model, systems: ports.systems}


def _programs() -> Path:
    if not (paths.LAUNCH_BIN / "daprd").exists():
        raise UserError(f"There are no Dapr programs in {paths.LAUNCH_BIN}.", remedy="Run make setup first.")
    return paths.LAUNCH_BIN


def _role(name: str) -> str:
    """What a process is, the first or the second of its kind."""
    return name.removesuffix("-2")


def _place(name: str) -> int:
    return NAMES.index(_role(name))


def _known(names: Sequence[str]) -> Sequence[str]:
    unknown = set(names) - {*NAMES, *SECOND}
    if unknown:
        raise UserError(f"No such process: {', '.join(sorted(unknown))}.", remedy=f"Use {', '.join(NAMES)}.")
    return names
