"""The rules that answer in place of a language model.

They read the messages, as a model would, and nothing else: neither the books nor the expected results. The stage in the
first line of the system message selects the rules; a request without a stage gets what `assistant` says.
"""

from __future__ import annotations

import json

from sandbox.model.brain import json_actions
from sandbox.model.brain.assistant import assist
from sandbox.model.brain.classify import classify
from sandbox.model.brain.conversation import OPENING, Prompt, read_prompt
from sandbox.model.brain.draft import draft
from sandbox.model.exchange import Answer, Question


def answer_question(question: Question) -> Answer:
    """Answers one request; the same messages always get the same answer."""
    if json_actions.described(question):
        return json_actions.calls_as_text(answer_question(json_actions.with_tools(question)))
    if question.stage == "classify":
        return _answer_classify(_prompt(question))
    if question.stage == "draft":
        return draft(question, _prompt(question))
    return assist(question)


def _prompt(question: Question) -> Prompt:
    """The first user message that holds a ticket; a correction may follow it."""
    texts = [message.text for message in question.messages if message.role == "user"]
    with_ticket = [text for text in texts if OPENING in text]
    return read_prompt((with_ticket or texts or [""])[0])


def _answer_classify(prompt: Prompt) -> Answer:
    result = classify(prompt)
    text = json.dumps(
        {
            "category": result.category.value,
            "wants_refund": result.wants_refund,
            "order_id": result.order_id,
            "language": result.language,
            "confidence": result.confidence,
        }
    )
    return Answer(text=text, thoughts=f"{result.language}: {result.category.value}, order {result.order_id}")
