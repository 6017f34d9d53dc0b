"""What a check and a rebuild of the ledger tell programs: their JSON on the command line. Its keys stay."""

from __future__ import annotations

from app.cost.views import GroupView, View


class DifferenceView(View):
    """One thing that the ledger has otherwise than its sources; `task_id` is empty for a sum of many tasks."""

    task_id: str
    what: str
    expected: str
    found: str


class CheckedView(View):
    """All differences; none means that the ledger says what its sources say."""

    differences: tuple[DifferenceView, ...]


class RebuiltView(View):
    """What all charges summed to before and after. `kept`: tasks without a history that can be read, left as they were.
    `repriced`: tasks whose price book cannot be had any more, so that today's was taken."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    before: GroupView
    after: GroupView
