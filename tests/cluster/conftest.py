"""The tests of this folder change the cluster that kubectl is set to: `make test-cluster` alone runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime import paths
from tests.cluster.harness import Installed, installed


@pytest.fixture(scope="module")
def local() -> Iterator[Installed]:
    """One agent on SQLite beside the sandbox."""
    with installed(paths.ROOT / "k8s" / "overlays" / "local", tokens=False) as found:
        yield found


@pytest.fixture(scope="module")
def production() -> Iterator[Installed]:
    """Two agents on PostgreSQL beside the sandbox."""
    with installed(paths.ROOT / "tests" / "cluster" / "production", tokens=True) as found:
        found.scale(2)
        yield found
