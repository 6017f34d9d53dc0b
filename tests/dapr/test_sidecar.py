"""A sidecar that takes no worker on is asked to end; one that is only asked too early is left alone."""

from __future__ import annotations

import asyncio

import pytest

from app.dapr import sidecar
from app.dapr.daprd import Daprd
from app.dapr.sidecar import Connected


class Sidecar(Connected):
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
    monkeypatch.setattr(sidecar, "TAKEN_ON_SECONDS", 0.0)
    well = Sidecar(*counts)
    asyncio.run(well.taken_on())
    assert (well.ended, well.looks) == (0, len(counts))


def test_one_that_has_locked_up_is_asked_to_end_and_given_more_time_the_next_time() -> None:
    stuck = Sidecar(0)
    asyncio.run(stuck.taken_on())
    first = stuck.looks
    asyncio.run(stuck.taken_on())
    assert stuck.ended == 2
    assert 4 <= first < stuck.looks - first
