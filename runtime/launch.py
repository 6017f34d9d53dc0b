"""Runs the control plane and the two apps of dapr.yaml: `python -m runtime.launch run|up|control-plane`.

`python -m runtime` starts it in the virtual environment. When it ends, by Ctrl-C, SIGTERM, a dead program or an error,
it stops everything that it started.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from app.config.private_files import keep_private
from runtime import paths, ports, processes, state
from runtime.apps import Apps, link_logs
from runtime.control_plane import ControlPlane
from runtime.errors import exit_code
from runtime.locks import exclusive
from runtime.loopback import answers, bypass_proxies
from runtime.ports import Port
from runtime.progress import Step
from runtime.signals import Stopped, ignore_signals, install_handlers

STACK_LOCK = paths.STATE / "lock"
LOGS = paths.STATE / "logs"
_APP_LOGS = paths.ROOT / ".dapr" / "logs"
_APP_IDS = ("agent", "sandbox")
_READY_SECONDS = 90.0
_WATCH_SECONDS = 0.5


def run() -> int:
    """Works the sample tickets, shows their results and costs, and returns the first exit code that is not 0.

    The cost report follows the end of the agent, which has then recorded everything.
    """
    with _running_stack() as (check, named):
        systems, model = (f"http://127.0.0.1:{named[name].number}" for name in ("sandbox systems", "sandbox model"))
        codes = [
            _run_command(named, check, "demo", "--systems-url", systems),
            _run_command(named, check, "cost", "reconcile", "--sandbox-url", model),
        ]
    codes.append(_run_command(named, lambda: None, "cost", "report", "--by", "tenant,stage"))
    _print_next_steps()
    return next(filter(None, codes), 0)


def _run_command(named: Mapping[str, Port], check: Callable[[], None], *arguments: str) -> int:
    """Runs one of the product's commands on this terminal."""
    command = [str(paths.VENV_PYTHON), "-m", "app", *arguments]
    return processes.run_foreground(command, environment=_client_environment(named), watch=check)


def up() -> int:
    """Runs until Ctrl-C or SIGTERM, its normal end, or until a program dies."""
    try:
        with _running_stack() as (check, named):
            _print_addresses(named)
            print("Running. Ctrl-C stops everything.", flush=True)
            _watch(check)
    except (KeyboardInterrupt, Stopped):
        print("Stopped.", flush=True)
    return 0


def control_plane() -> int:
    """Runs only the control plane, for `dapr run -f .` in another shell."""
    try:
        with _locked_ports() as named, _running_control_plane(named, ("sentry", "placement", "scheduler")) as control:
            print('Running. In another shell: eval "$(python3 -m runtime env)" && dapr run -f .', flush=True)
            _watch(control.check)
    except (KeyboardInterrupt, Stopped):
        print("Stopped.", flush=True)
    return 0


@contextmanager
def _running_stack() -> Iterator[tuple[Callable[[], None], Mapping[str, Port]]]:
    started = time.monotonic()
    with _locked_ports() as named:
        for line in ports.unserved_addresses(named, paths.COMPONENTS):
            print(f"warning: {line}", file=sys.stderr, flush=True)
        with _running_control_plane(named, tuple(named)) as control:
            apps = _start_apps(control)

            def check() -> None:
                control.check()
                apps.check()

            try:
                _wait_for_agent(check, named["agent web"].number)
                link_logs(_APP_LOGS, LOGS, _APP_IDS)
                print(f"Agent ready after {time.monotonic() - started:.1f} s.", flush=True)
                yield check, named
            finally:
                link_logs(_APP_LOGS, LOGS, _APP_IDS)
                with Step("stopping"), ignore_signals():
                    apps.stop()


@contextmanager
def _locked_ports() -> Iterator[Mapping[str, Port]]:
    state.prepare(paths.STATE)
    with exclusive(STACK_LOCK, what="A stack of this project"):
        yield ports.read_ports(paths.DAPR_YAML)


@contextmanager
def _running_control_plane(named: Mapping[str, Port], needed: tuple[str, ...]) -> Iterator[ControlPlane]:
    ports.check_free(named[name] for name in needed)
    control = ControlPlane(paths.LAUNCH_BIN, paths.STATE, ports.control_plane_ports(named))
    try:
        with Step("control plane (sentry, placement, scheduler)"):
            control.start()
        yield control
    finally:
        with ignore_signals():
            control.stop()


def _start_apps(control: ControlPlane) -> Apps:
    environment = {**control.environment(), "DAPR_RUNTIME_PATH": str(paths.LAUNCH)}
    command = [str(paths.LAUNCH_BIN / "dapr"), "run", "-f", "."]
    since = time.time()
    dapr = processes.start("dapr run", command, log=LOGS / "dapr-run.log", environment=environment, folder=paths.ROOT)
    return Apps(dapr, _APP_LOGS, _APP_IDS, since=since)


def _wait_for_agent(check: Callable[[], None], port: int) -> None:
    def ready() -> bool:
        check()
        return answers(port, "/healthz")

    with Step("sandbox and agent (dapr run -f .)"):
        processes.wait_until(ready, what="agent", deadline_seconds=_READY_SECONDS)


def _client_environment(named: Mapping[str, Port]) -> dict[str, str]:
    """The environment variables with which the command line reaches this stack."""
    return {
        **bypass_proxies(),
        "REFUND_AGENT_WEB_PORT": str(named["agent web"].number),
        "REFUND_AGENT_STATE_DIR": str(paths.STATE),
        "DAPR_API_TOKEN": state.api_token(paths.STATE),
        "DAPR_HTTP_PORT": str(named["agent daprd HTTP"].number),
        "DAPR_GRPC_PORT": str(named["agent daprd gRPC"].number),
    }


def _print_addresses(named: Mapping[str, Port]) -> None:
    print(f"  pages      http://127.0.0.1:{named['agent web'].number}/pages/tasks  (token: {paths.STATE / 'token'})")
    print(f"  API        http://127.0.0.1:{named['agent web'].number}/openapi.json")
    print(f"  files      {paths.STATE}")
    print(f"  logs       {LOGS}", flush=True)


def _print_next_steps() -> None:
    """Prints, after everything has stopped, what can still be read, and how to start again."""
    print("Everything has stopped. The record can still be read, for example with")
    print("  .venv/bin/refund-agent cost report --by task --top 5")
    print("  .venv/bin/refund-agent cost failures")
    print("`make up` starts it again and keeps it running: pages, API, and the tasks that wait for a person.")
    print(f"  files      {paths.STATE}")
    print(f"  logs       {LOGS}", flush=True)


def _watch(check: Callable[[], object]) -> None:
    pause = threading.Event()
    while True:
        check()
        pause.wait(_WATCH_SECONDS)


def main(arguments: list[str]) -> int:
    """Runs the named command; errors are printed as sentences."""
    os.chdir(paths.ROOT)
    keep_private()
    install_handlers()
    processes.adopt_orphans()
    commands: dict[str, Callable[[], int]] = {"run": run, "up": up, "control-plane": control_plane}
    return exit_code(commands[arguments[0]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
