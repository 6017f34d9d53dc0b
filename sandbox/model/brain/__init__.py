"""The rules that answer in place of a language model.

They read the messages, as a model would, and nothing else: neither the books nor the expected results. The stage in the
first line of the system message selects the rules; a request without a stage gets one fixed sentence.
"""

from __future__ import annotations

import json

from sandbox.model.brain import json_actions
from sandbox.model.brain.classify import classify
from sandbox.model.brain.conversation import OPENING, Prompt, read_prompt
from sandbox.model.brain.draft import draft
from sandbox.model.exchange import Answer, Question

GREETING = "This is the sandbox's model. It works the stages classify and draft; it has nothing to say without one."


def answer_question(question: Question) -> Answer:
    """Answers one request; the same messages always get the same answer."""
    if json_actions.described(question):
        return json_actions.in_words(answer_question(json_actions.with_tools(question)))
    if question.stage == "classify":
        return _classified(_prompt(question))
    if question.stage == "draft":
        return draft(question, _prompt(question))
    return Answer(text=GREETING)


def _prompt(question: Question) -> Prompt:
    """The ticket's message: the last one that holds a ticket, since a correction may follow it."""
    asked = [message.text for message in question.messages if message.role == "user"]
    with_ticket = [text for text in asked if OPENING in text]
    return read_prompt((with_ticket or asked or [""])[0])


def _classified(prompt: Prompt) -> Answer:
    found = classify(prompt)
    text = json.dumps(
        {
            "category": found.category.value,
            "wants_refund": found.wants_refund,
            "order_id": found.order_id,
            "language": found.language,
            "confidence": found.confidence,
        }
    )
    return Answer(text=text, thoughts=f"{found.language}: {found.category.value}, order {found.order_id}")
