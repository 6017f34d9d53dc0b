"""Token counts: exact for text, offline, and harmless for odd input."""

from __future__ import annotations

import importlib.util
import os
import socket
from pathlib import Path

import pytest

from app.llm import tokenizer


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("hello world", 2), ("Rückerstattung", 4), ("<|endoftext|>", 7), ("🙂", 1), ("\ud800 x", 2)],
)
def test_known_counts_of_o200k(text: str, expected: int) -> None:
    assert tokenizer.count(text) == expected


def test_a_message_costs_its_frame_its_role_and_its_text() -> None:
    assert tokenizer.count_message("user", "hello world") == tokenizer.MESSAGE_FRAME + 1 + 2


def test_long_texts_are_counted_as_short_ones_are() -> None:
    assert tokenizer.count("hello world " * 5000) == 2 * 5000 + 1


def test_loading_needs_no_network_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the vocabulary was asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = dict(os.environ)
    tokenizer.encoding.cache_clear()
    assert tokenizer.encoding().name == "o200k_base"
    assert dict(os.environ) == before


def test_an_altered_vocabulary_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "litellm_core_utils" / "tokenizers"
    folder.mkdir(parents=True)
    real = importlib.util.find_spec("litellm")
    assert real is not None
    spec = importlib.util.spec_from_file_location("litellm", None, submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    for file in (None, folder / tokenizer._FILE):
        if file is not None:
            file.write_bytes(b"aGVsbG8= 0\n")
        with pytest.raises(tokenizer.VocabularyMissing, match="install"):
            tokenizer.vocabulary_folder()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(tokenizer.VocabularyMissing, match="litellm is not installed"):
        tokenizer.vocabulary_folder()
