"""Bills in the forms of providers, spreadsheets and people are read, or refused with a remedy."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.finance.reconciliation.bill import BadBill, Bill, BillFormat, Count
from app.finance.reconciliation.parsing import parse_bill, parse_bills, text_of

DAY = datetime(2026, 11, 20, tzinfo=UTC)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HEADER = "time,model,input_tokens,output_tokens\n"


def refusal(*texts: str) -> str:
    with pytest.raises(BadBill) as error:
        parse_bills([(f"bill{number}", text) for number, text in enumerate(texts, start=1)])
    return str(error.value)


def openai_page(hour: int, *, more: bool = True, hours: int = 1, **changes: Any) -> dict[str, Any]:
    """A page of OpenAI's usage with its buckets."""
    result = {"model": "gpt-5-mini", "input_tokens": 100, "output_tokens": 10, "input_cached_tokens": 40}
    start = int(NOON.timestamp()) + hour * 3600
    buckets = [
        {
            "object": "bucket",
            "start_time": start + hour * 3600,
            "end_time": start + (hour + 1) * 3600,
            "results": [result | {"num_model_requests": 1} | changes],
        }
        for hour in range(hours)
    ]
    return {"object": "page", "data": buckets, "has_more": more, "next_page": f"page_{hour + hours}" if more else None}


def anthropic_page(day: int = 0, *results: dict[str, Any], more: bool = False) -> dict[str, Any]:
    """A page of one of Anthropic's reports with one bucket of a day."""
    since = DAY + timedelta(days=day)
    times = {
        "starting_at": f"{since:%Y-%m-%dT00:00:00Z}",
        "ending_at": f"{since + timedelta(days=1):%Y-%m-%dT00:00:00Z}",
    }
    return {"data": [times | {"results": list(results)}], "has_more": more, "next_page": "page_x" if more else None}


CLAUDE = {
    "uncached_input_tokens": 1500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200,
    "output_tokens": 500,
    "server_tool_use": {"web_search_requests": 3},
    "model": "claude-sonnet-4-5-20250929",
    "service_tier": "standard",
}


def test_pages_may_come_in_any_order_in_one_file_or_in_many() -> None:
    pages = [openai_page(number, more=number < 10) for number in range(11)]
    straight = parse_bill("usage", json.dumps(pages))
    assert (len(straight.rows), straight.until) == (11, NOON + 11 * HOUR)
    names = sorted(range(11), key=str)  # as the shell lists page1, page10, page2 …
    shuffled = [pages[number] for number in names]
    for texts in (["\n".join(map(json.dumps, shuffled))], [json.dumps(page) for page in shuffled]):
        bill = parse_bills([(f"page{number}.json", text) for number, text in enumerate(texts)])
        assert [row.since for row in bill.rows] == [row.since for row in straight.rows]
        assert (bill.since, bill.until) == (straight.since, straight.until)


@pytest.mark.parametrize("missing", range(11))
def test_a_page_that_is_missing_is_noticed_wherever_it_belongs(missing: int) -> None:
    pages = [json.dumps(openai_page(number, more=number < 10)) for number in range(11)]
    del pages[missing]
    random.Random(missing).shuffle(pages)
    if missing == 0:  # nothing tells that there was one before
        assert parse_bills([("x", page) for page in pages]).since == NOON + HOUR
        return
    said = refusal(*pages)
    if missing == 10:
        assert "has_more is true: the export continues at page 'page_10'" in said
    else:
        assert f"says that page 'page_{missing}' follows it; add the missing page" in said


def test_a_page_that_is_given_twice_is_noticed() -> None:
    page = json.dumps(openai_page(0, more=False))
    assert "is also in bill1, page 1 data[0]; give it once" in refusal(page, page)


def test_thousandths_of_a_second_are_seconds_too() -> None:
    page = openai_page(0, more=False)
    for key in ("start_time", "end_time"):
        page["data"][0][key] *= 1000
    assert parse_bill("b", json.dumps(page)).rows[0].since == NOON


def test_what_costs_money_beside_text_is_named() -> None:
    bill = parse_bill("b", json.dumps(openai_page(0, more=False, input_audio_tokens=5600, output_audio_tokens=0)))
    assert bill.extra_quantities == ("input_audio_tokens (5,600)",)


