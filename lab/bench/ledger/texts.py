"""What tickets, answers and step results say: made up, of the sizes that the sample tickets of a real run have."""

from __future__ import annotations

import json
import random

_SENTENCES = (
    "I ordered this two weeks ago and it still has not arrived.",
    "The tracking page has said the same thing for days now.",
    "When I opened the parcel, the glass was cracked in two places.",
    "I have attached photos to my first message, please have a look at them.",
    "Could you tell me whether the larger size will be back in stock before the holidays?",
    "My bank statement shows the same amount twice, on the same day.",
    "I would rather have my money back than a voucher.",
    "Honestly, I have been a customer for years and never had to write to you before.",
    "Please let me know which address I should send it back to, and who pays for that.",
    "The colour on the website looks nothing like the thing that is on my desk now.",
    "If that is not possible, a replacement would be fine as well.",
    "Thank you for your help, and kind regards.",
)
_SUBJECTS = ("Broken on arrival", "Where is my order?", "Charged twice", "Question about sizes", "Cancel, please")


def subject(chance: random.Random) -> str:
    """A few words."""
    return chance.choice(_SUBJECTS)


def letter(chance: random.Random) -> str:
    """A customer's text: most are a paragraph, a few are pages."""
    sentences = min(max(int(chance.lognormvariate(2.2, 0.7)), 1), 120)
    return " ".join(chance.choices(_SENTENCES, k=sentences))


def reply(chance: random.Random) -> str:
    """The agent's answer to the customer."""
    return "Hello,\n\n" + " ".join(chance.choices(_SENTENCES, k=chance.randint(2, 5))) + "\n\nCustomer service"


def classification(category: str, order_id: str | None) -> str:
    """What the model says in the first stage."""
    wants = order_id is not None
    return json.dumps(
        {"category": category, "wants_refund": wants, "order_id": order_id, "language": "en", "confidence": 0.94}
    )


def draft(action: str, order_id: str | None, amount: str | None, text: str) -> str:
    """What the model says in the third stage."""
    money = {"order_id": order_id, "amount": amount, "currency": "EUR" if amount else None}
    return json.dumps({"action": action, **money, "reason": "as_ordered", "confidence": 0.91, "reply": text})


ACCOUNT = json.dumps(
    {
        "account": {
            "customer_id": "c-4711",
            "tier": "gold",
            "since_days": 812,
            "risk": "low",
            "refunds_90d": 1,
            "orders": [
                {
                    "order_id": f"AC-1044{place}",
                    "status": "delivered",
                    "placed_days_ago": 9 + place,
                    "total": "49.90",
                    "currency": "EUR",
                    "items": ["desk lamp", "cable"],
                }
                for place in range(2)
            ],
        },
        "problem": None,
    }
)
ORDER = json.dumps(
    {
        "order": {
            "order_id": "AC-10442",
            "status": "delivered",
            "placed_days_ago": 9,
            "delivered_days_ago": 4,
            "currency": "EUR",
            "total": "49.90",
            "charged": "49.90",
            "refunded": "0.00",
            "refundable": "49.90",
            "items": [{"sku": "L-1", "name": "desk lamp", "quantity": 1, "unit_price": "49.90"}],
        },
        "problem": None,
    }
)
POLICY = json.dumps(
    {
        "policy": {
            "category": "damaged",
            "window_days": 30,
            "counted_from": "delivery",
            "refund_percent": 100,
            "text": "Damaged goods are refunded in full within 30 days of delivery; no return is needed.",
        },
        "problem": None,
    }
)
NOTICE = json.dumps({"notification_id": "n-20991"})
CLOSED = json.dumps({"case_id": "k-20991", "refund_id": None, "refusal": None})
RESULTS = {
    "retrieve_account": ACCOUNT,
    "lookup_order": ORDER,
    "lookup_refund_policy": POLICY,
    "notify_customer": NOTICE,
    "close_case": CLOSED,
}
