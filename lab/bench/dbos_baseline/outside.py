"""DBOS's calls to model and systems over pooled connections: one client for coroutines, one for threads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import urllib3

from lab.bench.dbos_baseline.work import Json

_SECONDS = 90.0
_KEY = {"Authorization": "Bearer sandbox"}
_JSON = {"Content-Type": "application/json"}


class CallFailed(Exception):
    """Model or system gave an error; DBOS retries the step."""


@dataclass(frozen=True)
class Addresses:
    """The URLs of model server and internal systems."""

    model: str
    systems: str

    @property
    def completions(self) -> str:
        """The URL of the model's chat completions."""
        return f"{self.model}/v1/chat/completions"

    def method(self, system: str, name: str) -> str:
        """The URL of a method of a system."""
        return f"{self.systems}/{system}/{name}"


class Coroutines:
    """Calls for workflows that are coroutines."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None

    async def model(self, request: Json) -> Json:
        """One model call. Raises CallFailed."""
        return await self._post(self._addresses.completions, request, _KEY)

    async def system(self, system: str, method: str, body: Json) -> Json:
        """One system call. Raises CallFailed."""
        return check_accepted(await self._post(self._addresses.method(system, method), body, {}))

    async def _post(self, url: str, body: Json, headers: dict[str, str]) -> Json:
        async with self._open_session().post(url, json=body, headers=headers) as response:
            if response.status != 200:
                raise CallFailed(f"{url} answers {response.status}")
            return cast(Json, await response.json())

    def _open_session(self) -> aiohttp.ClientSession:
        """The session, opened at the first call, since it belongs to the event loop that opens it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_SECONDS)
            )
        return self._session


class Threads:
    """Calls for workflows that are functions in threads."""

    def __init__(self, addresses: Addresses, connections: int) -> None:
        self._addresses = addresses
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=_SECONDS, retries=False)

    def model(self, request: Json) -> Json:
        """One model call. Raises CallFailed."""
        return self._post(self._addresses.completions, request, _KEY)

    def system(self, system: str, method: str, body: Json) -> Json:
        """One system call. Raises CallFailed."""
        return check_accepted(self._post(self._addresses.method(system, method), body, {}))

    def _post(self, url: str, body: Json, headers: dict[str, str]) -> Json:
        response = self._pool.request("POST", url, body=json.dumps(body), headers=_JSON | headers)
        if response.status != 200:
            raise CallFailed(f"{url} answers {response.status}")
        return cast(Json, json.loads(response.data))


def check_accepted(answer: Any) -> Json:
    """A system's answer without its `ok`. Raises CallFailed if the system refused."""
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        raise CallFailed(
            f"an internal system refused: {answer.get('code') if isinstance(answer, dict) else 'no object'}"
        )
    return {key: value for key, value in answer.items() if key != "ok"}
