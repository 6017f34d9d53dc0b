"""The product's worker with a bug: the workflow of a customer `load-34...` never comes back from its second turn.

As long as the file `mended` is not in the state folder. python -m tests.whole.endless_worker
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from dapr.ext.workflow import DaprWorkflowContext

from app import bootstrap
from app.config import settings
from app.worker import turns, worker
from app.worker.turns import Watchdog
from app.workflow.refund import refund_ticket
from app.workflow.steps import TaskInput

ENDLESS = "load-34"
MENDED = "mended"
REST_SECONDS = 1.0


def main() -> None:
    """Serves until it is told to stop, with a watchdog of little patience."""
    known = settings.load()

    def workflow(context: DaprWorkflowContext, task: TaskInput) -> Generator[Any, Any, dict[str, Any]]:
        process = refund_ticket(context, task)
        waits_for = next(process)
        while True:
            try:
                result = yield waits_for
            except Exception as error:
                waits_for = process.throw(error)
                continue
            while task.customer_id.startswith(ENDLESS) and not Path(known.state_dir / MENDED).exists():
                pass
            try:
                waits_for = process.send(result)
            except StopIteration as end:
                return dict(end.value)

    for module, name, value in (
        (bootstrap, "refund_ticket", workflow),
        (worker, "Watchdog", lambda: Watchdog(looks=5, pause_seconds=0.1)),
        (turns, "_FIRST_REST_SECONDS", REST_SECONDS),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)
    bootstrap.serve(known)


if __name__ == "__main__":
    main()
