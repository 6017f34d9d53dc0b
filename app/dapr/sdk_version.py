"""Which Python SDK of Dapr is installed. Apart from the patches, since they cannot be loaded with every SDK."""

from __future__ import annotations

import importlib.metadata

from app.dapr.workarounds import Version, parse


def sdk_version() -> Version | None:
    """The installed one's; None where it is not known. Its workflow part is a package of its own up to 1.18, and part
    of `dapr` from 1.19 on."""
    core, own = (_installed(name) for name in ("dapr", "dapr-ext-workflow"))
    return core if core is not None and core >= Version(1, 19, 0, final=False) else own


def _installed(name: str) -> Version | None:
    try:
        return parse(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return None
