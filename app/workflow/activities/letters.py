"""Whether a letter that a model wrote may go to the customer, and the sentences that are ours. Pure.

A letter may name no number but the decided refund, an order and a period of time; no share of anything, no way to reach
somebody, and no invisible characters. What it means in plain words cannot be checked, so every letter of a model ends
with our own sentence about the money. The check is strict, since a letter that does not pass costs nothing: ours is
sent instead.
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
    """Why the letter may not be sent with this decision, as a short code; None when it may. `order_id` is the order
    that the letter may name as it is written."""
    text = unicodedata.normalize("NFKC", letter)
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs") and letter not in "\n\t" for letter in text):
        return "invisible_characters"
    if _REACH.search(text):
        return "link_or_address"
    if _SHARE.search(text):
        return "share"
    if order_id:
        text = text.replace(order_id, " ")
    text = _ORDER_NUMBER.sub(lambda found: found[0] if _is_money(found["letters"]) else " ", text)
    text = _PERIOD.sub(" ", text)
    if refund is not None:
        text = _AMOUNT.sub(lambda found: " " if _names(found, refund) else found[0], text)
    return "other_money" if _is_money(text) or re.search(r"\d", text) else None


def composed(outcome: Outcome, refund: Refund | None, letter: str | None) -> str:
    """What the customer reads: the model's letter, or ours where there is none, and our sentence about the money."""
    if refund is not None:
        return f"{letter or _OURS[outcome]}\n\nRefund: {refund.amount} {refund.currency} for order {refund.order_id}."
    return f"{letter}\n\n{_NO_REFUND}" if letter else _OURS[outcome]


def _is_money(text: str) -> bool:
    """Whether the text names a currency by symbol, word or code."""
    return bool(_MONEY.search(text)) or any(is_currency(found[0]) for found in _CODE.finditer(text))


def _names(found: re.Match[str], refund: Refund) -> bool:
    """Whether what was found is the refund's amount, and no currency beside it is another one's code."""
    marks = [mark.strip() for mark in (found["before"], found["after"]) if mark]
    codes = [mark.upper() for mark in marks if is_currency(mark.upper())]
    return all(code == refund.currency for code in codes) and _says(found["number"], refund.amount)


def _says(number: str, amount: Decimal) -> bool:
    """Whether the number is that amount, however its digits are grouped: 1.234,50 and 1,234.50 are both 1234.50."""
    whole, _, fraction = format(amount, "f").partition(".")
    digits = re.sub(r"\D", "", number)
    if fraction and re.search(rf"[.,]\d{{{len(fraction)}}}$", number):
        return digits == whole + fraction
    return digits == whole and not fraction.strip("0")
