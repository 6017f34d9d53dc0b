"""The layout of tables: at any width, no number, name or word is broken."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli import screen
from app.cli.screen import Column, ColumnKind, TablePage, fact_lines, figures, lay_out, name

LONG = "nordwind-handelsgesellschaft:T-2026-11-30-000000000000000000000000000000000042"
COSTS = (
    *name("tenant", "stage"),
    *figures("tokens in"),
    Column("cached", ColumnKind.FIGURE, spare=1),
    *figures("total"),
    Column("currency", common=True),
    Column("known", ColumnKind.PROSE, common=True),
)
ROWS = [
    ("acme", "draft_refund", "172,125", "", "0.0326", "USD", "reported"),
    ("nordwind", "retrieve_account", "1,209,233", "12", "1,234.57 + ?", "USD", "12 % estimated, 3 unpriced"),
]

words = st.text("abcdefghij0123456789.,-_:", min_size=1, max_size=30)
cells = st.one_of(st.just(""), words, st.lists(words, min_size=2, max_size=6).map(" ".join))
columns = st.builds(Column, words, st.sampled_from(ColumnKind), st.booleans(), st.integers(0, 3))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[list[str]]]:
    heads = draw(st.lists(columns, min_size=1, max_size=8))
    return heads, draw(st.lists(st.lists(cells, min_size=len(heads), max_size=len(heads)), max_size=6))


def assert_whole(heads: list[Column], rows: list[list[str]], page: TablePage) -> None:
    """Asserts that every cell of the shown columns is complete: names and figures unbroken, prose word by word."""
    text = "\n".join([*page.lines, *(f"{title} {value}" for title, value in page.common)])
    there = set(text.split())
    for place, column in enumerate(heads):
        for cell in (row[place] for row in rows if column.title not in page.left_out):
            if column.kind is ColumnKind.PROSE:
                assert set(cell.split()) <= there
            elif cell:
                assert re.search(rf"(?:^|\s){re.escape(cell)}(?:\s|$)", text, re.MULTILINE), cell
    known = {word for column in heads for word in column.title.split()}
    assert there <= known | {word for row in rows for cell in row for word in cell.split()}


@given(tables(), st.one_of(st.none(), st.integers(1, 200)))
def test_no_number_name_or_word_is_ever_broken(table: tuple[list[Column], list[list[str]]], width: int | None) -> None:
    heads, rows = table
    page = lay_out(heads, rows, width)
    # A name or figure that is wider than the screen is wrapped between words below its title.
    if width is not None and any(len(cell) > width - 4 for row in rows for cell in row):
        heads = [Column(column.title, ColumnKind.PROSE, column.common, column.spare) for column in heads]
    assert_whole(heads, rows, page)


@given(tables(), st.integers(40, 200))
def test_a_line_is_longer_than_the_screen_only_for_one_word(
    table: tuple[list[Column], list[list[str]]], width: int
) -> None:
    heads, rows = table
    for line in lay_out(heads, rows, width).lines:
        heading = any(line == row[0] for row in rows)
        assert len(line) <= width or len(line.split()) == 1 or heading


@given(tables())
def test_a_program_gets_every_column_and_a_line_for_each_row(table: tuple[list[Column], list[list[str]]]) -> None:
    heads, rows = table
    page = lay_out(heads, rows, None)
    assert (len(page.lines), page.common, page.left_out) == (len(rows) + 1, (), ())


def test_a_value_common_to_all_rows_is_shown_once() -> None:
    page = lay_out(COSTS, [(*row[:5], "USD", "reported") for row in ROWS], 80)
    assert page.common == (("currency", "USD"), ("known", "reported"))
    assert "USD" not in "".join(page.lines)


def test_a_wide_screen_shows_every_column_with_values() -> None:
    page = lay_out(COSTS, ROWS, 120)
    assert page.common == (("currency", "USD"),)
    assert (page.titles, page.left_out) == (1, ())
    assert page.lines[2].split("  ")[-1] == "12 % estimated, 3 unpriced"
    page = lay_out(COSTS, [(*row[:3], "", *row[4:]) for row in ROWS], 120)
    assert "cached" not in page.lines[0]


def test_spare_columns_are_left_out_before_rows_become_blocks() -> None:
    page = lay_out(COSTS, ROWS, 78)
    assert page.left_out == ("cached",)
    assert len(page.lines) == 1 + 1 + 2  # the prose of the second row has two lines
    titles = lay_out([Column("stage"), *figures("tokens in")], [("draft_refund", "1,234")], 20)
    assert (titles.titles, titles.lines[:2]) == (2, ("stage         tokens", "                  in"))


def test_a_narrow_screen_shows_a_block_for_each_row() -> None:
    page = lay_out(COSTS, ROWS, 40)
    assert (page.titles, page.left_out) == (0, ())
    assert list(page.lines) == [
        "acme",
        "  stage      draft_refund",
        "  tokens in  172,125",
        "  total      0.0326",
        "  known      reported",
        "",
        "nordwind",
        "  stage      retrieve_account",
        "  tokens in  1,209,233",
        "  cached     12",
        "  total      1,234.57 + ?",
        "  known      12 % estimated, 3 unpriced",
    ]


def test_a_row_without_a_name_goes_on_with_the_one_before() -> None:
    heads = [Column("tenant"), *figures("total"), Column("currency")]
    page = lay_out(heads, [("acme", "1,000", "EUR"), ("", "2,000", "USD")], 18)
    assert [line.split() for line in page.lines] == [
        ["acme"],
        ["total", "1,000"],
        ["currency", "EUR"],
        ["total", "2,000"],
        ["currency", "USD"],
    ]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_an_id_that_is_longer_than_the_screen_stays_in_one_piece(width: int) -> None:
    page = lay_out([Column("task"), Column("status")], [(LONG, "waiting")], width)
    assert page.lines[0] == LONG if width < len(LONG) + 9 else page.lines[1].startswith(LONG)
    assert any(line.strip() == LONG for line in fact_lines([("task", LONG)], width)) or width == 80


def test_long_facts_are_wrapped_beside_their_title() -> None:
    pairs = [("waits because", "the refund is above the limit for refunds without approval"), ("amount", "219.00 USD")]
    assert fact_lines(pairs, 50) == (
        "waits because  the refund is above the limit for",
        "               refunds without approval",
        "amount         219.00 USD",
    )
    assert fact_lines(pairs, None)[0].endswith("without approval")


def test_wide_characters_keep_columns_straight() -> None:
    page = lay_out([Column("name"), Column("status")], [("漢字", "ok"), ("ab", "ok")], 80)
    assert page.lines[1:] == ("漢字  ok", "ab    ok")


def test_a_sentence_is_broken_between_words_and_a_command_stays_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = (
        "note: 0 of 369 tasks failed: too few for rates (5) and for shares of spend (10); look at the intervals: "
        "`refund-agent cost report --by tenant,model --since 2026-11-01` says what the others cost"
    )
    for width in (80, 120):
        monkeypatch.setattr(screen, "screen_width", lambda width=width: width)
        screen.say(sentence)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert " ".join(line.strip() for line in lines) == sentence
        assert any("`refund-agent cost report --by tenant,model --since 2026-11-01`" in line for line in lines)
    monkeypatch.setattr(screen, "screen_width", lambda: None)
    screen.say(sentence)
    assert capsys.readouterr().out == f"{sentence}\n", "grep finds it"
