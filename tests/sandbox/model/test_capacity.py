"""A model server that serves so many requests at once and so many a minute."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from .conftest import Served

CHAT = "/v1/chat/completions"


def test_requests_wait_for_each_other(served: Served, chat: dict[str, Any]) -> None:
    served.call("PUT", "/capacity", {"concurrent": 1})
    served.call("PUT", "/latency", {"seconds": 0.1})
    started = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        statuses = list(pool.map(lambda _: served.call("POST", CHAT, chat)[0], range(5)))
    assert statuses == [200] * 5
    assert time.monotonic() - started >= 0.5


def test_beyond_the_minute_is_429_with_the_time_to_wait_and_costs_nothing(served: Served, chat: dict[str, Any]) -> None:
    served.call("PUT", "/capacity", {"requests_per_minute": 2})
    assert [served.call("POST", CHAT, chat)[0] for _ in range(2)] == [200, 200]
    served.now += timedelta(seconds=15)
    status, body = served.call("POST", CHAT, chat)
    assert status == 429
    assert "try again in 45.000s" in body["error"]["message"]
    assert [row["billed"] for row in served.bill()] == [True, True, False]
    served.now += timedelta(seconds=45)
    assert served.call("POST", CHAT, chat)[0] == 200


def test_a_capacity_that_is_none_is_refused_and_the_old_one_stays(served: Served) -> None:
    served.call("PUT", "/capacity", {"concurrent": 3})
    wrong: object
    for wrong in ({"concurrent": 0}, {"parallel": 1}, []):
        status, body = served.call("PUT", "/capacity", wrong)
        assert status == 400, body
    assert served.call("GET", "/capacity") == (200, {"concurrent": 3, "requests_per_minute": None})
