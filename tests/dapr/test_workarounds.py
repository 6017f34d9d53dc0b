"""Which workarounds are on with which version of Dapr. With an unknown version, they are on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from app.dapr import workarounds
from app.dapr.sdk_version import sdk_version
from app.dapr.workarounds import (
    ALL,
    PATCHED,
    SUPPORTED,
    Component,
    Version,
    Workaround,
    active,
    is_needed,
    is_untested,
    parse,
)
from runtime import programs
from runtime.go_build import DAPR
from tests.paths import ROOT

DAPRD = [workaround for workaround in ALL if workaround.component is Component.DAPRD]
SDK = [workaround for workaround in ALL if workaround.component is Component.SDK]
DESIGN = (ROOT / "docs" / "design.md").read_text()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.18.2", Version(1, 18, 2)),
        ("v1.18.12\n", Version(1, 18, 12)),
        ("1.18.4-rc.1", Version(1, 18, 4, final=False)),
        ("1.19.0rc2", Version(1, 19, 0, final=False)),
        ("edge", None),
        ("1.18", None),
        ("", None),
        (None, None),
    ],
)
def test_versions_are_parsed_as_programs_report_them(text: str | None, version: Version | None) -> None:
    assert parse(text) == version


@pytest.mark.parametrize("workaround", DAPRD, ids=lambda workaround: workaround.name)
def test_a_workaround_is_off_from_the_release_that_fixes_its_defect(workaround: Workaround) -> None:
    fixed_in = workaround.fixed_in
    assert fixed_in is not None
    assert is_needed(workaround, Version(1, 18, 2))
    assert is_needed(workaround, fixed_in._replace(final=False)), "a pre-release may lack the fix"
    assert is_needed(workaround, None), "an unknown version may have the defect"
    assert not is_needed(workaround, fixed_in)
    assert not is_needed(workaround, fixed_in._replace(patch=fixed_in.patch + 1))


def test_each_version_switches_off_the_workarounds_that_it_fixes() -> None:
    until_1_19 = {"locked-up sidecar", "tool choice"}
    left = {
        "1.18.2": {"torn history", "false tampering verdict", "run never started", "lost metrics", *until_1_19},
        "1.18.3": {"false tampering verdict", "run never started", "lost metrics", *until_1_19},
        "1.18.4": {"lost metrics", *until_1_19},
        "1.18.5": until_1_19,
        "1.18.6": until_1_19,
        "1.19.0": set(),
    }
    for version, names in left.items():
        assert {workaround.name for workaround in active(Component.DAPRD, parse(version))} == names, version


@pytest.mark.parametrize("workaround", SDK, ids=lambda workaround: workaround.name)
def test_a_patch_is_on_for_the_sdks_it_was_written_for_and_for_no_later_one(workaround: Workaround) -> None:
    for version in (None, PATCHED.least, Version(1, 19, 0)):
        assert is_needed(workaround, version)
        assert not is_untested(workaround, version)
    for version in (PATCHED.below, PATCHED.below._replace(final=False), Version(2, 0, 0)):
        assert not is_needed(workaround, version)
        assert is_untested(workaround, version)
    fixed_in = replace(workaround, fixed_in=Version(1, 18, 9))
    assert is_needed(fixed_in, Version(1, 18, 8))
    for version in (Version(1, 18, 9), PATCHED.below):
        assert not is_needed(fixed_in, version)
        assert not is_untested(fixed_in, version)


def test_the_installed_sdk_is_one_that_the_patches_were_written_for() -> None:
    assert sdk_version() in PATCHED, "try every patch of app/dapr/sdk_patches.py with it, then raise PATCHED"


def test_the_runtime_that_is_found_or_built_is_one_that_the_agent_runs_with() -> None:
    for number in ("1.18.2", "1.18.3", "1.18.6", "1.18.40"):
        assert parse(number) in SUPPORTED
        assert programs._RUNTIME_RANGE.holds(tuple(map(int, number.split("."))))  # type: ignore[arg-type]
    for number in ("1.18.1", "1.18.2-rc.1", "1.17.9", "1.19.0", "1.19.0-rc.1", "edge"):
        assert parse(number) not in SUPPORTED
    version_range = programs._RUNTIME_RANGE
    assert (version_range.least, version_range.below) == (SUPPORTED.least[:3], SUPPORTED.below[:3])
    assert parse(DAPR.version) in SUPPORTED


def test_each_row_says_in_one_sentence_what_goes_wrong() -> None:
    assert len({workaround.name for workaround in ALL}) == len(ALL)
    for workaround in ALL:
        assert re.fullmatch(r"[A-Z][^.]+\.", workaround.trouble), workaround.name
        assert re.fullmatch(r"((dapr|python-sdk|components-contrib)#\d+)?", workaround.issue), workaround.name


def test_the_documented_table_equals_the_module() -> None:
    row = r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| (daprd|Python SDK) \| ([^|]+) \|$"
    rows = [
        (
            workaround.name,
            workaround.trouble,
            workaround.issue or "none known",
            workaround.component.value,
            str(workaround.fixed_in or "no release yet"),
        )
        for workaround in ALL
    ]
    assert re.findall(row, DESIGN, re.MULTILINE) == rows


def test_the_changes_of_each_version_with_a_fix_are_documented() -> None:
    section = DESIGN.partition("\n## What the next Dapr versions change for us\n")[2].partition("\n## ")[0]
    paragraphs = {
        match[1]: " ".join(match[2].lower().split()) for match in re.finditer(r"\*\*(\S+)\*\* ([^*]+)", section)
    }
    assert list(paragraphs) == ["1.18.3", "1.18.4", "1.18.5", "1.18.6", "1.19"]
    for workaround in (*ALL, *workarounds.SECURITY):
        versions = [version for version, paragraph in paragraphs.items() if workaround.name in paragraph]
        assert versions == ([str(workaround.fixed_in).removesuffix(".0")] if workaround.fixed_in else []), (
            workaround.name
        )
