"""Stage classify: which category a ticket is, whether money is wanted back, and how sure that is.

A refundable category needs evidence in the text; anger, thanks and politeness count only without such evidence.
Confidence grows with the lead over the second-best category and falls if there is little evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.models import Category
from sandbox.model.brain.conversation import Prompt
from sandbox.model.brain.injection import unspaced, without_orders
from sandbox.model.brain.signals import ASKED, NAMES_ORDER, Signals, order_ids, read_signals, sentence_with

ENOUGH = 2.0
STRONG = 4.0
_CLAIMS = (  # of two categories with equal weight, the first wins
    Category.DOUBLE_CHARGE,
    Category.CANCELLATION,
    Category.DAMAGED,
    Category.NOT_RECEIVED,
    Category.WRONG_ITEM,
    Category.CHANGED_MIND,
)
_FEW_WORDS = 6
_TELLS_SOMETHING = 12


@dataclass(frozen=True)
class Classification:
    """The answer of the stage."""

    category: Category
    wants_refund: bool
    order_id: str | None
    language: str
    confidence: float


def classify(prompt: Prompt) -> Classification:
    """Classifies one ticket."""
    signals = read_signals(without_orders(prompt.subject), without_orders(unspaced(prompt.text)))
    category, wants, lead = judge(signals)
    return Classification(
        category=category,
        wants_refund=wants,
        order_id=named_order(prompt),
        language=signals.language,
        confidence=_confidence(category, lead, signals),
    )


def judge(signals: Signals) -> tuple[Category, bool, float]:
    """The category, whether a refund is wanted, and the lead of this reading from 0 to 1."""
    best, category, second = _best_claim(signals)
    unwanted = signals.of("unwanted") >= STRONG
    wants = signals.of("wants") >= ENOUGH and not unwanted
    fraud = signals.of("fraud")
    if fraud >= STRONG and fraud >= best:
        return Category.FRAUD, wants, _lead(fraud, best)
    if best < _claim_needs(signals, wants) or unwanted or _only_asks(signals, best, wants):
        return _without_claim(signals, best, wants)
    return category, True, _lead(best, max(second, fraud))


def _best_claim(signals: Signals) -> tuple[float, Category, float]:
    """The weight and name of the strongest refundable category, and the weight of the second."""
    first, second, *_ = sorted(_CLAIMS, key=signals.of, reverse=True)
    return signals.of(first), first, signals.of(second)


def _claim_needs(signals: Signals, wants: bool) -> float:
    """The evidence that a claim needs: more if the ticket names neither money nor an order, or is mostly angry."""
    if wants or signals.of(NAMES_ORDER):
        return ENOUGH
    return max(STRONG, signals.of("complaint"))


def _only_asks(signals: Signals, best: float, wants: bool) -> bool:
    """Whether the ticket only asks a question, real or hypothetical, and makes no claim."""
    asks = _questions(signals)
    if signals.of("hypothetical") >= STRONG and not signals.of(NAMES_ORDER) and asks >= best:
        return True
    return not wants and asks > best


def _questions(signals: Signals) -> float:
    """The weight of the question words, helped by question marks."""
    return signals.of("question") + ENOUGH * min(2.0, signals.of(ASKED))


def _without_claim(signals: Signals, best: float, wants: bool) -> tuple[Category, bool, float]:
    question, complaint = _questions(signals), signals.of("complaint")
    if wants and question < STRONG * (1 if not signals.of(NAMES_ORDER) else 2):
        return _guess(signals), True, 0.0
    if _says_nothing(signals):
        return Category.UNCLEAR, wants, 0.0
    if complaint > question or (complaint >= STRONG and complaint >= question) or question < ENOUGH:
        return Category.COMPLAINT, False, _lead(complaint, max(question, best))
    return Category.QUESTION, False, _lead(question, max(complaint, best))


def _guess(signals: Signals) -> Category:
    """No list holds all names of defects, so a long ticket that wants money for an order is taken for a defect."""
    is_story = signals.word_count >= _TELLS_SOMETHING and signals.of(NAMES_ORDER) > 0
    return Category.DAMAGED if is_story else Category.UNCLEAR


def _says_nothing(signals: Signals) -> bool:
    """Whether a ticket is too short or too vague to be classified."""
    if signals.of("complaint") >= STRONG or signals.of("question") >= STRONG:
        return False
    short = signals.word_count < _TELLS_SOMETHING
    return signals.word_count < _FEW_WORDS - 2 or (short and (signals.of("vague") > 0 or not _questions(signals)))


def _lead(first: float, second: float) -> float:
    return (first - second) / first if first > 0 else 0.0


def _confidence(category: Category, lead: float, signals: Signals) -> float:
    if category is Category.UNCLEAR:
        return 0.3 if signals.word_count < _FEW_WORDS else 0.45
    evidence = min(1.0, signals.of(category) / STRONG)
    sure = 0.55 + 0.25 * max(0.0, min(1.0, lead * 2)) + 0.18 * evidence
    return round(sure * (0.85 if signals.word_count < _FEW_WORDS else 1.0), 2)


def named_order(prompt: Prompt) -> str | None:
    """The order that the ticket is about: the most likely one of its text, otherwise the form's."""
    ids = order_ids(f"{prompt.subject}\n{prompt.text}")
    form = (order_ids(prompt.order_id) or [prompt.order_id])[0] if prompt.order_id else None
    if not ids or form in ids:
        return form
    if len(ids) == 1:
        return ids[0]
    return max(ids, key=lambda order_id: _claims(sentence_with(prompt.text, order_id)))


def _claims(sentence: str) -> float:
    signals = read_signals("", sentence)
    return signals.of("wants") + max(signals.of(category) for category in _CLAIMS)
