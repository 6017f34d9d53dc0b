"""The only way to the internal systems: Dapr service invocation, under the sidecar's resiliency policies."""

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from app.dapr.daprd import Daprd
from app.domain.errors import FailureCause, RefundAgentError, Refused, SystemRefused, SystemUnavailable, is_final

# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them): the sidecar
# decides when to give up, this only catches one that hangs.
_GIVE_UP_SECONDS = 90
_PERSON_WAITS_SECONDS = 20


# What the sidecar itself says, with this status, of a request that it did not make.
_SIDECARS_OWN = 500
_BREAKER = (
    ("circuit breaker is open", "its circuit breaker is open"),
    ("too many requests", "its circuit breaker lets one probe through at a time"),
)
_OF_STATUS = {
    408: FailureCause.NO_ANSWER_IN_TIME,
    429: FailureCause.RATE_LIMIT,
    504: FailureCause.NO_ANSWER_IN_TIME,
    524: FailureCause.NO_ANSWER_IN_TIME,
}


class Systems(Protocol):
    """Internal systems that can be asked. Tests bring their own."""

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request. Raises Refused (it said no), SystemUnavailable (it did not answer) or SystemRefused (it will
        never answer such a request)."""
        ...


class DaprSystems:
    """Asks through the sidecar's HTTP API, which applies each system's time-out, retries and breaker."""

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends one request and returns the answer without its `ok`."""
        url = f"{self._daprd.http}/v1.0/invoke/{system}/method/{method}"
        try:
            async with self._connected().post(url, json=body) as response:
                if response.status != 200:
                    raise _failed(system, method, response.status, await response.text())
                answer = await response.json()
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            cause = FailureCause.SIDECAR_GONE if isinstance(error, aiohttp.ClientConnectionError) else None
            raise SystemUnavailable(
                f"{system}/{method}: {type(error).__name__} at the sidecar {self._daprd.http}; it is tried again later",
                cause=FailureCause.NO_ANSWER_IN_TIME if isinstance(error, TimeoutError) else cause,
            ) from None
        return _accepted(system, method, answer)

    async def close(self) -> None:
        """Ends the connections to the sidecar."""
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> aiohttp.ClientSession:
        """The session belongs to the event loop that first asks, so it cannot be made earlier."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=self._daprd.headers,
                timeout=aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS),
            )
        return self._session


def ask_at_once(daprd: Daprd, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request from a thread that waits for it, as a person does. Raises as `Systems.ask`."""
    import httpx

    try:
        with daprd.client(_PERSON_WAITS_SECONDS) as client:
            response = client.post(f"/v1.0/invoke/{system}/method/{method}", json=body)
            answer = response.json() if response.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as error:
        cause = FailureCause.SIDECAR_GONE if isinstance(error, httpx.TransportError) else None
        raise SystemUnavailable(
            f"{system}/{method}: {type(error).__name__} at the sidecar {daprd.http}; try again",
            cause=FailureCause.NO_ANSWER_IN_TIME if isinstance(error, httpx.TimeoutException) else cause,
        ) from None
    if answer is None:
        raise _failed(system, method, response.status_code, response.text)
    return _accepted(system, method, answer)


def _failed(system: str, method: str, status: int, text: str) -> RefundAgentError:
    if is_final(status):
        return SystemRefused(
            f"{system}/{method}: the system refuses the request with status {status}; "
            f"check its address in components/systems.yaml, and what it lets this agent do; then `task resume`"
        )
    refused = next((words for sign, words in _BREAKER if status == _SIDECARS_OWN and sign in text), None)
    return SystemUnavailable(
        f"{system}/{method}: {refused or f'status {status}'}; it is tried again later",
        cause=FailureCause.BREAKER_OPEN if refused else _OF_STATUS.get(status),
    )


def _accepted(system: str, method: str, answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise SystemUnavailable(f"{system}/{method}: the answer is not one we understand; it is tried again later")
    if not answer["ok"]:
        reason = str(answer.get("code", "refused"))
        raise Refused(f"{system}/{method} refuses: {reason}", reason=reason)
    return {key: value for key, value in answer.items() if key != "ok"}
