"""A sidecar that takes no worker on is asked to end; one that is only asked too early is left alone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import httpx
import pytest

from app.dapr import sidecar
from app.dapr.daprd import Daprd
from app.dapr.sidecar import WorkerConnection
from app.dapr.workarounds import LOCKED_UP, REJECTED_RUNS


class Sidecar(WorkerConnection):
    """Counts workers as it is told; the last word stays."""

    def __init__(self, *counts: int | None) -> None:
        super().__init__(Daprd("http://127.0.0.1:1", "127.0.0.1:1", ""))
        self.counts = list(counts)
        self.looks = 0
        self.ended = 0

    def _workers(self) -> int | None:
        self.looks += 1
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]

    def _end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("counts", [(1,), (0, 1), (0, 0, 0, 1), (None,), (0, None)])
def test_one_that_is_well_is_left_alone_however_slow_this_process_is(
    counts: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "COUNTED_WITHIN_SECONDS", 0.0)
    well = Sidecar(*counts)
    asyncio.run(well.ensure_connected())
    assert (well.ended, well.looks) == (0, len(counts))


def test_one_that_has_locked_up_is_asked_to_end_and_given_more_time_the_next_time() -> None:
    stuck = Sidecar(0)
    asyncio.run(stuck.ensure_connected())
    first = stuck.looks
    asyncio.run(stuck.ensure_connected())
    assert stuck.ended == 2
    assert 4 <= first < stuck.looks - first


@dataclass
class Metadata:
    """What a sidecar tells of itself; no connected worker."""

    version: object = "1.18.2"
    status: int = 200


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Metadata:
    """Every sidecar tells this."""
    metadata = Metadata()

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1.0/metadata"
        return httpx.Response(metadata.status, text=json.dumps({"id": "agent", "runtimeVersion": metadata.version}))

    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(Daprd, "client", lambda *_: httpx.Client(base_url="http://daprd", transport=transport))
    return metadata


DAPRD = Daprd("http://127.0.0.1:1", "127.0.0.1:1", "")


@pytest.mark.parametrize(
    ("version", "locks_up", "condemns"),
    [
        ("1.18.2", True, True),
        ("1.18.4", True, False),
        ("1.19.0", False, False),
        ("edge", True, True),
        (None, True, True),
    ],
)
def test_a_defect_is_expected_where_the_running_version_may_have_it(
    told: Metadata, version: object, *, locks_up: bool, condemns: bool
) -> None:
    told.version = version
    assert (sidecar.needs(DAPRD, LOCKED_UP), sidecar.needs(DAPRD, REJECTED_RUNS)) == (locks_up, condemns)
    assert WorkerConnection(DAPRD)._workers() == (0 if locks_up else None)


def test_a_sidecar_that_does_not_tell_may_have_every_defect(told: Metadata) -> None:
    assert sidecar.version(DAPRD) == "1.18.2"
    told.version, told.status = "1.19.0", 500
    assert sidecar.version(DAPRD) == ""
    assert sidecar.needs(DAPRD, REJECTED_RUNS)
    assert WorkerConnection(DAPRD)._workers() is None


def test_one_that_is_not_there_tells_no_version() -> None:
    for address in ("http://127.0.0.1:1", "", "http://["):
        assert sidecar.version(Daprd(address, "", "")) == ""
