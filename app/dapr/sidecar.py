"""What the worker asks its sidecar: is it ready, which version is it, which secrets does it hold, has it taken this
worker on?"""

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
# A sidecar that is well counts a worker in the moment in which it connects.
TAKEN_ON_SECONDS = 0.3
# So often it is asked, however long that takes: this process, too, may have stood still.
_LOOKS = 4
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
                "start the agent with `make up` or `dapr run -f .`, and look into its log",
                cause=FailureCause.SIDECAR_GONE,
            )
        pause(_PAUSE_SECONDS)


def _ready(sidecar: str) -> bool:
    try:
        return httpx.get(f"{sidecar}/v1.0/healthz/outbound", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def version(daprd: Daprd) -> str:
    """What the sidecar tells of its version, such as `1.18.2`; empty when it tells nothing."""
    try:
        with daprd.client(2) as client:
            return str(client.get("/v1.0/metadata").raise_for_status().json()["runtimeVersion"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return ""


def needs(daprd: Daprd, workaround: Workaround) -> bool:
    """Whether a defect of daprd is to be worked around. Asked each time, and rarely: the sidecar may have been started
    again as another version."""
    return workarounds.needed(workaround, workarounds.parse(version(daprd)))


def secret(daprd: Daprd, store: str, name: str) -> str | None:
    """One secret from Dapr's secret store; None when the store holds none of that name."""
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


class Connected:
    """Makes sure that the sidecar has taken this worker on.

    Works around `LOCKED_UP`: the queued turn holds the lock of its workflow and waits for a worker, the sidecar waits
    for that lock before it lets any worker in. The worker's stream is then accepted, but it is counted nowhere and is
    given no work, for ever. Only a sidecar that begins anew helps.
    """

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._patience = TAKEN_ON_SECONDS

    async def taken_on(self) -> None:
        """Returns when the sidecar counts a worker. One that counts none for long is asked to end, so that whoever
        looks after it starts it again."""
        deadline, looks = time.monotonic() + self._patience, 0
        while await asyncio.to_thread(self._workers) == 0:
            looks += 1
            if looks >= _LOOKS and time.monotonic() > deadline:
                self._patience *= 2  # was it only slow?
                await asyncio.to_thread(self._end)
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _workers(self) -> int | None:
        """How many workers it counts; None when it does not say, or is of a version that does not lock up."""
        try:
            with self._daprd.client(2) as client:
                found = client.get("/v1.0/metadata").raise_for_status().json()
            if not workarounds.needed(LOCKED_UP, workarounds.parse(str(found.get("runtimeVersion")))):
                return None
            return int(found.get("workflows", {}).get("connectedWorkers", 0))  # daprd leaves out what is zero
        except (httpx.HTTPError, ValueError, AttributeError, TypeError):
            return None

    def _end(self) -> None:
        log.error("sidecar %s has locked up and gives this worker no work; it is asked to end", self._daprd.http)
        try:
            # At once: what it would wait for is what it is locked up with, and all that matters is in the state store.
            with self._daprd.client(5) as client:
                client.post("/v1.0/shutdown", headers={"dapr-force-shutdown": "true"}).raise_for_status()
        except httpx.HTTPError as error:
            log.error("sidecar %s does not end (%s): start it again", self._daprd.http, type(error).__name__)
