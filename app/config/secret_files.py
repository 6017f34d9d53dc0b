"""Reads and writes files with secrets: generated tokens, and Dapr's local secret store. Standard library only, since
`runtime/` uses it before anything is installed.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


class UnreadableSecrets(Exception):
    """daprd could not read the secrets file. `problem` names the file and the place, `remedy` says what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def read_secrets(path: Path) -> dict[str, Any]:
    """The secrets of the local secret store by name; none if there is no file. Raises UnreadableSecrets, OSError."""
    try:
        by_name = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError as error:
        remedy = "correct the file, which is one JSON object of names and values"
        raise UnreadableSecrets(f"{path}:{error.lineno}: {error.msg}", remedy) from None
    except UnicodeDecodeError as error:
        raise UnreadableSecrets(f"{path}: byte {error.start + 1} is not UTF-8 text", "save it as UTF-8") from None
    if not isinstance(by_name, dict):
        raise UnreadableSecrets(f"{path}: is not a JSON object", 'write {"name": "value"}')
    return by_name


def is_sendable(token: str) -> bool:
    """Whether a token can be sent in an HTTP header: printable ASCII without a space."""
    return token.isascii() and token.isprintable() and " " not in token


def write_once(path: Path, secret: str) -> None:
    """Writes a secret into a file that only its owner can read (mode 0600), unless the file exists already.

    The file is created atomically with its content, and never replaces the file of another process.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secret}\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
