"""Requests to the internal systems, through Dapr's service invocation and under the sidecar's resiliency policies."""

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from app.dapr.daprd import Daprd
from app.domain.errors import FailureCause, RefundAgentError, Refused, SystemRefused, SystemUnavailable, is_final

# Longer than the sidecar's worst case (three tries of 15 s and the pauses between them): the sidecar decides when to
# give up, and this only catches a sidecar that hangs.
_TIMEOUT_SECONDS = 90
# For `ask_blocking`, where a person waits.
_PERSON_TIMEOUT_SECONDS = 20


# The sidecar's status and texts for a request that its circuit breaker did not let through.
_BREAKER_STATUS = 500
_BREAKER_TEXTS = (
    ("circuit breaker is open", "its circuit breaker is open"),
    ("too many requests", "its circuit breaker lets one probe through at a time"),
)
_CAUSE_OF_STATUS = {
    408: FailureCause.NO_ANSWER_IN_TIME,
    429: FailureCause.RATE_LIMIT,
    504: FailureCause.NO_ANSWER_IN_TIME,
    524: FailureCause.NO_ANSWER_IN_TIME,
}


class Systems(Protocol):
    """Access to the internal systems. Tests have their own implementation."""

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Makes one request and returns the answer without its `ok`. Raises Refused (the system said no),
        SystemUnavailable (no usable answer; a retry may help) or SystemRefused (a retry cannot help)."""
        ...


class DaprSystems:
    """Asks through the sidecar's HTTP API, which applies each system's time-out, retries and breaker."""

    def __init__(self, daprd: Daprd) -> None:
        self._daprd = daprd
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """See `Systems.ask`."""
        url = f"{self._daprd.http}/v1.0/invoke/{system}/method/{method}"
        try:
            async with self._current_session().post(url, json=body) as response:
                if response.status != 200:
                    raise _error(system, method, response.status, await response.text())
                answer = await response.json()
        except (TimeoutError, aiohttp.ClientError, ValueError, RecursionError) as error:
            cause = FailureCause.SIDECAR_GONE if isinstance(error, aiohttp.ClientConnectionError) else None
            raise SystemUnavailable(
                f"{system}/{method}: {type(error).__name__} at the sidecar {self._daprd.http}; it is tried again later",
                cause=FailureCause.NO_ANSWER_IN_TIME if isinstance(error, TimeoutError) else cause,
            ) from None
        return _answer_body(system, method, answer)

    async def close(self) -> None:
        """Closes the connections to the sidecar."""
        if self._session is not None:
            await self._session.close()

    def _current_session(self) -> aiohttp.ClientSession:
        """The HTTP session. Made at the first request, because it belongs to the event loop that is running then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=self._daprd.headers,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            )
        return self._session


def ask_blocking(daprd: Daprd, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """Makes one request and blocks the calling thread until the answer, for at most 20 s, because a person waits for
    it. Returns and raises as `Systems.ask`."""
    import httpx

    try:
        with daprd.client(_PERSON_TIMEOUT_SECONDS) as client:
            response = client.post(f"/v1.0/invoke/{system}/method/{method}", json=body)
            answer = response.json() if response.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as error:
        cause = FailureCause.SIDECAR_GONE if isinstance(error, httpx.TransportError) else None
        raise SystemUnavailable(
            f"{system}/{method}: {type(error).__name__} at the sidecar {daprd.http}; try again",
            cause=FailureCause.NO_ANSWER_IN_TIME if isinstance(error, httpx.TimeoutException) else cause,
        ) from None
    if answer is None:
        raise _error(system, method, response.status_code, response.text)
    return _answer_body(system, method, answer)


def _error(system: str, method: str, status: int, text: str) -> RefundAgentError:
    if is_final(status):
        return SystemRefused(
            f"{system}/{method}: the system refuses the request with status {status}; "
            f"check its address in components/systems.yaml, and what it lets this agent do; then `task resume`"
        )
    breaker = next((words for sign, words in _BREAKER_TEXTS if status == _BREAKER_STATUS and sign in text), None)
    return SystemUnavailable(
        f"{system}/{method}: {breaker or f'status {status}'}; it is tried again later",
        cause=FailureCause.BREAKER_OPEN if breaker else _CAUSE_OF_STATUS.get(status),
    )


def _answer_body(system: str, method: str, answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise SystemUnavailable(
            f"{system}/{method}: the answer is not a JSON object with a boolean `ok`; it is tried again later"
        )
    if not answer["ok"]:
        reason = str(answer.get("code", "refused"))
        raise Refused(f"{system}/{method} refuses: {reason}", reason=reason)
    return {key: value for key, value in answer.items() if key != "ok"}
