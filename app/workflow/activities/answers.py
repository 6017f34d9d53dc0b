"""Turns what a model wrote into values, or says why that cannot be. Pure; never quotes the model's text."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Value = TypeVar("Value", bound=BaseModel)
_MOST_PLACES = 60


class Nonsense(Exception):
    """The model's answer is not usable; the message says why, in words that may travel."""


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object in `text`; models like to wrap it in a fence or a sentence."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise Nonsense("it holds no JSON object")
    try:
        value = json.loads(text[start : end + 1], parse_float=_number)
    except (ValueError, ArithmeticError, RecursionError):  # a number beyond all bounds, or nested too deeply
        raise Nonsense("it is not valid JSON") from None
    if not isinstance(value, dict):
        raise Nonsense("it is not a JSON object")
    return value


def _number(text: str) -> Decimal:
    """Exactly as written. Raises ValueError beyond what any field holds: 1e999999999 is slow to turn into anything."""
    found = Decimal(text)
    if abs(found.adjusted()) > _MOST_PLACES:
        raise ValueError
    return found


def validated(model: type[Value], values: dict[str, Any]) -> Value:
    """`values` as `model`; unknown keys are dropped, since models add some. Raises Nonsense."""
    known = {key: value for key, value in values.items() if key in model.model_fields}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['type']}"
            for problem in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise Nonsense("; ".join(sorted(problems))) from None
