"""The consumer of events as the outbox's side knows it: an address that takes one event in a request."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from sandbox.systems.dispatcher import Deliver, NotDelivered
from sandbox.systems.outbox import Event

GIVE_UP_SECONDS = 5.0
CONTENT_TYPE = "application/cloudevents+json"


@asynccontextmanager
async def consumer(url: str, give_up_seconds: float = GIVE_UP_SECONDS) -> AsyncIterator[Deliver]:
    """Posts events to `url`; only the answer `"ok": true` says that one was taken."""
    limit = aiohttp.ClientTimeout(total=give_up_seconds)
    async with aiohttp.ClientSession(timeout=limit) as session:

        async def deliver(event: Event) -> None:
            body = json.dumps(event.message())
            try:
                async with session.post(url, data=body, headers={"Content-Type": CONTENT_TYPE}) as response:
                    _check(response.status, await response.json() if response.status == 200 else None)
            except (TimeoutError, aiohttp.ClientError, ValueError) as error:
                raise NotDelivered(f"{type(error).__name__} at {url}") from None

        yield deliver


def _check(status: int, answer: Any) -> None:
    if status != 200:
        raise NotDelivered(f"status {status}")
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        raise NotDelivered("an answer without ok")
