"""`python -m runtime reload`: has the agent's sidecar read everything again; it reads the secrets file at start only.

daprd begins anew on SIGHUP within the same process, in a second or two; what it was asked meanwhile is asked again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from runtime import paths, processes
from runtime.errors import NotReady, UserError, exit_code
from runtime.loopback import answers, listeners
from runtime.ports import read_ports
from runtime.state import check_secrets

_GOES_SECONDS, _COMES_SECONDS = 3.0, 30.0


def reload(port: int) -> int:
    """Reloads the daprd whose HTTP API is at that port, waits until it is ready again, and returns its process id."""
    pid = next((listener.pid for listener in listeners() if listener.protocol == "tcp" and listener.port == port), None)
    if pid is None:
        raise UserError(
            f"No sidecar listens at port {port}.", remedy="There is nothing to reload: make up reads it all."
        )
    if pid == 0:
        raise UserError(f"The sidecar at port {port} is another user's.", remedy="Run this as the user who started it.")
    os.kill(pid, signal.SIGHUP)
    with contextlib.suppress(NotReady):  # it may be back already
        processes.wait_until(lambda: not _ready(port), what="its end", deadline_seconds=_GOES_SECONDS)
    processes.wait_until(lambda: _ready(port), what="the sidecar", deadline_seconds=_COMES_SECONDS)
    return pid


def _ready(port: int) -> bool:
    return answers(port, "/v1.0/healthz/outbound")


def main() -> int:
    """Reloads the sidecar of dapr.yaml's agent."""
    return exit_code(_reload)


def _reload() -> int:
    check_secrets(paths.STATE)
    pid = reload(read_ports(paths.DAPR_YAML)["agent daprd HTTP"].number)
    print(f"The agent's sidecar (daprd, pid {pid}) has read secrets, components and configuration again.")
    print("Nothing is lost by that but, with Dapr below 1.18.5, its own metrics until it is started again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
