"""Questions to the sidecar: whether it is ready, its version, its secrets, and whether it gives work to this worker."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable

import httpx

from app.dapr import workarounds
from app.dapr.daprd import Daprd
from app.dapr.workarounds import LOCKED_UP, Workaround
from app.domain.errors import ConfigurationError, FailureCause, Unreachable

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
# A healthy sidecar counts a worker as soon as it connects.
COUNTED_WITHIN_SECONDS = 0.3
# The least number of checks before a sidecar counts as locked up: time alone proves nothing, because this process may
# have been frozen too.
_MIN_CHECKS = 4
_PAUSE_SECONDS = 0.1


def wait_until_ready(
    sidecar: str, *, seconds: float = READY_SECONDS, pause: Callable[[float], None] = time.sleep
) -> None:
    """Returns when the sidecar has loaded its components. Raises Unreachable after `seconds`. `sidecar` is the address
    of its HTTP API."""
    deadline = time.monotonic() + seconds
    while not _is_ready(sidecar):
        if time.monotonic() > deadline:
            raise Unreachable(
                f"no Dapr sidecar is ready at {sidecar} after {seconds:.0f} s; "
                "start the agent with `make up` or `dapr run -f .`, and read the sidecar's log",
                cause=FailureCause.SIDECAR_GONE,
            )
        pause(_PAUSE_SECONDS)


def _is_ready(sidecar: str) -> bool:
    try:
        return httpx.get(f"{sidecar}/v1.0/healthz/outbound", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def version(daprd: Daprd) -> str:
    """The sidecar's version, such as `1.18.2`; empty if it does not answer."""
    try:
        with daprd.client(2) as client:
            return str(client.get("/v1.0/metadata").raise_for_status().json()["runtimeVersion"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return ""


def needs(daprd: Daprd, workaround: Workaround) -> bool:
    """Whether a defect of the running daprd must be worked around. Asks daprd each time, because it may have been
    restarted as another version."""
    return workarounds.is_needed(workaround, workarounds.parse(version(daprd)))


def secret(daprd: Daprd, store: str, name: str) -> str | None:
    """One secret from Dapr's secret store; None if the store has none of that name. Raises Unreachable, or
    ConfigurationError if the sidecar refuses this agent's token or cannot read the store."""
    try:
        with daprd.client(10) as client:
            response = client.get(f"/v1.0/secrets/{store}/{name}")
    except httpx.HTTPError as error:
        raise Unreachable(f"secret store {store}: {type(error).__name__} at {daprd.http}; is the sidecar up?") from None
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ConfigurationError(
            f"the sidecar at {daprd.http} does not know this agent's API token; give both the same DAPR_API_TOKEN"
        )
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


class WorkerConnection:
    """Checks that the sidecar has admitted this worker, and ends a sidecar that has locked up.

    Works around `LOCKED_UP`: the queued turn holds the lock of its workflow and waits for a worker, and the sidecar
    waits for that lock before it admits one. The worker's stream is accepted, but the worker is not counted and never
    gets work. Only restarting the sidecar helps.
    """

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._patience = COUNTED_WITHIN_SECONDS

    async def ensure_connected(self) -> None:
        """Returns when the sidecar counts a worker. A sidecar that counts none for too long is told to end, so that its
        supervisor starts it again."""
        deadline, checks = time.monotonic() + self._patience, 0
        while await asyncio.to_thread(self._workers) == 0:
            checks += 1
            if checks >= _MIN_CHECKS and time.monotonic() > deadline:
                self._patience *= 2  # it may only have been slow
                await asyncio.to_thread(self._end)
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _workers(self) -> int | None:
        """How many workers the sidecar counts; None if it does not answer, or its version does not lock up."""
        try:
            with self._daprd.client(2) as client:
                metadata = client.get("/v1.0/metadata").raise_for_status().json()
            if not workarounds.is_needed(LOCKED_UP, workarounds.parse(str(metadata.get("runtimeVersion")))):
                return None
            return int(metadata.get("workflows", {}).get("connectedWorkers", 0))  # daprd leaves out a zero
        except (httpx.HTTPError, ValueError, AttributeError, TypeError):
            return None

    def _end(self) -> None:
        log.error("sidecar %s has locked up and gives this worker no work; telling it to end", self._daprd.http)
        try:
            # Forced: a graceful shutdown would wait for the locked turn. All state is in the state store.
            with self._daprd.client(5) as client:
                client.post("/v1.0/shutdown", headers={"dapr-force-shutdown": "true"}).raise_for_status()
        except httpx.HTTPError as error:
            log.error("sidecar %s does not end (%s): restart it", self._daprd.http, type(error).__name__)
