"""What customers and models write costs work in proportion to its length, and never breaks what reads it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.dapr.history import causes
from app.dapr.history.model import Failure
from app.domain.models import Classification
from app.domain.redaction import redact
from app.llm import conversation, estimate, tokenizer
from app.llm.call import ModelCall, answer_from_json, answer_to_json
from app.llm.conversation import Answer, Message, ToolRequest
from app.llm.json_answer import InvalidAnswer, json_object, validate
from app.pricing.charge_types import NOT_REPORTED
from app.telemetry.export import output_messages
from app.workflow.activities import prompts, tools
from sandbox.model.brain import answer_question
from sandbox.model.brain.injection import is_ordered, without_orders
from sandbox.model.brain.signals import read_signals
from sandbox.model.exchange import Message as Said
from sandbox.model.exchange import Question

LENGTH = 60_000
# Work that grows with the square grows sixteenfold with a text four times as long; in proportion, fourfold.
_MOST = 10.0
_NOTHING_SECONDS = 0.04

TEXTS: dict[str, Callable[[int], str]] = {
    name: lambda n, piece=piece: piece * (n // len(piece))
    for name, piece in {
        "one letter": "A",
        "words": "a ",
        "no domain": "a@",
        "labels": "a.",
        "digits": "4",
        "digits apart": "1-",
        "digits with spaces": "1 ",
        "half an account": "AA00",
        "accounts": "DE89 ",
        "half a secret": "sk-a ",
        "secrets": "sk-",
        "braces": "{",
        "brackets": "[",
        "objects": "{}",
        "keys": '{"a":',
        "backslashes": "\\",
        "quotes": '"',
        "spaces": " ",
        "lines": "\n",
        "dots": ".",
        "sentences": "! ",
        "fences": "<ticket>",
        "half a fence": "<ticket",
        "dotted capitals": "\u0130\u0301",
        "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "ideographs": "\u6f22",
        "states": "status code: ",
        "orders": "AC-1",
        "sums": "1.000,",
        "commands": "system override ignore ",
        "apostrophes": "don't ",
        "mixture": "aA1 .@-_{[\n+",
    }.items()
} | {
    "an address at the end": lambda n: "a" * (n - 1) + "@",
    "labels behind an at": lambda n: "@" + "a." * (n // 2),
    "accents": lambda n: "e" + "\u0301" * n,
    "a nest": lambda n: "{" + '"a":[' * (n // 10) + "]" * (n // 10) + "}",
    "an open string": lambda n: '{"a":"' + "\\" * n,
    "a long number": lambda n: '{"confidence":' + "9" * n + "}",
    "a long fraction": lambda n: '{"confidence":0.' + "9" * n + "}",
    "a long exponent": lambda n: '{"confidence":1e' + "9" * n + "}",
}


def answer(text: str, *calls: ToolRequest) -> Answer:
    """A model's answer."""
    return Answer(text, calls, "stop", "m", NOT_REPORTED)


def classified(text: str) -> None:
    """As the classify stage reads an answer."""
    try:
        validate(Classification, json_object(text))
    except InvalidAnswer:
        return


def called(text: str) -> None:
    """As the draft stage reads a tool call."""
    try:
        tools.check_requests((ToolRequest("1", "lookup_order", text),), 1)
    except InvalidAnswer:
        return


def asked(text: str) -> None:
    """The sandbox's model at both stages, as if it saw the text for the first time."""
    for remembered in (read_signals, without_orders, is_ordered):
        remembered.cache_clear()
    kinds = ((prompts.CLASSIFY, "Subject: s"), (prompts.DRAFT, "Category: damaged\nOrder: none\nAccount: {}"))
    for system, head in kinds:
        said = (Said("system", system), Said("user", f"{head}\n{prompts.ticket_block(text)}"))
        answer_question(Question("m", said))


CLAUDE = estimate.counting("conversation.anthropic", "")
READERS: dict[str, Callable[[str], object]] = {
    "redaction": redact,
    "prompt": prompts.ticket_block,
    "answer": classified,
    "wrapped answer": lambda text: classified(f"{{{text}}}"),
    "tool call": called,
    "token count": tokenizer._count,
    "token estimate": lambda text: estimate.output_tokens(answer("", ToolRequest("1", "n", text)), CLAUDE),
    "stored answer": lambda text: answer_from_json(answer_to_json(answer(text)), NOT_REPORTED),
    "span": lambda text: output_messages(answer_to_json(answer(text, ToolRequest("1", "n", text)))),
    "digest": lambda text: ModelCall("a", "b", "c", 1, "e", "v", (Message("user", text),)).digest,
    "failure of a model": lambda text: conversation._translate("llm", text),
    "failure of a step": lambda text: causes.cause(Failure("ModelUnavailable", text)),
    "sandbox's model": asked,
}


def work(reader: Callable[[str], object], text: str) -> float:
    """The least CPU time of this thread that reading the text takes."""
    spent: list[float] = []
    for _ in range(3):
        begun = time.thread_time()
        reader(text)
        spent.append(time.thread_time() - begun)
    return min(spent)


@pytest.mark.parametrize("reader", READERS)
def test_work_grows_with_the_length_and_no_faster(reader: str) -> None:
    tokenizer.encoding()
    for name, text in TEXTS.items():
        short, long = work(READERS[reader], text(LENGTH // 4)), work(READERS[reader], text(LENGTH))
        assert long <= _MOST * short + _NOTHING_SECONDS, f"{name}: {short * 1e3:.1f} ms, then {long * 1e3:.1f} ms"
