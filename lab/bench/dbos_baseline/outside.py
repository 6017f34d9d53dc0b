"""The peer's calls to model and systems: pooled connections, one client for coroutines and one for threads."""

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


class Failed(Exception):
    """The other side did not answer as it should; DBOS tries the step again."""


@dataclass(frozen=True)
class Addresses:
    """Where model and systems are."""

    model: str
    systems: str

    @property
    def completions(self) -> str:
        """The model's method."""
        return f"{self.model}/v1/chat/completions"

    def method(self, system: str, name: str) -> str:
        """One method of one system."""
        return f"{self.systems}/{system}/{name}"


class Coroutines:
    """For workflows that are coroutines."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None

    async def model(self, request: Json) -> Json:
        """One model call. Raises Failed."""
        return await self._post(self._addresses.completions, request, _KEY)

    async def system(self, system: str, method: str, body: Json) -> Json:
        """One system call. Raises Failed."""
        return accepted(await self._post(self._addresses.method(system, method), body, {}))

    async def _post(self, url: str, body: Json, headers: dict[str, str]) -> Json:
        async with self._connected().post(url, json=body, headers=headers) as response:
            if response.status != 200:
                raise Failed(f"{url} answers {response.status}")
            return cast(Json, await response.json())

    def _connected(self) -> aiohttp.ClientSession:
        """The session belongs to the event loop that first asks."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_SECONDS)
            )
        return self._session


class Threads:
    """For workflows that are plain functions in threads."""

    def __init__(self, addresses: Addresses, connections: int) -> None:
        self._addresses = addresses
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=_SECONDS, retries=False)

    def model(self, request: Json) -> Json:
        """One model call. Raises Failed."""
        return self._post(self._addresses.completions, request, _KEY)

    def system(self, system: str, method: str, body: Json) -> Json:
        """One system call. Raises Failed."""
        return accepted(self._post(self._addresses.method(system, method), body, {}))

    def _post(self, url: str, body: Json, headers: dict[str, str]) -> Json:
        response = self._pool.request("POST", url, body=json.dumps(body), headers=_JSON | headers)
        if response.status != 200:
            raise Failed(f"{url} answers {response.status}")
        return cast(Json, json.loads(response.data))


def accepted(answer: Any) -> Json:
    """A system's answer without its `ok`. Raises Failed when it refuses."""
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        raise Failed(f"a system refuses: {answer.get('code') if isinstance(answer, dict) else 'no object'}")
    return {key: value for key, value in answer.items() if key != "ok"}
