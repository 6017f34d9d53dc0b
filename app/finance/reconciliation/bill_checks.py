"""Values of a bill in JSON against their shape; what does not fit is named with its place. Pure."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from app.finance.reconciliation.bill import BadBill

# More than any bill has in a row: longer numbers are slips.
Tokens = Annotated[int, Field(ge=0, lt=10**15, strict=True)]
_Model = TypeVar("_Model", bound=BaseModel)


def checked(name: str, place: str, model: type[_Model], value: Any) -> _Model:
    """`value` as `model`. Raises BadBill."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        found = "" if first["type"] == "missing" else f", not {shown(first['input'])}"
        raise BadBill(name, f"{place}{path}", f"{first['msg']}{found}", "mend it, or export the bill again") from None


def shown(value: Any) -> str:
    """A value for a message, not longer than it is read."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def part(name: str, place: str, inside: int | None, whole: int) -> int | None:
    """Cached tokens, which are inside the input. Raises BadBill when they are more than it."""
    if inside is not None and inside > whole:
        problem = f"{inside} cached tokens are more than {whole} of input"
        raise BadBill(name, place, problem, "mend it, or export the bill again")
    return inside
