"""A sidecar that admits no worker is ended, and a slow one is not; workarounds depend on the sidecar's version."""

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
    """A connection to a sidecar that counts these workers, one number a check; the last number stays."""

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
def test_a_healthy_sidecar_is_not_ended_even_if_this_process_is_slow(
    counts: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "COUNTED_WITHIN_SECONDS", 0.0)
    healthy = Sidecar(*counts)
    asyncio.run(healthy.ensure_connected())
    assert (healthy.ended, healthy.looks) == (0, len(counts))


def test_a_locked_up_sidecar_is_ended_and_gets_more_time_the_next_time() -> None:
    stuck = Sidecar(0)
    asyncio.run(stuck.ensure_connected())
    first = stuck.looks
    asyncio.run(stuck.ensure_connected())
    assert stuck.ended == 2
    assert 4 <= first < stuck.looks - first


@dataclass
class Metadata:
    """The metadata of a sidecar without connected workers."""

    version: object = "1.18.2"
    status: int = 200


@pytest.fixture
def metadata_answer(monkeypatch: pytest.MonkeyPatch) -> Metadata:
    """The metadata that every sidecar answers with; a test may change it."""
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
def test_a_workaround_is_needed_if_the_running_version_may_have_the_defect(
    metadata_answer: Metadata, version: object, *, locks_up: bool, condemns: bool
) -> None:
    metadata_answer.version = version
    assert (sidecar.needs(DAPRD, LOCKED_UP), sidecar.needs(DAPRD, REJECTED_RUNS)) == (locks_up, condemns)
    assert WorkerConnection(DAPRD)._workers() == (0 if locks_up else None)


def test_a_sidecar_of_unknown_version_may_have_every_defect(metadata_answer: Metadata) -> None:
    assert sidecar.version(DAPRD) == "1.18.2"
    metadata_answer.version, metadata_answer.status = "1.19.0", 500
    assert sidecar.version(DAPRD) == ""
    assert sidecar.needs(DAPRD, REJECTED_RUNS)
    assert WorkerConnection(DAPRD)._workers() is None


def test_an_unreachable_sidecar_has_no_version() -> None:
    for address in ("http://127.0.0.1:1", "", "http://["):
        assert sidecar.version(Daprd(address, "", "")) == ""
