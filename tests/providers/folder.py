"""A copy of the parts of the project that a switch reads and writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.paths import ROOT


def copy_project(tmp_path: Path, **secrets: str) -> Path:
    """A project's folder with components/, config/ and the secrets that are given."""
    folder = tmp_path / "project"
    for name in ("components", "config"):
        shutil.copytree(ROOT / name, folder / name)
    if secrets:
        state = folder / ".state"
        state.mkdir()
        (state / "secrets.json").write_text(json.dumps({key.replace("_", "-"): text for key, text in secrets.items()}))
    return folder
