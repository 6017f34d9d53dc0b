"""Bills in every form are read to the last row, or refused with the place, the value and the remedy."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.finance.reconciliation.bill import Count
from app.finance.reconciliation.parsing import BadBill, BillFormat, BillRow, parse_bill

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
START = int(NOON.timestamp())


def sandbox_row(**changes: Any) -> dict[str, Any]:
    values = {
        "id": 7,
        "at": "2026-11-22T12:00:00.250000+00:00",
        "protocol": "openai",
        "model": "m",
        "input_tokens": 900,
        "cached_tokens": 128,
        "output_tokens": 50,
        "status": 200,
        "billed": True,
        "stage": "classify",
        "request_digest": "ab",
    }
    return values | changes


def sandbox(*rows: dict[str, Any]) -> str:
    return json.dumps({"rows": list(rows)})


def result(**changes: Any) -> dict[str, Any]:
    """A result as OpenAI documents it."""
    values = {
        "object": "organization.usage.completions.result",
        "input_tokens": 1000,
        "output_tokens": 500,
        "input_cached_tokens": 800,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": 5,
        "project_id": None,
        "user_id": None,
        "api_key_id": None,
        "model": "gpt-5-nano-2025-08-07",
        "batch": False,
        "service_tier": None,
    }
    return values | changes


def page(*results: dict[str, Any], hour: int = 0, **changes: Any) -> dict[str, Any]:
    start = START + 3600 * hour
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 3600, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None} | changes


def refusal(text: str) -> str:
    with pytest.raises(BadBill) as error:
        parse_bill("march.bill", text)
    message = str(error.value)
    assert message.startswith("bill march.bill")
    assert ";" in message, "a remedy stands after the problem"
    return message


def test_the_sandboxs_bill() -> None:
    bill = parse_bill("b", sandbox(sandbox_row(), sandbox_row(id=8, billed=False, model="", status=429)))
    at = NOON + timedelta(milliseconds=250)
    assert bill.rows == (BillRow("row 7", "m", at, at, Count(1, 900, 128, 50), provider="openai"),)
    assert (bill.format, bill.by_request, bill.unbilled) == (BillFormat.SANDBOX, True, 1)
    assert parse_bill("b", sandbox()).rows == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input_tokens": -3}, "rows[1].input_tokens: Input should be greater than or equal to 0, not -3"),
        ({"input_tokens": "12"}, "rows[1].input_tokens: Input should be a valid integer, not '12'"),
        ({"output_tokens": None}, "rows[1].output_tokens"),
        ({"at": "yesterday"}, "rows[1].at"),
        ({"at": "2026-11-22T12:00:00"}, "rows[1].at: Input should have timezone info"),
        ({"cached_tokens": 901}, "rows[1].cached_tokens: 901 cached tokens are more than 900 of input"),
        ({"model": ""}, "rows[1]: row 9 is billed and names no model"),
        ({"id": 7}, "rows[1]: id 7 is already in rows[0]"),
    ],
)
def test_a_bad_row_of_the_sandbox_is_named(row: dict[str, Any], said: str) -> None:
    assert said in refusal(sandbox(sandbox_row(), sandbox_row(id=9) | row))


def test_a_row_without_a_key_is_named() -> None:
    row = sandbox_row()
    del row["output_tokens"]
    assert "rows[0].output_tokens: Field required" in refusal(sandbox(row))


def test_openais_usage_export() -> None:
    bill = parse_bill("usage.json", json.dumps(page(result(), result(model="gpt-5", input_cached_tokens=None))))
    place = "page 1 data[0].results[{}]".format
    assert bill.rows == (
        BillRow(place(0), "gpt-5-nano-2025-08-07", NOON, NOON + HOUR, Count(5, 1000, 800, 500), "openai"),
        BillRow(place(1), "gpt-5", NOON, NOON + HOUR, Count(5, 1000, None, 500), "openai"),
    )
    assert (bill.format, bill.by_request) == (BillFormat.OPENAI_USAGE, False)
    assert (bill.since, bill.until) == (NOON, NOON + HOUR)


def test_pages_in_one_file_whether_listed_or_one_after_the_other() -> None:
    first = page(result(), has_more=True, next_page="page_AAA")
    second = page(hour=1)
    third = page(result(), hour=2)
    listed = parse_bill("b", json.dumps([first, second, third]))
    assert [row.since for row in listed.rows] == [NOON, NOON + 2 * HOUR]
    assert (listed.since, listed.until) == (NOON, NOON + 3 * HOUR), "an empty bucket is a part of the time"
    one_after_the_other = "\n".join(map(json.dumps, (first, second, third)))
    assert [row.count for row in parse_bill("b", one_after_the_other).rows] == [row.count for row in listed.rows]
    buckets = json.dumps([*first["data"], *third["data"]])
    assert len(parse_bill("b", buckets).rows) == 2


def test_an_export_of_nothing_covers_its_time() -> None:
    bill = parse_bill("b", json.dumps(page()))
    assert (bill.rows, bill.since, bill.by_request) == ((), NOON, False)


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ([page(result(), has_more=True, next_page="page_AAA")], "the export continues at page 'page_AAA'; fetch"),
        ([page(result(model=None))], "page 1 data[0].results[0]: its model is null"),
        ([page(result(num_model_requests=-1))], "page 1 data[0].results[0].num_model_requests"),
        ([page(result(input_cached_tokens=1001))], "1001 cached tokens are more than 1000 of input"),
        ([page(result()), page(result())], "page 2 data[0]: bucket"),
        ([{"data": {}}], "page 1: data is {}, not a list"),
        ([{"data": [{"start_time": START, "end_time": START, "results": []}]}], "it ends at 2026-11-22T12:00:00+00:00"),
        ([{"data": [{"start_time": START}]}], "page 1 data[0].end_time: None is not a time in seconds since 1970"),
        ([{"data": [{"start_time": 9, "end_time": 10, "results": []}]}], "start_time 9 is not a time since 2015"),
        (
            [{"data": [{"start_time": 10**400, "end_time": 10, "results": []}]}],
            "a number of more than 20 digits is not a time",
        ),
        (
            [{"data": [{"start_time": START, "end_time": START + 60, "results": 1}]}],
            "results is 1, not a list of results",
        ),
    ],
)
def test_a_bad_export_is_named(pages: list[dict[str, Any]], said: str) -> None:
    assert said in refusal(json.dumps(pages))


def test_buckets_of_two_widths_are_refused() -> None:
    day = {"start_time": START - 12 * 3600, "end_time": START + 12 * 3600, "results": [result()]}
    assert "overlaps that of page 2 data[0], 2026-11-22T00:00:00+00:00 to" in refusal(
        json.dumps([page(result()), {"data": [day]}])
    )


def test_csv_of_requests_hours_and_days() -> None:
    text = "time,model,input_tokens,cached_tokens,output_tokens\n2026-11-22T13:00:05+01:00,m,100,,7\n"
    at = NOON + timedelta(seconds=5)
    assert parse_bill("b", text).rows == (BillRow("line 2", "m", at, at, Count(1, 100, None, 7)),)
    hours = "hour,model,input_tokens,output_tokens,requests\n2026-11-22T12:00Z,m,100,7,3\n2026-11-22 13:00,m,1,0,0\n"
    assert parse_bill("b", hours).rows == (
        BillRow("line 2", "m", NOON, NOON + HOUR, Count(3, 100, None, 7)),
        BillRow("line 3", "m", NOON + HOUR, NOON + 2 * HOUR, Count(0, 1, None, 0)),
    )
    split = "date,hour,model,input_tokens,output_tokens\n2026-11-22,12,m,100,7\n2026-11-22,13:00,m,1,0\n"
    assert [(row.since, row.count.requests) for row in parse_bill("b", split).rows] == [
        (NOON, None),
        (NOON + HOUR, None),
    ]
    days = "date,model,input_tokens,output_tokens,provider\n2026-11-22,m,100,7,openai\n"
    day = NOON - timedelta(hours=12)
    assert parse_bill("b", days).rows == (BillRow("line 2", "m", day, day + DAY, Count(None, 100, None, 7), "openai"),)


def test_csv_as_a_spreadsheet_writes_it() -> None:
    header = "\ufeff\r\nTime;Model;Input tokens;Output tokens;Cost\r\n"
    text = header + '"2026-11-22 12:00:00";"m;1";"100";7;0,01\r\n\r\n;;;;\r\n'
    bill = parse_bill("b", text)
    assert bill.rows == (BillRow("line 3", "m;1", NOON, NOON, Count(1, 100, None, 7)),)
    assert (bill.format, bill.unread) == (BillFormat.CSV, ())
    assert bill.extra_quantities == ("cost (without a currency: name it cost_usd, or add a column currency)",)
    assert parse_bill("b", "time\tmodel\tinput_tokens\toutput_tokens\n").rows == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,input_tokens,output_tokens\nm,1,1\n", "line 1: header 'model,input_tokens,output_tokens' lacks time"),
        ("time,model,tokens\n", "lacks input_tokens, output_tokens"),
        ("time,model,model,input_tokens,output_tokens\n", "columns ['model'] occur twice"),
        ("{time},m,1.5,1", "line 2: input_tokens '1.5' is not a number of tokens or requests; write a whole number"),
        ("{time},m,-1,1", "input_tokens '-1'"),
        ("{time},m,,1", "input_tokens ''"),
        ("{time},m,1,²", "output_tokens '²'"),
        ("22.11.2026 12:00,m,1,1", "line 2: time '22.11.2026 12:00' is not a time: it does not begin with the year"),
        ("{time},,1,1", "line 2: it names no model"),
        ("{time},m,1,1,1", "line 2: 5 cells under 4 columns"),
        ('{time},"m,1,1', "line 2: not valid CSV"),
    ],
)
def test_bad_csv_is_named(text: str, said: str) -> None:
    header = "time,model,input_tokens,output_tokens\n"
    assert said in refusal(text if text.endswith("\n") else header + text.replace("{time}", "2026-11-22T12:00:00Z"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,model,input_tokens,output_tokens,requests\n2026-11-22T12:00Z,m,1,1,3\n", "3 requests at the one time"),
        ("hour,model,input_tokens,output_tokens\n2026-11-22T12:30Z,m,1,1\n", "is not a full hour"),
        ("date,model,input_tokens,output_tokens\n2026-11-22T12:30Z,m,1,1\n", "is not a day"),
        ("time,date,model,input_tokens,output_tokens\n,2026-11-22,m,1,1\n2026-11-22,,m,1,1\n", "split it into two"),
        (
            "time,model,input_tokens,output_tokens,cached_tokens\n2026-11-22,m,1,1,2\n",
            "2 cached tokens are more than 1",
        ),
    ],
)
def test_contradictory_csv_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"rows": [', "line 1, column"),
        ('{"rows": []}\n{"x": oops}', "line 2, column 7: not valid JSON (Expecting value) at 'oops}'"),
        ("{}", "its JSON is not a known kind of bill"),
        ('{"rows": 3}', "3 is not a list"),
    ],
)
def test_a_file_that_is_not_a_bill_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_sum_is_not_cut_in_two() -> None:
    bill = parse_bill("b", json.dumps(page(result())))
    assert len(bill.within(NOON, NOON + HOUR).rows) == 1
    assert bill.within(NOON + HOUR, None).rows == ()
    with pytest.raises(BadBill, match="is within that time; choose times at which a row of the bill"):
        bill.within(NOON + timedelta(minutes=5), None)
