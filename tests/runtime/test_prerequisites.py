"""Each missing prerequisite is reported with its remedy."""

from __future__ import annotations

import collections
import sys

import pytest

from runtime import prerequisites, programs
from runtime.errors import UserError
from runtime.prerequisites import Check, require

Usage = collections.namedtuple("Usage", "total used free")


def test_this_machine_has_what_is_needed() -> None:
    checks = prerequisites.checks()
    assert [check.name for check in checks] == [
        "system",
        "python",
        "virtual environment",
        "make",
        "Dapr",
        "Go",
        "disk",
    ]
    assert [check for check in checks if not check.ok] == []


def test_all_failures_are_reported_together_with_their_remedies() -> None:
    results = [Check("a", False, "1", "Do x."), Check("b", True, "2"), Check("c", False, "3", "Do y.")]
    with pytest.raises(UserError) as caught:
        require(results)
    assert str(caught.value).splitlines() == ["a: 1. Do x.", "c: 3. Do y."]
    require([Check("b", True, "2")])


def test_an_old_python_is_reported_with_how_to_choose_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2, "final", 0))
    (python,) = [check for check in prerequisites.checks() if check.name == "python"]
    assert not python.ok
    assert "make PYTHON=python3.11" in python.remedy


def test_a_full_disk_says_how_much_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**12, 10**12, 2 * 1024**3))
    monkeypatch.setattr(programs, "find", lambda: ({}, []))
    disk = prerequisites.checks()[-1]
    assert not disk.ok
    assert "2.0 GB free" in disk.found
    assert disk.remedy.startswith("Free ")


def test_missing_programs_are_announced_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda: ({}, []))
    (dapr,) = [check for check in prerequisites.checks() if check.name == "Dapr"]
    assert dapr.ok
    assert "will be built from the pinned sources" in dapr.found
