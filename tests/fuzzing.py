"""Randomly damaged inputs for the tests of parsers; equal seeds give equal inputs."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

# Values that have broken parsers before.
NASTY: tuple[bytes, ...] = (
    *(b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xc2\xa0"),
    *(b"\r", b"\t", b"\n", b" " * 40, b"NaN", b"-Infinity", b"Infinity", b"-1", b"-0", b"1.5", b"1,234", b"1.234"),
    *(b"1e999999999", b"1e99999999999999999999", b"-1e-999999999", b"1e400", b"9" * 5000, b"0." + b"1" * 5000),
    *(b"1_000", b"0x10", b"015", b"1:30", b".inf", b"null", b"true", b"[]", b"{}", b'""', b'"', b"'", b"\\"),
    *(b"[" * 3000, b'{"a":' * 3000, b"(" * 200, b",", b";", b":", b"|", b">", b"@", b"`", b"#", b"<"),
    *(b"2026-02-30", b"0001-01-01", b"9999-12-31T23:59:59-12:00", b"0001-01-01T00:00:00+14:00", b"1795010112345"),
    *(b"!!timestamp x", b"!!float x", b"!!binary x", b"!!set {a}", b"!!python/object:os.system x", b"!x y"),
    *(b"*a", b"&a [*a]", b"<<: 1", b"? a", b"%YAML 99999999999.1\n---\n", b"- ", b"---\n", b"...\n"),
)
_PIECE = re.compile(rb"-?\d[\d.]*|\"[^\"\n]*\"|[A-Za-z_]\w*|\s+|.", re.DOTALL)


def spoilt(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs, each a valid one of `seeds` with one to four changes, mostly of a number, word or string."""
    dice = random.Random(seed)
    whole = [_PIECE.findall(valid) for valid in seeds]
    for _ in range(count):
        pieces = list(dice.choice(whole))
        for _ in range(dice.choice((1, 1, 2, 4))):
            _change(dice, pieces, whole)
        raw = b"".join(pieces)
        if dice.random() < 0.15 and raw:
            at = dice.randrange(len(raw))
            raw = dice.choice((raw[:at], raw[:at] + bytes([dice.randrange(256)]) + raw[at + 1 :]))
        yield raw


def _change(dice: random.Random, pieces: list[bytes], whole: Sequence[list[bytes]]) -> None:
    if not pieces:
        pieces.append(dice.choice(NASTY))
        return
    at = dice.randrange(len(pieces))
    match dice.randrange(6):
        case 0:
            del pieces[at : at + dice.choice((1, 1, 5))]
        case 1:
            pieces[at:at] = pieces[at : at + dice.choice((1, 3, 20))]
        case 2:
            pieces.insert(at, dice.choice(NASTY))
        case 3:
            pieces[at] = dice.choice(dice.choice(whole))
        case _:
            worth = [index for index, piece in enumerate(pieces) if piece.strip() and len(piece) > 1] or [at]
            pieces[dice.choice(worth)] = dice.choice(NASTY)
