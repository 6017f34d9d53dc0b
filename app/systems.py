"""The only way to the internal systems: Dapr service invocation, under the sidecar's resiliency policies."""

from __future__ import annotations

from typing import Any, Protocol

import aiohttp

from app.errors import Refused, SystemUnavailable

# Longer than the sidecar's own worst case (three tries of 15 s and the pauses between them): the sidecar
# decides when to give up, this only catches one that hangs.
_GIVE_UP_SECONDS = 90


class Systems(Protocol):
    """Internal systems that can be asked. Tests bring their own."""

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request. Raises Refused (it said no) or SystemUnavailable (it did not answer)."""
        ...


class DaprSystems:
    """Asks through the sidecar's HTTP API, which applies each system's time-out, retries and breaker."""

    def __init__(self, sidecar: str) -> None:
        self._sidecar = sidecar
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends one request and returns the answer without its `ok`."""
        url = f"{self._sidecar}/v1.0/invoke/{system}/method/{method}"
        try:
            async with self._connected().post(url, json=body) as response:
                if response.status != 200:
                    raise SystemUnavailable(_failure(system, method, response.status, await response.text()))
                answer = await response.json()
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise SystemUnavailable(
                f"{system}/{method}: {type(error).__name__} at the sidecar {self._sidecar}; it is tried again later"
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
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_GIVE_UP_SECONDS)
            )
        return self._session


def _failure(system: str, method: str, status: int, text: str) -> str:
    cause = "its circuit breaker is open" if "circuit breaker is open" in text else f"status {status}"
    return f"{system}/{method}: {cause}; it is tried again later"


def _accepted(system: str, method: str, answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise SystemUnavailable(f"{system}/{method}: the answer is not one we understand; it is tried again later")
    if not answer["ok"]:
        code = str(answer.get("code", "refused"))
        raise Refused(f"{system}/{method} refuses: {code}", code=code)
    return {key: value for key, value in answer.items() if key != "ok"}
