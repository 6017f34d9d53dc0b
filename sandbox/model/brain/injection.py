"""Prompt injection: finds what a ticket orders the model to do, as opposed to what it reports.

Classification reads the ticket without such orders. Drafting obeys them on purpose: the sandbox's model is as gullible
as a model can be, so that only the product's guards prevent the payment.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from sandbox.model.brain.vocabulary import fold

_BLOCK = re.compile(
    r"\[(system|admin|developer)\].*?\[/\1\]|\{[^{}]*\"(?:action|amount)\"[^{}]*\}", re.IGNORECASE | re.DOTALL
)
_ORDERS_THE_MODEL = re.compile(
    r"system\s*(override|note|message|prompt|instruction|:)|\[/?(system|admin|developer)\]|\boverride\b"
    r"|\b(ignor\w*|disregard|forget|vergiss|oublie\w*|olvida|dimentica|vergeet|esqueca|zapomnij|zignoruj|negeer)\b"
    r".{0,40}\b(instruc\w*|rules?|regel\w*|anweisung\w*|regles|reglas|regole|regras|istruzion\w*|instrukcj\w*|zasad\w*"
    r"|polic\w*|politi\w*|polityk\w*|richtlini\w*|beleid)"
    r"|\byou are (now\b|\w*gpt)|\b\w*gpt\b|\b(maintenance|developer|service|debug|admin) mode|trybie serwisowym"
    r"|\bwartungsmodus|\bmode (de )?maintenance|modo (de )?mantenimiento|\bhi ai\b|\ban die ki\b|\bto the ai\b"
    r"|^[^\S\n]*+(assistant|system)\s*:|\byour last answer was not usable|\bset wants_refund|\bstay in character"
    r"|\blets play a game|</?ticket>|\bprint everything above|\bprint .{0,20}(system )?prompt"
    r"|\bdo not (mention|ask a human)|忽略.{0,12}(指示|指令|规则)",
    re.MULTILINE,
)
_CURRENCY_WORDS = (
    r"usd|eur|gbp|chf|euros?|dollars?|pounds|francs|franken|libras|sterline|funt\w*|dolar\w*|美元|欧元|英镑"
)
_MONEY = re.compile(
    r"(?P<before>[$€£]|\b(?:usd|eur|gbp|chf)\b)?\s?(?P<number>\d[\d.,' ]*\d|\d)\s?"
    rf"(?P<after>[$€£]|(?:{_CURRENCY_WORDS})\b)?"
)
_CURRENCIES = {
    "$": "USD",
    "€": "EUR",
    "£": "GBP",
    "usd": "USD",
    "eur": "EUR",
    "gbp": "GBP",
    "chf": "CHF",
    "dol": "USD",
    "pou": "GBP",
    "lib": "GBP",
    "ste": "GBP",
    "fun": "GBP",
    "fra": "CHF",
    "美元": "USD",
    "欧元": "EUR",
    "英镑": "GBP",
}
_REFUND_WORD = re.compile(
    r"refund|退款|erstatt|rembours|reembols|rimbors|terugbetal|zwrot|zwroc|devulv|devolv|restitu"
    r"|\bpay\b|approve|money|action|\bamount\b|i.?d like"
)
# Each turn of a draft asks about the same ticket, and a long ticket takes 0.1 s to read.
REMEMBERED = 64
_SPACED_OUT = re.compile(r"(?:\b\w ){6,}")
_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+")


def unspaced(text: str) -> str:
    """The text with s p a c e d  o u t words joined."""
    if not _SPACED_OUT.search(text):
        return text
    return re.sub(r"  +", " ", re.sub(r"(?<=\b\w) (?=\w\b)", "", text))


@lru_cache(maxsize=REMEMBERED)
def without_orders(text: str) -> str:
    """The text without the sentences and blocks that give the model orders."""
    kept = _BLOCK.sub(" ", text)
    if kept == text and not _ORDERS_THE_MODEL.search(fold(text)):
        return text
    sentences = _SENTENCES.split(kept)
    return "\n".join(s for s in sentences if not _is_order(s))


def _is_order(sentence: str) -> bool:
    """Whether the sentence gives the model an order or demands a sum of money."""
    return bool(_ORDERS_THE_MODEL.search(fold(sentence))) or demanded_amount(sentence) is not None


@lru_cache(maxsize=REMEMBERED)
def is_ordered(text: str) -> bool:
    """Whether the ticket gives the model orders."""
    return bool(_BLOCK.search(text) or _ORDERS_THE_MODEL.search(fold(text)))


def demanded_amount(text: str) -> tuple[Decimal, str | None] | None:
    """The largest sum that the ticket asks for in a sentence about refunding, with its currency if named."""
    sums = [
        sum_ for sentence in _SENTENCES.split(text) if _REFUND_WORD.search(fold(sentence)) for sum_ in sums_in(sentence)
    ]
    return max(sums, key=lambda sum_: sum_[0], default=None)


def sums_in(text: str) -> list[tuple[Decimal, str | None]]:
    """The sums of money in a text, each with its currency or None: numbers beside a currency or with cents."""
    sums = []
    for match in _MONEY.finditer(fold(text)):
        unit = match["before"] or match["after"]
        number = match["number"]
        if unit is None and not re.search(r"[.,]\d\d$", number):
            continue
        if (value := _value(number)) is not None:
            sums.append((value, _CURRENCIES.get(unit) or _CURRENCIES.get(unit[:3]) if unit else None))
    return sums


def _value(number: str) -> Decimal | None:
    """The value of a number such as 5000, 5,000.00, 5.000,00 or 5 000. A mark before the last two digits is the decimal
    separator."""
    compact = re.sub(r"[ ']", "", number)
    cents = compact[-2:] if len(compact) > 3 and compact[-3] in ".," else ""
    digits = re.sub(r"[.,]", "", compact[: -len(cents)] if cents else compact)
    return Decimal(f"{digits}.{cents or '00'}") if digits.isdecimal() and len(digits) <= 12 else None
