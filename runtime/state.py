"""Makes the state folder with what must be in it before anything starts; only its owner can read it."""

from __future__ import annotations

from pathlib import Path


def prepare(state: Path) -> None:
    """Makes the folder, and an empty secrets file for Dapr's local secret store when there is none."""
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    secrets = state / "secrets.json"
    if not secrets.exists():
        secrets.touch(mode=0o600)
        secrets.write_text("{}\n")
