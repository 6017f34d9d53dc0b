"""The version of Dapr's Python SDK that is installed. Not in `sdk_patches`, which cannot be imported with every SDK."""

from __future__ import annotations

import importlib.metadata

from app.dapr.workarounds import Version, parse


def sdk_version() -> Version | None:
    """The version of the SDK's workflow part; None if it is unknown. The workflow part is the package
    `dapr-ext-workflow` up to 1.18, and part of `dapr` from 1.19 on."""
    core, workflow = (_installed_version(name) for name in ("dapr", "dapr-ext-workflow"))
    return core if core is not None and core >= Version(1, 19, 0, final=False) else workflow


def _installed_version(name: str) -> Version | None:
    try:
        return parse(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None
