"""Copies components, policies and Configuration into a folder, with other ports for the sandbox."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from runtime import paths

_LOOPBACK = re.compile(r"\b(127\.0\.0\.1|localhost):(\d+)\b")


def render(folder: Path, ports: Mapping[int, int], overlay: Mapping[str, str]) -> None:
    """Fills `folder` with components/, resiliency/ and config/, ready for a daprd whose working folder it is.

    `ports` maps each loopback port of the project's files to the one to use instead. `overlay` maps a
    file name of components/ to its text: it replaces the file of that name, or is added.
    """
    for source in (paths.COMPONENTS, paths.RESILIENCY, paths.CONFIGURATION.parent):
        target = folder / source.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(source.glob("*.yaml")):
            (target / file.name).write_text(repoint(file.read_text(), ports))
    for name, text in overlay.items():
        (folder / "components" / name).write_text(text)


def repoint(text: str, ports: Mapping[int, int]) -> str:
    """Replaces the loopback ports that `ports` names; other addresses stay as they are."""

    def replace(found: re.Match[str]) -> str:
        return f"{found[1]}:{ports.get(int(found[2]), int(found[2]))}"

    return _LOOPBACK.sub(replace, text)
