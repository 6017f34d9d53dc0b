"""Redaction removes addresses, cards, accounts and keys, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.redaction import redact


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to jane.doe+x@mail.example.com now", "write to [e-mail] now"),
        ("card 4111 1111 1111 1111, thanks", "card [card], thanks"),
        ("card 4111-1111-1111-1111.", "card [card]."),
        ("5500005555555559", "[card]"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [bank account] please"),
        ("key sk-abcdefghijklmnop1234", "key [secret]"),
        ("tracking 4111111111111112", "tracking 4111111111111112"),
        ("order AC-10442 on 2024-05-06 for 49.90", "order AC-10442 on 2024-05-06 for 49.90"),
        ("phone 555 0100", "phone 555 0100"),
    ],
)
def test_each_kind(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def luhn_complete(head: str) -> str:
    """`head` with its Luhn check digit."""
    digits = [int(character) for character in head]
    total = sum(sum(divmod(2 * digit, 10)) for digit in digits[::-2]) + sum(digits[-2::-2])
    return head + str(-total % 10)


@given(st.text(alphabet="0123456789", min_size=12, max_size=18), st.text(max_size=20))
def test_no_card_number_survives(head: str, around: str) -> None:
    card = luhn_complete(head)
    frame = "".join(character for character in around if not character.isdigit())
    assert card not in redact(f"{frame} {card} {frame}")


ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")  # what an address is, in few words and with much work


@given(st.text(alphabet="ab@.+-_ é\n1", max_size=60))
def test_every_address_is_found_and_nothing_else(text: str) -> None:
    assert redact(text) == ADDRESS.sub("[e-mail]", text)
