"""Prepares the state folder before anything starts: the sidecar's token and the secrets file, readable by the owner."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from app.config.private_files import exposure_warning, private_folder
from app.config.secret_files import UnreadableSecrets, is_sendable, read_secrets, write_once
from runtime.errors import UserError

# daprd requires this token from its callers; the agent reads it from the same file (`app/config/settings.py`).
API_TOKEN_FILE = "sidecar-token"  # noqa: S105 - the name of a file, not a secret
_LEAST_CHARACTERS = 32


def prepare(state: Path) -> None:
    """Makes the folder, the sidecar's token, and an empty file for Dapr's local secret store, unless they exist."""
    if opened := private_folder(state):
        print(f"note: {exposure_warning(opened)}", file=sys.stderr, flush=True)
    api_token(state)
    check_secrets(state)
    secrets_file = state / "secrets.json"
    if not secrets_file.exists():
        secrets_file.touch(mode=0o600)
        secrets_file.write_text("{}\n")


def check_secrets(state: Path) -> None:
    """Raises UserError for a secrets file that daprd cannot read: daprd would end because of it, and the agent too."""
    try:
        read_secrets(state / "secrets.json")
    except UnreadableSecrets as error:
        raise UserError(f"{error.problem}.", remedy=f"{error.remedy[0].upper()}{error.remedy[1:]}.") from None


def api_token(state: Path) -> str:
    """The token between app and sidecar, made at random if missing. Raises `UserError` for a file without a token."""
    path = state / API_TOKEN_FILE
    if not path.exists():
        write_once(path, secrets.token_urlsafe(_LEAST_CHARACTERS))
    token = path.read_text(errors="replace").strip()
    if len(token) < _LEAST_CHARACTERS or not is_sendable(token):
        raise UserError(
            f"{path} holds no valid token.", remedy="Remove this file and start again; a new token is made."
        )
    return token
