"""The words to the customer, from one data file a language. Pure but for its data files."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from sandbox.model.brain.decide import Decision

_FOLDER = Path(__file__).parent / "replies"


@lru_cache(maxsize=16)
def templates(language: str) -> Mapping[str, str]:
    """The templates of a language by their names."""
    return tomllib.loads((_FOLDER / f"{language}.toml").read_text("utf-8"))


def write_reply(decision: Decision, template: str, language: str) -> str:
    """The reply for a decision, with greeting and close."""
    texts = templates(language)
    body = texts[template].format(
        order_id=decision.order_id or "", amount=decision.amount, currency=decision.currency or ""
    )
    return f"{texts['greeting']}\n\n{body}\n\n{texts['close']}"
