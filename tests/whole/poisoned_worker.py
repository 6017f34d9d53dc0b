"""The product's worker with one ticket that kills it: whoever looks up the order of a customer `load-13...` dies.

python -m tests.whole.poisoned_worker
"""

from __future__ import annotations

import os
import signal
from typing import Any

from dapr.ext.workflow import WorkflowActivityContext

from app import bootstrap
from app.config import settings
from app.workflow.activities import TOOLS
from app.workflow.activities.services import Activity, Services
from app.workflow.activities.tools import OrderInput, lookup_order

POISON = "load-13"


def poisoned(services: Services) -> Activity:
    """The tool as it is, but for one customer."""
    healthy = lookup_order(services)

    async def lookup_order_(context: WorkflowActivityContext, question: OrderInput) -> Any:
        if question.customer_id.startswith(POISON):
            os.kill(os.getpid(), signal.SIGKILL)
        return await healthy(context, question)

    lookup_order_.__name__ = "lookup_order"
    return lookup_order_


poisoned.__name__ = "lookup_order"


def main() -> None:
    """Serves until killed."""
    tools = tuple(poisoned if tool is lookup_order else tool for tool in TOOLS)
    assert tools != TOOLS
    setattr(bootstrap, "TOOLS", tools)  # noqa: B010 - it is not exported there
    bootstrap.serve(settings.load())


if __name__ == "__main__":
    main()