def test_anthropics_usage() -> None:
    bill = parse_bill("b", json.dumps([anthropic_page(1), anthropic_page(0, CLAUDE, more=True)]))
    (row,) = bill.rows
    assert (row.model, row.provider, row.written) == ("claude-sonnet-4-5-20250929", "anthropic", 1500)
    assert row.count == Count(None, 1500 + 1500 + 200, 200, 500)
    assert (row.since, row.until, bill.until) == (DAY, DAY + 24 * HOUR, DAY + 48 * HOUR)
    assert (bill.format, bill.by_request) == (BillFormat.ANTHROPIC_USAGE, False)
    assert bill.extra_quantities == ("server_tool_use.web_search_requests (3)",)
    assert "its model is null" in refusal(json.dumps(anthropic_page(0, CLAUDE | {"model": None})))
    assert "uncached_input_tokens" in refusal(json.dumps(anthropic_page(0, CLAUDE | {"uncached_input_tokens": -1})))


def test_anthropics_costs_are_in_cents() -> None:
    line = {"currency": "USD", "amount": "123.78912", "model": "claude-sonnet-4-5", "token_type": "output_tokens"}
    search = {"currency": "USD", "amount": "40", "model": None, "description": "Web Search Usage"}
    bill = parse_bill("b", json.dumps(anthropic_page(0, line, search)))
    assert [(amount.model, amount.money, amount.currency) for amount in bill.amounts] == [
        ("claude-sonnet-4-5", Decimal("1.2378912"), "USD"),
        ("Web Search Usage", Decimal("0.40"), "USD"),
    ]
    assert (bill.rows, bill.counts, bill.format) == ((), False, BillFormat.ANTHROPIC_COSTS)


def openai_costs(*results: dict[str, Any]) -> str:
    start = int(DAY.timestamp())
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86400, "results": list(results)}
    return json.dumps({"object": "page", "data": [bucket], "has_more": False, "next_page": None})


def test_openais_costs_alone_or_beside_its_usage() -> None:
    line = {"amount": {"value": 0.06, "currency": "usd"}, "line_item": "gpt-5-mini-2025-08-07, input"}
    costs = openai_costs(line)
    alone = parse_bill("b", costs)
    assert [(amount.model, amount.money, amount.currency) for amount in alone.amounts] == [
        ("gpt-5-mini-2025-08-07", Decimal("0.06"), "USD")
    ]
    assert (alone.counts, alone.format) == (False, BillFormat.OPENAI_COSTS)
    both = parse_bills([("usage.json", json.dumps(openai_page(0, more=False))), ("costs.json", costs)])
    assert (len(both.rows), len(both.amounts), both.counts, both.format) == (1, 1, True, BillFormat.OPENAI_USAGE)
    bad_amounts: tuple[Any, ...] = ("x", None, [], True, "1e999999999", "9" * 5000, "NaN")
    for amount in bad_amounts:
        bad = line | {"amount": {"value": amount, "currency": "usd"}}
        assert "amount" in refusal(openai_costs(bad))
    assert "is not a currency" in refusal(openai_costs(line | {"amount": {"value": 1, "currency": "dollars"}}))


def test_bills_of_two_providers_are_reconciled_one_by_one() -> None:
    said = refusal(json.dumps(openai_page(0, more=False)), json.dumps(anthropic_page(0, CLAUDE)))
    assert "these are several bills: bill1" in said
    assert "(anthropic-usage); reconcile them one after the other" in said


OPENAI_TSV = (
    "start_time\tend_time\tstart_time_iso\tend_time_iso\tproject_id\tnum_model_requests\tuser_id\tapi_key_id\tmodel\t"
    "batch\tservice_tier\tinput_tokens\toutput_tokens\tinput_cached_tokens\tinput_uncached_tokens\tinput_audio_tokens\n"
    "1795132800\t1795219200\t2026-11-20T00:00:00+00:00\t2026-11-21T00:00:00+00:00\t\t10\t\t\tgpt-5-mini-2025-08-07\t\t\t"
    "14000\t420\t5600\t8400\t0\n"
    "1795219200\t1795305600\t2026-11-21T00:00:00+00:00\t2026-11-22T00:00:00+00:00\t\t\t\t\t\t\t\t\t\t\t\t\n"
)


def test_openais_dashboard_export() -> None:
    bill = parse_bill("b", OPENAI_TSV)
    (row,) = bill.rows
    assert (row.model, row.since, row.until) == ("gpt-5-mini-2025-08-07", DAY, DAY + 24 * HOUR)
    assert (row.provider, list(bill.providers)) == ("openai", ["openai"])
    assert row.count == Count(10, 14000, 5600, 420)
    assert bill.extra_quantities == ()
    assert parse_bill("b", OPENAI_TSV.replace("8400\t0\n", "8400\t77\n")).extra_quantities == (
        "input_audio_tokens (77)",
    )


