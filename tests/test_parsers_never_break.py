"""Every parser of what people, files, models and the sidecar hand over answers with a value, or with an error of ours
that says where and what to do, whatever it is given; and takes no longer than the input is long."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Request
from pydantic import BaseModel
from werkzeug.test import EnvironBuilder

from app.cli.ticket_files import read_export
from app.config import policy
from app.domain.errors import BadTicket, ConfigurationError, RefundAgentError
from app.domain.models import Classification, Proposal, Ticket
from app.finance.reconciliation.bill import BadBill
from app.finance.reconciliation.comparison import reconcile
from app.finance.reconciliation.parsing import parse_bills, text_of
from app.finance.reconciliation.reconciliation_schemas import reconciliation_view
from app.finance.reconciliation.reconciliation_texts import remarks, verdict
from app.finance.retry_bounds import sidecar_files
from app.llm.conversation import ToolRequest
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.pricing import price_file
from app.web.api.binding import read_body
from app.web.api.messages import Approval
from app.web.api.problems import BadRequest
from app.worker import sidecar_metrics
from app.workflow.activities import tools
from tests.finance.reconciliation.billing import call
from tests.fuzzing import NASTY, spoilt
from tests.paths import ROOT

pytestmark = pytest.mark.timeout(180)  # a parser that hangs

SEED = 20_261_124
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TICKET = json.dumps(
    {
        "tenant": "acme",
        "ticket_id": "T-1",
        "customer_id": 100,
        "order_id": "AC-1",
        "subject": "Toaster",
        "text": "It broke.",
    }
).encode()
APPROVAL = b'{"refund": {"order_id": "AC-1", "amount": "20.00", "currency": "USD"}, "note": "fine"}'
POLICY = (ROOT / "config" / "policy.yaml").read_bytes()
PRICES = b"""\
list_prices: {version: "0.2.3", checked: 2026-11-01, source: the list}
stale_after_days: 90
retention_months: "1"
agreements:
  - {id: agreed, provider: OpenAI, model: "gpt-*", from: 2026-01-01, to: 2026-12-31T00:00:00Z, source: a contract,
     checked: 2026-11-01, discount_percent: "5", per_million_tokens: {input: "2", cached_input: "0.50", output: 8},
     tiers: [{above_input_tokens: 1000, per_million_tokens: {input: "4", output: 16}}], batch: {discount_percent: "5"}}
infrastructure:
  - {id: cloud, from: 2026-01-01, compute_per_second: "0.00002", writes_per_million: "1.25", source: a list,
     storage_per_gb_month: "0.25", logs_per_gb: "0.50", checked: 2026-11-01}
"""
RESILIENCY = b"""\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: llm}
scopes: [agent]
spec:
  policies:
    timeouts: {llm: 60s, other: 1500}
    retries:
      llm: {policy: exponential, maxInterval: 15s, maxRetries: 3, matching: {httpStatusCodes: "429,500-599"}}
    circuitBreakers:
      llm: {maxRequests: 1, interval: 60s, timeout: 30s, trip: consecutiveFailures >= 5}
  targets:
    apps: {books: {timeout: llm, circuitBreakerCacheSize: 10}}
    components: {llm: {outbound: {timeout: llm, retry: llm, circuitBreaker: llm}, inbound: {}}}
"""
COMPONENT = b"""\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: llm}
scopes: [agent]
spec:
  type: conversation.openai
  version: v1
  metadata: [{name: model, value: gpt-5-mini}, {name: endpoint, value: "http://127.0.0.1:8091/v1"}]
