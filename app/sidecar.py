"""What the worker asks its sidecar once, at start: is it ready, and which secrets does it hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx

from app.errors import ConfigurationError, Unreachable

READY_SECONDS = 60.0
_PAUSE_SECONDS = 0.1


def wait_until_ready(
    sidecar: str, *, seconds: float = READY_SECONDS, pause: Callable[[float], None] = time.sleep
) -> None:
    """Returns when the sidecar has loaded its components. Raises Unreachable after `seconds`."""
    deadline = time.monotonic() + seconds
    while not _ready(sidecar):
        if time.monotonic() > deadline:
            raise Unreachable(
                f"no Dapr sidecar is ready at {sidecar} after {seconds:.0f} s; "
                "start the agent with `make up` or `dapr run -f .`, and look into its log"
            )
        pause(_PAUSE_SECONDS)


def _ready(sidecar: str) -> bool:
    try:
        return httpx.get(f"{sidecar}/v1.0/healthz/outbound", timeout=2).is_success
    except httpx.HTTPError:
        return False


def secret(sidecar: str, store: str, name: str) -> str | None:
    """One secret from Dapr's secret store; None when the store holds none of that name."""
    try:
        response = httpx.get(f"{sidecar}/v1.0/secrets/{store}/{name}", timeout=10)
    except httpx.HTTPError as error:
        raise Unreachable(f"secret store {store}: {type(error).__name__} at {sidecar}; is the sidecar up?") from None
    if response.is_success:
        return str(response.json()[name]) if response.content else None
    if "not found" in response.text:
        return None
    code = _error_code(response.text)
    raise ConfigurationError(f"secret store {store}: cannot be read ({code}); see components/secrets.yaml")


def _error_code(text: str) -> str:
    try:
        return str(json.loads(text)["errorCode"])
    except (ValueError, KeyError, TypeError):
        return "unknown error"
