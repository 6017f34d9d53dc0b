"""The tokens in the local secret store's file: read whole, changed under a lock, written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.domain.errors import ConfigurationError
from app.tasks.access import TOKENS_SECRET, Token, parse_tokens

Change = Callable[[tuple[Token, ...]], tuple[Token, ...]]


def tokens_in(path: Path) -> tuple[Token, ...]:
    """The tokens that the file gives. Raises ConfigurationError for a file that is not ours to read or change."""
    return _tokens(secrets_in(path), path)


def change_tokens(path: Path, change: Change) -> None:
    """Replaces the tokens; all other secrets stay as they are. Raises ConfigurationError."""
    with open(path.with_name(f".{path.name}.lock"), "a", opener=_private) as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        known = secrets_in(path)
        tokens = change(_tokens(known, path))
        known.pop(TOKENS_SECRET, None)
        if tokens:
            # As text: Dapr's file store would take an object apart and give each leaf a name of its own.
            records = [token.model_dump(mode="json") for token in tokens]
            known[TOKENS_SECRET] = json.dumps({"tokens": records})
        _write(path, json.dumps(known, indent=2, ensure_ascii=False) + "\n")


def _tokens(known: dict[str, Any], path: Path) -> tuple[Token, ...]:
    text = known.get(TOKENS_SECRET)
    if text is None:
        return ()
    if not isinstance(text, str):
        raise ConfigurationError(f"{path}: {TOKENS_SECRET} is no text; write the JSON of the tokens in quotes")
    return parse_tokens(text, f"{path}: {TOKENS_SECRET}")


def secrets_in(path: Path) -> dict[str, Any]:
    """All secrets of the file by name; none without a file. Raises ConfigurationError for one that is no such file."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}; correct the file") from None
    if not isinstance(known, dict):
        raise ConfigurationError(f'{path}: is no JSON object; write {{"name": "value"}}')
    return known


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(draft, "x", encoding="utf-8", opener=_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
