"""Parts begin in their order and end in the opposite one, also when a later one cannot begin."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from app import bootstrap
from app.config.settings import Settings
from app.domain.errors import ConfigurationError
from app.worker import process

SETTINGS = Settings(policy_file=Path("config/policy.yaml"))


class Named:
    """A part that tells what becomes of it."""

    def __init__(self, name: str, told: list[str], trouble: Exception | None = None) -> None:
        self._name, self._told, self._trouble = name, told, trouble

    def start(self) -> None:
        """Begins, or cannot."""
        if self._trouble:
            raise self._trouble
        self._told.append(f"start {self._name}")

    def stop(self) -> None:
        """Ends."""
        self._told.append(f"stop {self._name}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened. The process itself is left as it is."""
    told: list[str] = []

    def open_all(_settings: Settings, ends: ExitStack) -> Any:
        ends.callback(told.append, "close")
        return Mock()

    monkeypatch.setattr(bootstrap, "open_all", open_all)
    for name in ("log_to_stderr", "freeze_loaded_objects"):
        monkeypatch.setattr(process, name, Mock())
    monkeypatch.setattr(process, "wait_for_stop_signal", lambda: told.append("told to stop"))
    return told


def serve(parts: Sequence[Named], monkeypatch: pytest.MonkeyPatch) -> None:
    """Serves with these parts."""
    monkeypatch.setattr(bootstrap, "make_agent", lambda *_: bootstrap.Agent(Mock(), Mock(url="http://here"), parts))
    bootstrap.serve(SETTINGS)


def test_who_began_last_ends_first(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    serve([Named("worker", told), Named("web", told)], monkeypatch)
    assert told == ["start worker", "start web", "told to stop", "stop web", "stop worker", "close"]


def test_what_has_begun_is_ended_when_a_later_part_cannot_begin(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = ConfigurationError("port 8088 is taken")
    with pytest.raises(ConfigurationError, match="port 8088"):
        serve([Named("worker", told), Named("web", told, taken)], monkeypatch)
    assert told == ["start worker", "stop worker", "close"]
