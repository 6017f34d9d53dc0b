"""The document describes exactly the keys of the experiment's JSON."""

from __future__ import annotations

import re

from lab.crash_cost.views import CrashCostView
from tests.cli.test_documented_keys import keys
from tests.paths import ROOT

DOCUMENT = ROOT / "docs" / "crash-cost.md"


def test_keys_and_document_agree() -> None:
    section = DOCUMENT.read_text().split("## JSON\n")[1]
    described = set(re.findall(r"`([a-z_]+)`", section))
    assert set(keys(CrashCostView)) == described


def test_the_figure_of_the_document_exists() -> None:
    (name,) = re.findall(r"!\[[^]]+\]\(([\w.-]+\.svg)\)", DOCUMENT.read_text())
    assert (DOCUMENT.parent / name).read_text().startswith("<svg")