def test_anthropics_console_export() -> None:
    header = (
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
        "usage_output_tokens,web_search_count\n"
    )
    bill = parse_bill(
        "b", header + "2026-11-20,claude-sonnet-4-5,key,Default,standard,≤ 200k,1500,500,1000,200,500,3\n"
    )
    (row,) = bill.rows
    assert (row.count, row.written) == (Count(None, 3200, 200, 500), 1500)
    assert (row.provider, list(bill.providers)) == ("anthropic", ["anthropic"])
    assert (row.since, row.until) == (DAY, DAY + 24 * HOUR)
    assert bill.extra_quantities == ("web_search_count (3)",)
    costs = "usage_date_utc,model,token_type,cost_usd\n2026-11-20,claude-sonnet-4-5,output,1.5\n"
    (amount,) = parse_bill("b", costs).amounts
    assert (amount.money, amount.currency, parse_bill("b", costs).counts) == (Decimal("1.5"), "USD", False)


@pytest.mark.parametrize("first", ["", "sep={}\n", '"sep={}"\n'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("thousands", ["", ",", ".", " ", "'"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_way_in_which_a_spreadsheet_saves_it(
    first: str, delimiter: str, thousands: str, line_end: str, encoding: str
) -> None:
    entered = f"14{thousands}123"
    cells = ["2026-11-20T12:00:00Z", "gpt-5-mini", f'"{entered}"' if thousands == delimiter else entered, "420"]
    text = first.format(delimiter) + delimiter.join(HEADER.strip().split(",")) + "\n" + delimiter.join(cells) + "\n"
    raw = text.replace("\n", line_end).encode(encoding)
    (row,) = parse_bill("b", text_of("b", raw)).rows
    assert (row.count.input_tokens, row.count.output_tokens, row.since) == (14123, 420, NOON)


def test_utf_16_without_a_mark() -> None:
    text = HEADER + "2026-11-20T12:00:00Z,gpt-5-mini,1,2\n"
    for encoding in ("utf-16-le", "utf-16-be"):
        assert text_of("b", text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"PK\x03\x04rest", "it is an Excel workbook or another zip archive; save the sheet as CSV (UTF-8)"),
        (b"\x1f\x8b\x08rest", "it is compressed with gzip; unpack it"),
        (b"%PDF-1.7", "it is a PDF; export it as JSON or CSV"),
        (b"time,model\xe9", "byte 10 is not UTF-8 (0xe9); save it as UTF-8"),
        (b"time,model\nx\x00y and more of a text that is long enough to be none", "line 2: it contains a NUL"),
        (b"\xff\xfe\x00\xd8", "is not UTF-16-LE"),
    ],
)
def test_other_file_types_are_named_with_a_remedy(raw: bytes, said: str) -> None:
    with pytest.raises(BadBill) as error:
        text_of("b", raw)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        "time,model,input_tokens,output_tokens,input_cached_tokens,num_model_requests",
        "Timestamp,Model,Prompt tokens,Completion tokens,Cached input tokens,Requests",
        "created_at,model_id,tokens_in,tokens_out,cached tokens,n_requests",
    ],
)
def test_columns_by_the_names_that_people_give_them(names: str) -> None:
    (row,) = parse_bill("b", f"{names}\n2026-11-20T12:00:00Z,gpt-5-mini,100,10,56,1\n").rows
    assert row.count == Count(1, 100, 56, 10)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("time,model,input_tokens,prompt_tokens,output_tokens", "columns input_tokens and prompt_tokens mean the same"),
        (
            "time,model,input_tokens,cache_read_input_tokens,output_tokens",
            "may include cache_read_input_tokens",
        ),
        ("start_time,model,input_tokens,output_tokens,x", "it has a start and no end"),
    ],
)
def test_ambiguous_columns_are_refused(names: str, said: str) -> None:
    assert said in refusal(f"{names}\n2026-11-20T12:00:00Z,gpt-5-mini,100,10,56\n")


