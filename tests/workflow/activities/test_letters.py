"""A letter says what was decided, or it is not sent: whatever a model writes."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.models import Outcome, Refund, in_minor_units
from app.workflow.activities import letters
from tests.paths import ROOT

ORDER = "AC-10442"
REFUND = Refund(order_id=ORDER, amount=Decimal("1234.50"), currency="EUR")
REPLIES = ROOT / "sandbox" / "model" / "brain" / "replies"


@pytest.mark.parametrize(
    "letter",
    [
        "We are refunding 1234.50 EUR for AC-10442.",
        "Wir erstatten Ihnen 1.234,50 € für AC-10442.",
        "We refund EUR 1,234.50, which takes 5-10 days.",
        "You get 1 234,50 euros back within 14 business days.",
        "Your money is on its way.",
        "€1'234.50 is on its way.",
    ],
)
def test_a_letter_may_name_the_decided_refund(letter: str) -> None:
    assert letters.unfit(letter, REFUND, ORDER) is None


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        ("Your refund of 5000.00 USD is on its way.", "other_money"),
        ("Your refund of 1234.50 USD is on its way.", "other_money"),
        ("You get 1234.50 EUR and 20 EUR for the trouble.", "other_money"),
        ("You get 1234.50 EUR and twenty dollars for the trouble.", "other_money"),
        ("You get 1234.5 EUR or so.", "other_money"),
        ("You get 12345.0 EUR.", "other_money"),
        ("You get 123450 EUR.", "other_money"),
        ("You get 1234.50 EUR. Call 0049 30 1234567.", "other_money"),
        ("You get \uff15\uff10\uff10\uff10 EUR.", "other_money"),  # full-width digits
        ("You get \u0665\u0660\u0660\u0660 EUR.", "other_money"),  # Arabic digits
        ("You get USD-5000.", "other_money"),
        ("You get 1234.50 EUR, which is 110 percent.", "share"),
        ("You get 110% back.", "share"),
        ("See http://pay.example for your money.", "link_or_address"),
        ("See pay.example for your money.", "link_or_address"),
        ("Write to pay@example for your money.", "link_or_address"),
        ("<b>Your</b> money is back.", "link_or_address"),
        ("Your mo\u200bney is back.", "invisible_characters"),
        ("Your money is back\u202e.", "invisible_characters"),
    ],
)
def test_a_letter_that_says_anything_else_is_not_sent(letter: str, why: str) -> None:
    assert letters.unfit(letter, REFUND, ORDER) == why


@pytest.mark.parametrize("letter", ["You get 10.00 EUR.", "You get ten euros.", "You get 10 back.", "10 € are yours."])
def test_where_nothing_is_refunded_no_money_is_named(letter: str) -> None:
    assert letters.unfit(letter, None, ORDER) == "other_money"


def test_an_order_number_of_digits_is_known_by_the_books_alone() -> None:
    assert letters.unfit("About your order 100234.", None, "100234") is None
    assert letters.unfit("About your order 100234.", None, None) == "other_money"


@pytest.mark.parametrize("file", sorted(REPLIES.glob("*.toml")), ids=lambda path: path.stem)
def test_ordinary_letters_pass_in_every_language(file: Path) -> None:
    texts = tomllib.loads(file.read_text())
    for name, template in texts.items():
        letter = template.format(order_id=ORDER, amount="1234.50", currency="EUR")
        assert letters.unfit(letter, REFUND if name == "refund" else None, ORDER) is None, letter


def test_the_sentence_about_the_money_is_ours_in_every_letter() -> None:
    assert letters.compose(Outcome.REFUNDED, REFUND, "Good news.").endswith("Refund: 1234.50 EUR for order AC-10442.")
    assert letters.compose(Outcome.ANSWERED, None, "Everything back!").endswith(
        "No refund has been decided with this message."
    )
    assert "Refund:" in letters.compose(Outcome.REFUNDED, REFUND, None)


amounts = st.decimals(min_value="0.01", max_value="99999", places=2)


@given(decided=amounts, named=amounts, form=st.sampled_from(["{} EUR", "EUR {}", "€{}", "{} euros", "{}"]))
def test_no_other_amount_passes_however_it_is_written(decided: Decimal, named: Decimal, form: str) -> None:
    refund = Refund(order_id=ORDER, amount=decided, currency="EUR")
    for text in (f"{named:f}", f"{named:,.2f}", f"{named:,.2f}".translate(str.maketrans(",.", ".,"))):
        passes = letters.unfit(f"You get {form.format(text)} back.", refund, ORDER) is None
        assert passes == (named == decided), text


@example("EURE")  # a word that only begins like a currency
@given(st.text(alphabet="1 .,€EURd%@-x\n", max_size=60))
def test_what_passes_without_a_refund_holds_no_digit_but_of_orders_and_periods(text: str) -> None:
    if letters.unfit(text, None, None) is None:
        left = re.sub(r"[A-Za-z]{1,6}-\d{3,}|\d{1,3}(?: ?- ?\d{1,3})? \w+", "", text)
        assert not re.search(r"\d|€|\bEUR\b|%|@", left)


@pytest.mark.parametrize("piece", ["1", "1.", "EUR ", "1 EUR ", "AC-", "1-1 ", "a.", "$"])
def test_the_longest_letter_is_looked_through_at_once(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    letters.unfit(text, REFUND, ORDER)  # the time-out of the test is what a quadratic search would meet


@pytest.mark.parametrize(
    ("amount", "currency", "normal"),
    [
        ("1e1", "EUR", "10.00"),
        ("20.000", "USD", "20.00"),
        ("1.234", "KWD", "1.234"),
        ("100.0", "JPY", "100"),
        ("1E+2", "JPY", "100"),
    ],
)
def test_an_amount_has_one_form(amount: str, currency: str, normal: str) -> None:
    refund = Refund.model_validate({"order_id": ORDER, "amount": amount, "currency": currency})
    assert refund.model_dump(mode="json")["amount"] == normal == format(in_minor_units(Decimal(amount), currency), "f")


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        ("100.50", "JPY", "more than the 0 decimal places of JPY"),
        ("1.2345", "KWD", "more than the 3 decimal places of KWD"),
        ("0.001", "EUR", "more than the 2 decimal places of EUR"),
        ("1.00", "ZZZ", "ZZZ is not a currency"),
        ("1.00", "XAU", "XAU is not a currency"),
        ("1e999999", "EUR", "digits"),
        ("NaN", "EUR", "finite"),
        ("-1.00", "EUR", "greater than or equal"),
    ],
)
def test_an_amount_that_its_currency_does_not_have_is_refused(amount: str, currency: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Refund.model_validate({"order_id": ORDER, "amount": amount, "currency": currency})
