"""Version numbers are read from the output of real programs."""

from __future__ import annotations

import pytest

from runtime.programs import Range, Version, parse_version, show_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("1.18.2\n", (1, 18, 2)),
        ("CLI version: 1.16.5 \nRuntime version: n/a", (1, 16, 5)),
        ("go 1.26", (1, 26, 0)),
        ("1.19.0-rc.3", None),
        ("go1.27rc1", None),
        ("edge", None),
        ("", None),
    ],
)
def test_a_version_is_parsed(text: str, version: Version | None) -> None:
    assert parse_version(text) == version


def test_a_range_includes_its_start_and_not_its_end() -> None:
    versions = Range((1, 18, 2), (1, 19, 0))
    assert versions.holds((1, 18, 2))
    assert versions.holds((1, 18, 99))
    assert not versions.holds((1, 18, 1))
    assert not versions.holds((1, 19, 0))
    assert not versions.holds(None)
    assert str(versions) == ">= 1.18.2 < 1.19.0"


def test_a_version_is_formatted() -> None:
    assert show_version((1, 2, 3)) == "1.2.3"
    assert show_version(None) == "unknown"
