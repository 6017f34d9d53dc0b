"""`refund-agent serve`: the one command that is the agent itself."""

from __future__ import annotations


def serve() -> None:
    """Runs the worker and the web in this process, beside its Dapr sidecar, until it is told to stop."""
    from app.bootstrap import serve as run
    from app.config.settings import load

    run(load())
