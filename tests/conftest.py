"""Fixtures that more than one room's tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.live import Live, make_stack, repeat_model_calls

# No deadline per example: its duration depends on how busy the machine is.
settings.register_profile("patient", deadline=None, suppress_health_check=(HealthCheck.too_slow,))
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--cluster`, because the cluster's tests change the cluster and must be requested."""
    parser.addoption("--cluster", action="store_true", help="run the tests of the cluster that kubectl is set to")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignores the cluster's tests without `--cluster`."""
    return True if collection_path.name == "cluster" and not config.getoption("--cluster") else None


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One running product for all tests that only send tickets and faults, and end their faults."""
    with make_stack(tmp_path_factory.mktemp("shared")) as stack:
        live = Live(stack)
        yield live
        live.close()


@pytest.fixture
def live(shared_stack: Live) -> Iterator[Live]:
    """The shared product, healthy before and after."""
    yield shared_stack
    if shared_stack.stack.alive("sandbox"):
        shared_stack.heal()


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Live]:
    """A separate product, for tests that kill processes."""
    with make_stack(tmp_path) as stack:
        live = Live(stack)
        yield live
        live.close()


@pytest.fixture
def repeating_stack(tmp_path: Path) -> Iterator[Live]:
    """A separate product whose sidecar repeats model calls."""
    with repeat_model_calls(make_stack(tmp_path)) as stack:
        live = Live(stack)
        yield live
        live.close()
