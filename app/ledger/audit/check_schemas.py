"""What a check and a rebuild of the ledger tell programs: their JSON on the command line. Its keys stay."""

from __future__ import annotations

from app.finance.report_schemas import GroupView, View


class DifferenceView(View):
    """One thing that the ledger has otherwise than its sources; `task_id` is empty for a sum of many tasks. `source`
    says who expects it: `sources` (histories, journal, charges) or `books`; `remedy` is empty where a rebuild mends."""

    task_id: str
    what: str
    expected: str
    found: str
    source: str
    remedy: str


class RefundsView(View):
    """How many refunds the books and the ledger hold, and how many of the books' belong to tasks that have not ended;
    `problem` says why not all books were read, and is empty when they were."""

    in_books: int
    in_ledger: int
    in_flight: int
    problem: str


class CheckedView(View):
    """All differences, those of refunds among them. None, and no problem: the ledger says what its sources say."""

    differences: tuple[DifferenceView, ...]
    refunds: RefundsView


class RebuiltView(View):
    """What all charges summed to before and after. `kept`: tasks without a history that can be read, or with an older
    one than the record, left as they were. `repriced`: tasks whose price book cannot be had any more, so that today's
    was taken. `restored`: tasks that the ledger had lost; their tickets have no texts."""

    tasks: int
    kept: tuple[str, ...]
    repriced: tuple[str, ...]
    restored: tuple[str, ...]
    before: GroupView
    after: GroupView
