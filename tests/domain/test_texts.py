"""Texts that every store can hold: only NUL and lone surrogates are replaced."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.texts import is_storable, storable, storable_json

# Texts with NUL and lone surrogates.
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text("\0\ud83d\ude00\\u0dA8x\"'é😀", max_size=40)


def utf8(text: str) -> bool:
    """Whether the text can be encoded as UTF-8."""
    try:
        return bool(text.encode() or True)
    except UnicodeEncodeError:
        return False


@given(ANY_TEXT)
def test_every_text_has_a_form_that_can_be_stored(text: str) -> None:
    kept = storable(text)
    assert utf8(kept)
    assert "\0" not in kept
    assert len(kept) == len(text)
    assert storable(kept) == kept
    assert is_storable(text) == (kept == text) == (utf8(text) and "\0" not in text)


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)))
def test_json_reads_as_before_but_for_what_cannot_be_stored(value: object) -> None:
    raw = json.dumps(value).encode()
    read = json.loads(storable_json(raw))
    assert json.dumps(read, ensure_ascii=False).encode()
    # Python writes two adjacent lone surrogates as the escapes of one character.
    assert read == map_texts(json.loads(raw))


def map_texts(value: object) -> object:
    """The value with each of its texts in its storable form."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [map_texts(item) for item in value]
    assert isinstance(value, dict)
    return {storable(key): map_texts(item) for key, item in value.items()}


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"text": "\\u0000"}',  # a backslash, and four digits
        rb'{"text": "\ud83d\ude00 \u00e9 \n", "amount": 49.90000000000000000001}',
        '{"text": "é😀"}'.encode(),
    ],
)
def test_storable_json_is_not_changed(raw: bytes) -> None:
    assert storable_json(raw) == raw
