"""From a model's text to values, or to the reason why that fails. A reason never quotes the model's text."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Value = TypeVar("Value", bound=BaseModel)
_MAX_PLACES = 60


class InvalidAnswer(Exception):
    """The model's answer is not usable. The message says why without quoting it, so it may be stored in a history."""


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object in `text`, which models often wrap in a code fence or a sentence. Raises InvalidAnswer."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise InvalidAnswer("it holds no JSON object")
    try:
        value = json.loads(text[start : end + 1], parse_float=_number)
    except (ValueError, ArithmeticError, RecursionError):  # a number beyond all bounds, or nested too deeply
        raise InvalidAnswer("it is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidAnswer("it is not a JSON object")
    return value


def _number(text: str) -> Decimal:
    """The exact value. Raises ValueError for exponents that no field could hold: converting 1e999999999 is slow."""
    number = Decimal(text)
    if abs(number.adjusted()) > _MAX_PLACES:
        raise ValueError
    return number


def validate(model: type[Value], values: dict[str, Any]) -> Value:
    """`values` as `model`; unknown keys, which models sometimes add, are dropped. Raises InvalidAnswer."""
    fields = {key: value for key, value in values.items() if key in model.model_fields}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['type']}"
            for problem in error.errors(include_input=False, include_context=False, include_url=False)
        ]
        raise InvalidAnswer("; ".join(sorted(problems))) from None
