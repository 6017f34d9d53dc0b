"""Makes the state folder with what must be in it before anything starts; only its owner can read it."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

from app.config.private_files import private_folder, told
from runtime.problems import Problem

# Without it daprd answers nobody; the agent reads it there too (`app/config/settings.py`).
API_TOKEN_FILE = "sidecar-token"  # noqa: S105 - the name of a file, not a secret
_LEAST_CHARACTERS = 32


def prepare(state: Path) -> None:
    """Makes the folder, the sidecar's token, and an empty secrets file for Dapr's local secret store where they are not
    there."""
    if opened := private_folder(state):
        print(f"note: {told(opened)}", file=sys.stderr, flush=True)
    api_token(state)
    check_secrets(state)
    secrets_file = state / "secrets.json"
    if not secrets_file.exists():
        secrets_file.touch(mode=0o600)
        secrets_file.write_text("{}\n")


def check_secrets(state: Path) -> None:
    """Raises `Problem` for a secrets file that daprd could not read: it would end with it, and the agent too."""
    path = state / "secrets.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError as error:
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        why = error.msg if isinstance(error, json.JSONDecodeError) else "no UTF-8 text"
        raise Problem(
            f"{place}: {why}.", remedy="Correct the file; it is one JSON object of names and values."
        ) from None
    if not isinstance(known, dict):
        raise Problem(f"{path}: no JSON object.", remedy='Write {"name": "value"}.')


def api_token(state: Path) -> str:
    """The token between the app and its sidecar: random, made once. Raises `Problem` when the file holds none."""
    path = state / API_TOKEN_FILE
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(_LEAST_CHARACTERS))
    token = path.read_text(errors="replace").strip()
    if len(token) < _LEAST_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise Problem(f"{path} holds no token.", remedy="Remove it and start again; nothing else depends on it.")
    return token


def _write_once(path: Path, token: str) -> None:
    """The file appears with its content or not at all, and never replaces what another process has just made."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{token}\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