def test_an_unread_quantity_is_named_with_its_sum() -> None:
    text = "time,model,input_tokens,output_tokens,audio_seconds,comment,project_id,batch_requests\n"
    bill = parse_bill("b", text + "2026-11-20T12:00:00Z,m,1,2,30,12,77,0\n2026-11-20T12:00:01Z,m,1,2,12,x,77,0\n")
    assert bill.extra_quantities == ("audio_seconds (42)",)
    assert bill.unread == ("audio_seconds", "comment", "project_id", "batch_requests")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1795176000", NOON),
        ("1795176000123", NOON + timedelta(milliseconds=123)),
        ("1795176000123456", NOON + timedelta(microseconds=123456)),
        ("1795176000.5", NOON + timedelta(milliseconds=500)),
        ("2026-11-20 12:00:00 UTC", NOON),
        ("2026-11-20T13:00:00+01:00", NOON),
        ("2026-11-20T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("20261120T120000Z", NOON),
    ],
)
def test_times_as_people_write_them(text: str, expected: datetime) -> None:
    assert parse_bill("b", f"{HEADER}{text},m,1,2\n").rows[0].since == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "11/20/2026 12:00",
            "so day and month could be confused; write it as",
        ),
        ("2026-11-20 12:00 CET", "a zone's abbreviation is ambiguous; write its offset"),
        ("1795", "is not a time; write it as 2026-11-22T13:05:00Z"),
        ("179501011234", "is not a time since 2015 in seconds or milliseconds"),
        ("9" * 5000, "is not a time"),
        ("0001-01-01", "is not a time between 2015 and 2100"),
        ("9999-12-31T23:59:59-12:00", "is not a time"),
    ],
)
def test_invalid_times_are_refused(text: str, said: str) -> None:
    assert said in refusal(f"{HEADER}{text},m,1,2\n")


def test_a_day_in_another_zone_begins_at_its_own_midnight() -> None:
    text = "date,model,input_tokens,output_tokens\n2026-11-20T00:00:00+01:00,m,1,2\n"
    row = parse_bill("b", text).rows[0]
    assert (row.since, row.until) == (DAY - HOUR, DAY + 23 * HOUR)


def priced(*costs: str, header: str = "date;model;cost_usd") -> Bill:
    return parse_bill("b", header + "\n" + "".join(f"2026-11-{10 + n};m;{cost}\n" for n, cost in enumerate(costs)))


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (("0.5", "1,234.25"), ("0.5", "1234.25")),
        (("0,5", "1.234,25", "1.234"), ("0.5", "1234.25", "1234")),
        (("0.5", "1,234"), ("0.5", "1234")),
        (("$0.50", "-0.25"), ("0.50", "-0.25")),
        (("1,234,567", "0.001"), ("1234567", "0.001")),
    ],
)
def test_amounts_with_either_sign_before_decimals(costs: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert [str(amount.money) for amount in priced(*costs).amounts] == list(expected)


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        (("1,234",), "cost_usd '1,234' may be 1234 or 1.234; write it with a point"),
        (("0.5", "0,25"), "has a comma before its decimals"),
        (("1e5",), "cost_usd '1e5' is not an amount of money; write it as 0.0123"),
        (("NaN",), "is not an amount of money"),
        (("9" * 5000,), "is not an amount of money"),
    ],
)
def test_ambiguous_amounts_are_refused(costs: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadBill) as error:
        priced(*costs)
    assert said in str(error.value)


def test_ambiguous_whole_numbers_are_refused() -> None:
    assert "input_tokens '1.000' is not a number" in refusal(f"{HEADER}2026-11-20T12:00:00Z,m,1.000,2\n")
    semicolons = HEADER.replace(",", ";") + "2026-11-20T12:00:00Z;m;1,000;2\n"
    assert parse_bill("b", semicolons).rows[0].count.input_tokens == 1000


def test_a_provider_by_any_name_that_is_known() -> None:
    text = "time,model,input_tokens,output_tokens,provider\n2026-11-20T12:00:00Z,m,1,2,{}\n"
    for name in ("OpenAI", "openai", "conversation.openai", "Open AI"):
        assert parse_bill("b", text.format(name)).rows[0].provider == "openai"
    assert "provider 'Acme AI' is unknown; name one of anthropic" in refusal(text.format("Acme AI"))


def test_tables_in_several_files_are_one_bill() -> None:
    rows = [f"{HEADER}2026-11-20T1{hour}:00:00Z,m,1,2\n" for hour in range(3)]
    assert [row.place for row in parse_bills([(f"b{n}", text) for n, text in enumerate(rows)]).rows] == [
        "b0, line 2",
        "b1, line 2",
        "b2, line 2",
    ]
    days = "date,model,input_tokens,output_tokens\n2026-11-20,m,1,2\n"
    assert "it is the same as bill1, line 2; give each file once" in refusal(days, days)
