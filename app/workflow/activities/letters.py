"""Checks whether a letter that a model wrote may go to the customer, and holds our own letters.

The only numbers a letter may contain are the decided refund, the order's number and periods of time. It may contain no
percentage, no address or link, and no invisible characters. What it means in plain words cannot be checked, so every
letter of a model ends with our own sentence about the money. The check is strict: a letter that fails it is replaced by
ours at no cost.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from app.domain.models import Outcome, Refund, is_currency

_OURS = {
    Outcome.REFUNDED: "We have looked at your request and are sending your money back.",
    Outcome.DECLINED: "We have looked at your request. Our refund policy does not allow a refund in this case.",
    Outcome.ANSWERED: "Thank you for your message. Please write to us if anything is left open.",
    Outcome.REJECTED: "A colleague has looked at your request. We cannot refund this order.",
    Outcome.EXPIRED: "We are still looking at your request and will come back to you.",
}
_NO_REFUND = "No refund has been decided with this message."

# Symbols and names of money in the languages that customers write; codes are ISO 4217's.
_SYMBOL = r"[$€£¥₹₽₩₺₴₦₫฿₱₪]"
_WORD = (
    r"\b(?:usd|eur|gbp|chf|jpy|cad|aud|pln|brl|dollars?|dólar(?:es)?|dollari?|dolar\w*|bucks?|euros?|eur[oi]|pounds?|"
    r"pfund|libras?|sterling|sterline|francs?|franken|franchi|francos?|yen|yuan|rupees?|reais|pesos?|kron\w+|kr|zł\w*|"
    r"złot\w+|zloty\w*|cents?|céntimos?|centimes?|centesimi|cêntimos?|pence|rappen|grosz\w*|"
    r"euro(?:s|w)?|euroa)\b"
)
_MARK = rf"(?:{_SYMBOL}|{_WORD}|\b[A-Z]{{3}}\b)"
_MONEY = re.compile(rf"{_SYMBOL}|{_WORD}", re.IGNORECASE)
_CODE = re.compile(r"\b[A-Z]{3}\b")
_NUMBER = r"\d(?:[.,'\u2019 ]?\d)*+"
_AMOUNT = re.compile(rf"(?P<before>(?i:{_MARK}) ?)?(?P<number>{_NUMBER})(?P<after> ?(?i:{_MARK}))?")
_ORDER_NUMBER = re.compile(r"\b(?P<letters>[A-Za-z]{1,6})-\d{3,}\b")
_PERIOD = re.compile(
    r"\b\d{1,3}(?: ?[-\u2013] ?\d{1,3})? (?:(?:business|working) )?(?:hours?|days?|weeks?|months?|Stunden?|"
    r"(?:Werk)?Tage?n?|Wochen?|Monaten?|Monate?|heures?|jours?|semaines?|mois|horas?|días?|dias?|semanas?|mes(?:es)?|"
    r"ore|giorni|giorno|settiman[ae]|mes[ei]|uur|dagen|dag|weken|maanden?|godzin\w*|dni|dzień|tygodni\w*|miesi\w+)\b",
    re.IGNORECASE,
)
_REACH = re.compile(r"@|://|www\.|\w\.[^\W\d_]{2}|[<>{}\[\]\\]", re.IGNORECASE)
_SHARE = re.compile(
    r"[%‰]|\b(?:per ?cent|prozent|por ?ciento|por ?cento|percento|pour ?cent|procent\w*)\b", re.IGNORECASE
)


def unfit(letter: str, refund: Refund | None, order_id: str | None) -> str | None:
    """The short code of why the letter may not be sent with this decision; None when it may. `order_id` is the order
    whose number the letter may contain."""
    text = unicodedata.normalize("NFKC", letter)
    if any(unicodedata.category(sign) in ("Cc", "Cf", "Co", "Cs") and sign not in "\n\t" for sign in text):
        return "invisible_characters"
    if _REACH.search(text):
        return "link_or_address"
    if _SHARE.search(text):
        return "share"
    if order_id:
        text = text.replace(order_id, " ")
    text = _ORDER_NUMBER.sub(lambda match: match[0] if _is_money(match["letters"]) else " ", text)
    text = _PERIOD.sub(" ", text)
    if refund is not None:
        text = _AMOUNT.sub(lambda match: " " if _names(match, refund) else match[0], text)
    return "other_money" if _is_money(text) or re.search(r"\d", text) else None


def compose(outcome: Outcome, refund: Refund | None, letter: str | None) -> str:
    """The text that the customer gets: the model's letter, or ours without one, then our sentence about the money."""
    if refund is not None:
        return f"{letter or _OURS[outcome]}\n\nRefund: {refund.amount} {refund.currency} for order {refund.order_id}."
    return f"{letter}\n\n{_NO_REFUND}" if letter else _OURS[outcome]


def _is_money(text: str) -> bool:
    """Whether the text names a currency by symbol, word or code."""
    return bool(_MONEY.search(text)) or any(is_currency(match[0]) for match in _CODE.finditer(text))


def _names(match: re.Match[str], refund: Refund) -> bool:
    """Whether a match of `_AMOUNT` is the refund's amount, without the code of another currency beside it."""
    marks = [mark.strip() for mark in (match["before"], match["after"]) if mark]
    codes = [mark.upper() for mark in marks if is_currency(mark.upper())]
    return all(code == refund.currency for code in codes) and _equals(match["number"], refund.amount)


def _equals(number: str, amount: Decimal) -> bool:
    """Whether a written number is the amount, whatever separates its digits: 1.234,50 and 1,234.50 are 1234.50."""
    whole, _, fraction = format(amount, "f").partition(".")
    digits = re.sub(r"\D", "", number)
    if fraction and re.search(rf"[.,]\d{{{len(fraction)}}}$", number):
        return digits == whole + fraction
    return digits == whole and not fraction.strip("0")
