"""Reading YAML files: every mistake is an error that names its line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import Field

from app.config import yaml_file
from app.domain.errors import ConfigurationError
from app.domain.models import Frozen


class Part(Frozen):
    """A part of the test's file."""

    name: str
    size: int = Field(ge=0)


class Whole(Frozen):
    """The whole of the test's file."""

    parts: tuple[Part, ...]


GOOD = "parts:\n  - name: a\n    size: 1\n  - name: b\n    size: 2\n"


def read(folder: Path, text: str) -> yaml_file.Document[Whole]:
    file = folder / "whole.yaml"
    file.write_text(text)
    return yaml_file.read(file, Whole, remedy="write one")


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        read(folder, text)
    return str(error.value).removeprefix(f"{folder}/")


def test_each_part_knows_its_line(tmp_path: Path) -> None:
    document = read(tmp_path, GOOD)
    assert document.value.parts[1].name == "b"
    assert document.where("parts", 1, "size") == f"{tmp_path}/whole.yaml:5"
    assert document.where("parts", 1, "colour") == f"{tmp_path}/whole.yaml:4"
    assert document.where("parts", 7) == f"{tmp_path}/whole.yaml:1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size: 2", "size: -2", "whole.yaml:5: parts.1.size: Input should be greater than or equal to 0"),
        ("size: 2", "size: 2\n    colour: red", "whole.yaml:6: parts.1.colour: unknown key"),
        ("    size: 2\n", "", "whole.yaml:4: parts.1.size: Field required"),
        ("size: 2", "size: 2\n    size: 3", "whole.yaml:6: not valid YAML: key size occurs twice"),
        ("size: 2", "size: 2026-02-30", "whole.yaml:5: not valid YAML: day is out of range"),
        ("parts:", "parts: !!python/object:os.system", "whole.yaml:1: not valid YAML"),
        ("parts:", "- parts", "whole.yaml:2: not valid YAML"),
        (GOOD, "[" * 5000, "whole.yaml: is nested too deep"),
        ("size: 2", "size: 010", "whole.yaml:5: not valid YAML: 010 is not a plain decimal number"),
        ("size: 2", "size: +2", "whole.yaml:5: not valid YAML: +2 is not a plain decimal number"),
        (
            "size: 2",
            "size: " + "9" * 5000,
            "whole.yaml:5: not valid YAML: 9999999999999999999999999999999999999999… has",
        ),
        (
            "size: 2",
            "size: !!timestamp x",
            "whole.yaml:5: not valid YAML: 'x' does not fit the tag timestamp; write",
        ),
        (
            "size: 2",
            "size: !!bool x",
            "whole.yaml:5: not valid YAML: 'x' does not fit the tag bool; write",
        ),
        ("size: 2", 'size: !!int ""', "whole.yaml:5: not valid YAML"),
        ("size: 2", "size: !!float x", "whole.yaml:5: not valid YAML"),
        ("size: 2", "size: !!binary x", "whole.yaml:5: not valid YAML"),
        ("size: 2", "size: !ours x", "whole.yaml:5: not valid YAML"),
        ("size: 2", "size: 2\n---\nparts: []", "whole.yaml: contains 2 documents; keep the first"),
        ("size: 2", "size: 2\0", "whole.yaml:5: is not text in UTF-8"),
        ("parts:", "parts: &a [*a]\nold:", "whole.yaml:1: refers to itself; write it out"),
        (
            GOOD,
            "a: &a [1, 1, 1]\n" + "".join(f"{n}: &{n} [*{o}, *{o}, *{o}]\n" for o, n in pairwise("abcdefghijklmn")),
            "whole.yaml:11: its aliases expand to too many parts; write it out",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    assert complaint(tmp_path, GOOD.replace(old, new)).startswith(said)


def test_a_missing_file_has_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file or directory; write one"):
        yaml_file.read(tmp_path / "none.yaml", Whole, remedy="write one")


@pytest.mark.parametrize("text", ["0", "15", "-3", "0.40", "2026-11-20", "0.2.3", "30s", "::1", '"1e3"', "08:30"])
def test_plain_numbers_and_what_only_looks_like_one_are_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "whole.yaml"
    file.write_text(f"a: {text}\n---\nb: {text}\n")
    assert len(yaml_file.documents(file)) == 2
