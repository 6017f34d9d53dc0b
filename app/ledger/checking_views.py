"""What a check and a rebuild of the ledger tell programs: their JSON on the command line. Its keys stay."""

from __future__ import annotations

from app.cost.views import GroupView, View


class DifferenceView(View):
    """One thing that the ledger has otherwise than the histories; both sides as text."""

    task_id: str
    what: str
    expected: str
    found: str


class CheckedView(View):
    """All differences; none means that the ledger says what the histories say."""

    differences: tuple[DifferenceView, ...]


class RebuiltView(View):
    """What the ledger's charges summed to before and after; `other_books` tasks were billed by another price book."""

    tasks: int
    before: GroupView
    after: GroupView
    other_books: int