---
kind: HTTPEndpoint
metadata: {name: books}
spec: {baseUrl: "http://127.0.0.1:8092"}
"""
SANDBOX_BILL = json.dumps(
    {"rows": [{"id": 7, "at": "2026-11-20T12:00:00.25+00:00", "protocol": "openai", "model": "m", "input_tokens": 900,
               "cached_tokens": 128, "output_tokens": 50, "status": 200, "billed": True}]}
).encode()  # fmt: skip
_START = int(NOON.timestamp())
_BUCKET = {"object": "bucket", "start_time": _START, "end_time": _START + 3600}
OPENAI_USAGE = json.dumps(
    {"object": "page", "data": [_BUCKET | {"results": [
        {"model": "m", "input_tokens": 100, "output_tokens": 10, "input_cached_tokens": 40, "num_model_requests": 1}
    ]}], "has_more": False, "next_page": None}
).encode()  # fmt: skip
OPENAI_COSTS = json.dumps(
    {"object": "page", "data": [_BUCKET | {"results": [
        {"amount": {"value": 0.06, "currency": "usd"}, "line_item": "gpt-5-mini-2025-08-07, input"}
    ]}], "has_more": False, "next_page": None}
).encode()  # fmt: skip
_DAY = {"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z"}
ANTHROPIC_USAGE = json.dumps(
    {"data": [_DAY | {"results": [
        {"uncached_input_tokens": 1500, "cache_creation": {"ephemeral_1h_input_tokens": 10},
         "cache_read_input_tokens": 200, "output_tokens": 500, "model": "claude-sonnet-4-5"}
    ]}], "has_more": False}
).encode()  # fmt: skip
ANTHROPIC_COSTS = json.dumps(
    {"data": [_DAY | {"results": [{"currency": "USD", "amount": "123.78912", "model": "claude-sonnet-4-5"}]}]}
).encode()
CSV_REQUESTS = (
    b"time,model,input_tokens,cached_tokens,output_tokens,requests,provider,cost_usd\n"
    b"2026-11-20T12:00:00Z,m,100,40,10,1,OpenAI,0.0012\n1795176000123,m,200,40,10,1,azure,0.0034\n"
)
CSV_DAYS = b'sep=;\ndate;hour;model;input_tokens;output_tokens;cost;currency\n2026-11-20;13;m;"1.234";7;0,25;EUR\n'
CSV_STRETCHES = (
    b"start_time\tend_time\tmodel\tuncached_input_tokens\tcache_read_input_tokens\toutput_tokens\n"
    b"1795132800\t1795219200\tclaude-sonnet-4-5\t14000\t5600\t420\n"
)
ANSWERS = (
    b'So: {"category": "damaged", "wants_refund": true, "order_id": "AC-1", "language": "en", "confidence": 0.93}',
    b'{"action": "refund", "order_id": "AC-1", "amount": "20.00", "currency": "USD", "reason": "x", "confidence": 1}',
    b'```json\n{"action": "answer", "amount": 1.50, "reason": "x", "confidence": "0.5"}\n```',
)
METRICS = (
    b'dapr_resiliency_activations_total{app_id="agent",policy="retry",target="Conversation_llm"} 3\n'
    b"# HELP x y\nprocess_start_time_seconds 1.7951760e+09\n"
)
EXPORTS = (TICKET + b"\n" + TICKET, b"[" + TICKET + b"," + TICKET + b"]", b'{"tickets": [' + TICKET + b"]}",
           b"tenant,ticket_id,customer_id,text\nacme,T-1,C-1,broken\n")  # fmt: skip


def each(parse: Callable[[bytes], object], inputs: Iterable[bytes], *ours: type[Exception]) -> tuple[int, int]:
    """How many were read, and how many refused by one of `ours` with words; anything else names its input."""
    read = refused = 0
    for raw in inputs:
        try:
            parse(raw)
            read += 1
        except ours as error:
            refused += bool(str(error).strip())
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} ({str(error)[:200]}) for {raw[:2000]!r}") from error
    return read, refused


def held(counts: tuple[int, int]) -> None:
    """A parser that refuses everything, or takes everything, has not been tried."""
    assert min(counts) > 0, counts


def body_of(model: type[BaseModel]) -> Callable[[bytes], object]:
    def parse(raw: bytes) -> object:
        environ = EnvironBuilder(method="POST", data=raw, content_type="application/json").get_environ()
        return read_body(Request(environ), model, required=True).model_dump_json()

    return parse


@pytest.mark.parametrize(("model", "good"), [(Ticket, TICKET), (Approval, APPROVAL)])
def test_bodies_of_the_api(model: type[BaseModel], good: bytes) -> None:
    held(each(body_of(model), spoilt([good], 3000, SEED), BadRequest))


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_exports_of_help_desks(tenant: str | None) -> None:
    def parse(raw: bytes) -> None:
        lines = list(read_export("export", io.BytesIO(raw), tenant, None).lines)
        assert all((line.ticket is None) == bool(line.fault) for line in lines)
        for line in lines:
            line.fault.encode()
            assert line.ticket is None or line.ticket.model_dump_json()

    held(each(parse, spoilt(EXPORTS, 2500, SEED), BadTicket))


def in_a_file(path: Path, parse: Callable[[Path], object]) -> Callable[[bytes], object]:
    def written(raw: bytes) -> object:
        path.write_bytes(raw)
        try:
            return parse(path)
        except ConfigurationError as error:
            if str(path) not in str(error):
                raise AssertionError(f"no place: {error}") from error
            raise

    return written


def test_the_policy(tmp_path: Path) -> None:
    lines = [line for line in POLICY.splitlines(keepends=True) if not line.strip().startswith(b"#")]
    parse = in_a_file(tmp_path / "policy.yaml", policy.load)
    held(each(parse, spoilt([b"".join(lines)], 500, SEED), ConfigurationError))


def test_the_price_file(tmp_path: Path) -> None:
    def parse(path: Path) -> object:
        return price_file.read(path).value.model_dump_json(by_alias=True)

    held(each(in_a_file(tmp_path / "prices.yaml", parse), spoilt([PRICES], 300, SEED), ConfigurationError))


def test_resiliency_and_components(tmp_path: Path) -> None:
    def parse(path: Path) -> object:
        found = sidecar_files.policies([path.parent], "agent")
        return (
            [str(each) for each in found.findings],
            found.of_model("llm"),
            found.of_app("books"),
            sidecar_files.targets([path.parent], "agent"),
            sidecar_files.components([path.parent]),
        )

    inputs = spoilt([RESILIENCY, COMPONENT], 500, SEED)
    held(each(in_a_file(tmp_path / "llm.yaml", parse), inputs, ConfigurationError))


BILLS = [
    SANDBOX_BILL, OPENAI_USAGE, OPENAI_COSTS, ANTHROPIC_USAGE, ANTHROPIC_COSTS, CSV_REQUESTS, CSV_DAYS, CSV_STRETCHES
]  # fmt: skip


@pytest.mark.parametrize("good", BILLS)
def test_bills(good: bytes) -> None:
    ours = [call(1), call(2, model="gpt-5-mini")]

    def parse(raw: bytes) -> None:
        bill = parse_bills([("bill", text_of("bill", raw))])
        found = reconcile(ours, bill)
        reconciliation_view(found).model_dump_json()
        assert verdict(found)
        assert list(remarks(found))
        bill.within(NOON.replace(hour=0), None)

    held(each(parse, spoilt([good], 2000, SEED), BadBill))


def test_bills_of_several_files() -> None:
    def parse(raw: bytes) -> object:
        return parse_bills([("a", text_of("a", raw)), ("b", text_of("b", OPENAI_COSTS))])

    held(each(parse, spoilt(BILLS, 1000, SEED), BadBill))


def test_answers_of_models() -> None:
    def parse(raw: bytes) -> object:
        text = raw.decode("utf-8", "surrogateescape")
        model = Classification if "category" in text else Proposal
        return validate(model, json_object(text)).model_dump_json()

    held(each(parse, spoilt(ANSWERS, 4000, SEED), InvalidAnswer))


def test_arguments_of_tools() -> None:
    def parse(raw: bytes) -> object:
        text = raw.decode("utf-8", "surrogateescape")
        return tools.check_requests((ToolRequest("1", "lookup_order", text),), 1)[0].model_dump_json()

    held(each(parse, spoilt([b'{"order_id": "AC-10442"}'], 3000, SEED), InvalidAnswer))


def test_the_sidecars_metrics() -> None:
    def parse(raw: bytes) -> object:
        return sidecar_metrics.parse(raw.decode("utf-8", "replace"), NOON)

    held(each(parse, spoilt([METRICS], 3000, SEED), ValueError))


LONG = 200_000


@pytest.mark.parametrize("piece", sorted({each for each in NASTY if each}))
def test_long_inputs_take_no_longer_than_they_are(piece: bytes, tmp_path: Path) -> None:
    """What repeats for long must not be gone over again and again: quadratic time would be hours."""
    long = piece * (LONG // len(piece))
    files = in_a_file(tmp_path / "f.yaml", lambda path: sidecar_files.policies([path.parent], "agent"))
    each(files, [long[:20_000]], ConfigurationError)
    each(lambda raw: parse_bills([("bill", text_of("bill", raw))]), [long, b"[" + long, CSV_REQUESTS + long], BadBill)
    each(lambda raw: list(read_export("e", io.BytesIO(raw), None, None).lines), [long, b"[" + long], BadTicket)
    text = long.decode("utf-8", "replace")
    for given in (text, "{" + text, text + "}", "{" + text + "}"):
        each(lambda _, given=given: json_object(given), [b""], InvalidAnswer)  # type: ignore[misc]
    each(lambda _: sidecar_metrics.parse("dapr_resiliency_activations_total{" + text, NOON), [b""], ValueError)


def test_every_error_is_one_of_ours() -> None:
    for error in (BadBill, BadTicket, BadRequest, ConfigurationError):
        assert issubclass(error, RefundAgentError)
    assert {type(each) for each in NASTY} == {bytes}
