"""The bill: complete, lasting, and readable in parts."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from sandbox.bill import Bill, BillRow, BillTotal

ROW = BillRow("2026-03-10T12:00:00+00:00", "openai", "m", 900, 128, 50, 200, True, "draft", "ab" * 32)
REFUSED = replace(ROW, input_tokens=0, cached_tokens=0, output_tokens=0, status=429, billed=False)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "deep" / "bill.sqlite")
    assert [bill.add(ROW), bill.add(REFUSED)] == [1, 2]
    assert bill.rows() == [{"id": 1, **ROW.__dict__}, {"id": 2, **REFUSED.__dict__}]
    assert bill.rows(after=1) == bill.rows()[1:]
    assert bill.rows(limit=1) == bill.rows()[:1]
    bill.close()


def test_the_total_counts_all_and_sums_what_costs(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "bill.sqlite")
    assert bill.total() == BillTotal(0, 0, 0, 0, 0)
    for row in (ROW, REFUSED, ROW):
        bill.add(row)
    assert bill.total() == BillTotal(3, 2, 1800, 256, 100)
    bill.close()


def test_a_late_answer_is_noted(tmp_path: Path) -> None:
    bill = Bill(tmp_path / "bill.sqlite")
    number = bill.add(replace(ROW, status=0))
    bill.sent(number, 200)
    assert [row["status"] for row in bill.rows()] == [200]
    bill.close()


def test_a_row_is_in_the_file_before_anything_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "bill.sqlite"
    bill = Bill(file)
    bill.add(ROW)
    other = sqlite3.connect(file)
    assert other.execute("select count(*) from bill").fetchone() == (1,)
    other.close()
    bill.close()


def test_ids_go_on_after_a_restart(tmp_path: Path) -> None:
    for expected in (1, 2):
        bill = Bill(tmp_path / "bill.sqlite")
        assert bill.add(ROW) == expected
        bill.close()
