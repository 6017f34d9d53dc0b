"""The product's worker with a change to its workflow: the books are asked once more before the customer is told.

The file `code` in the state folder says how it was written: as it is (`old`), with a patch (`patched`), or without
one (`careless`). python -m tests.whole.upgraded_worker
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from app import bootstrap
from app.config import settings
from app.workflow import refund
from app.workflow.steps import Steps, TaskInput

CODE = "code"
CHANGE = "books-before-letter"


def main() -> None:
    """Serves until it is told to stop."""
    known = settings.load()
    file = known.state_dir / CODE
    code = file.read_text() if file.exists() else "old"
    as_it_is = refund._carry_out

    def carried_out(steps: Steps, task: TaskInput, *more: Any) -> Generator[Any, Any, Any]:
        if code == "careless" or steps.patched(CHANGE):
            yield from refund._retrieve_account(steps, task, True)
        return (yield from as_it_is(steps, task, *more))

    if code != "old":
        setattr(refund, "_carry_out", carried_out)  # noqa: B010 - it is not exported there
    bootstrap.serve(known)


if __name__ == "__main__":
    main()
