"""Removes e-mail addresses, card numbers, bank accounts and secrets from a text.

The time is linear in the length of any text, since customers and models write them.
"""

from __future__ import annotations

import re

# The search for an address begins at its @: a pattern for the part before it would start at each letter of a long word.
_AROUND_AT = re.compile(r"[\w.+@-]+")
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)+")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_SECRET = re.compile(r"\b(?:sk|pk|ghp|xox[abp])[-_][A-Za-z0-9_-]{16,}")


def redact(text: str) -> str:
    """Replaces each such value by its kind in brackets, such as `[e-mail]`."""
    if "@" in text:
        text = _AROUND_AT.sub(_addresses, text)
    text = _IBAN.sub("[bank account]", text)
    text = _SECRET.sub("[secret]", text)
    return _CARD.sub(_card, text)


def _addresses(match: re.Match[str]) -> str:
    """Replaces the addresses in a word: each @ with text before it and a domain after it."""
    before, *parts = match[0].split("@")
    pieces: list[str] = []
    for part in parts:
        domain = _DOMAIN.match(part) if before else None
        if domain:
            pieces.append("[e-mail]")
            before = part[domain.end() :]
        else:
            pieces.append(f"{before}@")
            before = part
    return "".join((*pieces, before))


def _card(match: re.Match[str]) -> str:
    """Replaces a number that passes the Luhn check; others, such as long tracking numbers, stay."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return "[card]" if (sum(doubled) + sum(digits[-1::-2])) % 10 == 0 else match[0]
