"""`python -m runtime reload`: makes the agent's sidecar read all its files again. It reads secrets at start only.

On SIGHUP, daprd restarts within the same process, in a second or two. Its callers repeat their requests.
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

_END_SECONDS, _READY_SECONDS = 3.0, 30.0


def reload(port: int) -> int:
    """Reloads the daprd whose HTTP API is at that port, waits until it is ready, and returns its process id."""
    pid = next((listener.pid for listener in listeners() if listener.protocol == "tcp" and listener.port == port), None)
    if pid is None:
        raise UserError(
            f"No sidecar listens at port {port}.", remedy="There is nothing to reload; make up reads all files."
        )
    if pid == 0:
        raise UserError(
            f"The sidecar at port {port} belongs to another user.", remedy="Run this as the user who started it."
        )
    os.kill(pid, signal.SIGHUP)
    with contextlib.suppress(NotReady):  # it may have restarted already
        processes.wait_until(lambda: not _is_ready(port), what="its end", deadline_seconds=_END_SECONDS)
    processes.wait_until(lambda: _is_ready(port), what="the sidecar", deadline_seconds=_READY_SECONDS)
    return pid


def _is_ready(port: int) -> bool:
    return answers(port, "/v1.0/healthz/outbound")


def main() -> int:
    """Reloads the sidecar of the agent in dapr.yaml."""
    return exit_code(_reload)


def _reload() -> int:
    check_secrets(paths.STATE)
    pid = reload(read_ports(paths.DAPR_YAML)["agent daprd HTTP"].number)
    print(f"The agent's sidecar (daprd, pid {pid}) has read secrets, components and configuration again.")
    print("With Dapr below 1.18.5, the sidecar has no metrics until its next start; nothing else is lost.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
