"""The desk where tickets arrive and people decide: intake, reading and steering of tasks, for web and command line."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC

from app import decisions
from app.errors import DecisionRefused, NotWaiting, TooLate, Unreachable
from app.ledger.decisions import Decisions
from app.ledger.tickets import StoredTicket, Tickets
from app.models import Decision, DecisionState, DecisionView, Settled, TaskPage, TaskStatus, TaskView, Ticket
from app.policy import Rules
from app.runs import Run, Runs
from app.steps import TaskInput

# A page by status looks through this many tickets at most; the cursor goes on from there.
_LOOKED_THROUGH = 500
# Whoever starts a task has one of these to itself: by the task's id, so that others need not wait.
_STARTERS = 64
# How long a decision is waited for: the task looks the order up, which takes a moment.
_DECIDED_WITHIN_SECONDS, _LOOK_AGAIN_SECONDS = 5.0, 0.1


class TaskDesk:
    """Intake is idempotent: the same ticket is the same task, however often and whenever it arrives. Thread-safe."""

    def __init__(
        self,
        tickets: Tickets,
        runs: Runs,
        rules: Rules,
        trail: Decisions,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._tickets = tickets
        self._runs = runs
        self._rules = rules
        self._trail = trail
        self._pause = pause
        self._starting = tuple(threading.Lock() for _ in range(_STARTERS))

    def submit(self, ticket: Ticket) -> tuple[TaskView, bool]:
        """Accepts a ticket and starts its task; True when it is new. Raises Conflict, Unreachable."""
        stored, created = self._tickets.accept(ticket)
        if not stored.started:
            self._start(stored)
        if created:
            return _view(stored, None), True
        return self.get(stored.task_id), False

    def start_waiting_tickets(self) -> int:
        """Starts what a process that died had accepted but not started; returns how many."""
        waiting = self._tickets.not_started()
        for stored in waiting:
            self._start(stored)
        return len(waiting)

    def get(self, task_id: str) -> TaskView:
        """Reads one task. Raises TaskNotFound."""
        stored = self._tickets.get(task_id)
        run = self._runs.get(task_id)
        return _view(stored, run).model_copy(update={"decisions": self._decisions(task_id, run)})

    def list(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int, after: str | None
    ) -> TaskPage:
        """A page of tasks in order of arrival; `tenants` None is all, `after` the cursor of the page before."""
        start = int(after or 0)
        if status is None:
            found = self._tickets.page(tenants, start, limit)
            views = tuple(_view(stored, self._runs.get(stored.task_id)) for stored in found)
            return TaskPage(tasks=views, next_after=str(found[-1].sequence) if len(found) == limit else None)
        return self._filtered(tenants, status, limit, start)

    def newest(self, tenants: frozenset[str] | None, limit: int, before: str | None) -> TaskPage:
        """A page of tasks, newest first; `before` is the cursor of the page before."""
        found = self._tickets.newest(tenants, int(before) if before else None, limit)
        views = tuple(_view(stored, self._runs.get(stored.task_id)) for stored in found)
        return TaskPage(tasks=views, next_after=str(found[-1].sequence) if len(found) == limit else None)

    def pause(self, task_id: str) -> TaskView:
        """Stops the task between two steps until `resume`. Raises NotWaiting when it has ended or is paused already."""
        if self._in_progress(task_id).status is TaskStatus.PAUSED:
            raise NotWaiting(f"task {task_id} is paused already; `task resume` lets it go on")
        self._runs.pause(task_id)
        return self.get(task_id)

    def resume(self, task_id: str) -> TaskView:
        """Lets a paused or parked task go on. Raises NotWaiting."""
        view = self._in_progress(task_id)
        if view.status is TaskStatus.PAUSED:
            self._runs.resume(task_id)
        elif view.status is TaskStatus.PARKED:
            self._runs.unpark(task_id)
        else:
            raise NotWaiting(
                f"task {task_id} is {view.status.value}, neither paused nor parked; there is nothing to resume"
            )
        return self.get(task_id)

    def decide(self, task_id: str, decision: Decision, note: str = "") -> tuple[TaskView, bool]:
        """Hands a person's decision to a waiting task, and waits a moment for what becomes of it: True when it is
        accepted, False when nobody knows yet. Each decision is written down, and so is what became of it. Raises
        NotWaiting, TooLate, DecisionRefused."""
        view = self._to_decide(task_id, decision, note)
        question = view.question.number if view.question else None
        decision = decision.model_copy(update={"question": question, "decision_id": _new_id()})
        self._trail.write_down(task_id, decision, note)
        self._runs.decide(task_id, decision)
        view = self._settled(task_id, decision)
        made = next(each for each in view.decisions if each.decision_id == decision.decision_id)
        if made.state is DecisionState.REFUSED:
            raise DecisionRefused(f"task {task_id}: {made.words}; it waits as before", code=made.code)
        if made.state is DecisionState.TOO_LATE:
            raise TooLate(f"task {task_id}: {made.words}; look with `task show {task_id}`")
        return view, made.state is DecisionState.ACCEPTED

    def denied(self, task_id: str, decision: Decision) -> None:
        """Notes that somebody tried to decide who may not. Raises TaskNotFound."""
        self._tickets.get(task_id)
        self._refused(task_id, decision, "", decisions.NO_ROLE)

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Ends a task for good; what is posted stays posted. Raises NotWaiting when it has ended."""
        self._in_progress(task_id)
        self._runs.terminate(task_id, reason)
        return self.get(task_id)

    def restart(self, task_id: str) -> None:
        """Starts a task's run anew; Dapr wipes the ended one. For a run that was given up for no fault of the task."""
        self._runs.start(self._input(self._tickets.get(task_id)))

    def _to_decide(self, task_id: str, decision: Decision, note: str) -> TaskView:
        """The task, when it can take the decision; otherwise the attempt is noted, and refused."""
        view = self.get(task_id)
        if view.status is not TaskStatus.WAITING:
            self._refused(task_id, decision, note, decisions.NOT_WAITING)
            raise NotWaiting(
                f"task {task_id} {_where_it_is(view)}; only a waiting task takes a decision"
                + _decided_before(view.decisions)
            )
        if decision.verdict == "approve" and decision.refund is None and view.proposed_refund is None:
            self._refused(task_id, decision, note, decisions.NO_REFUND)
            raise DecisionRefused(
                f"task {task_id} waits because of {view.waiting_for} and proposes no refund; "
                "approve it with order, amount and currency, or reject it",
                code=decisions.NO_REFUND,
            )
        return view

    def _refused(self, task_id: str, decision: Decision, note: str, code: str) -> None:
        self._trail.refused(task_id, decision.model_copy(update={"decision_id": _new_id()}), note, code)

    def _settled(self, task_id: str, decision: Decision) -> TaskView:
        """The task as soon as it says what became of the decision, or when it has had its time."""
        limit = time.monotonic() + _DECIDED_WITHIN_SECONDS
        while True:
            try:
                view = self.get(task_id)
            except Unreachable:
                view = _view(self._tickets.get(task_id), None)
                view = view.model_copy(update={"decisions": self._trail.of(task_id)})
            made = next(each for each in view.decisions if each.decision_id == decision.decision_id)
            if made.state is not DecisionState.HANDED_OVER or time.monotonic() >= limit:
                return view
            self._pause(_LOOK_AGAIN_SECONDS)

    def _decisions(self, task_id: str, run: Run | None) -> tuple[DecisionView, ...]:
        """The trail, brought up to date with what the run says."""
        known = self._trail.of(task_id)
        news = _news(known, run) if run else []
        if not news:
            return known
        self._trail.settle(task_id, news)
        return self._trail.of(task_id)

    def _start(self, stored: StoredTicket) -> None:
        """Dapr would wipe a completed instance of the same id, so one that it knows is not started again. One at a
        time: a task that another one starts between that question and the start may have completed by then."""
        with self._starting[hash(stored.task_id) % _STARTERS]:
            if self._is_new(stored):
                self._runs.start(self._input(stored))
        self._tickets.mark_started(stored.task_id)

    def _input(self, stored: StoredTicket) -> TaskInput:
        return TaskInput(
            tenant=stored.tenant,
            ticket_id=stored.ticket_id,
            customer_id=stored.customer_id,
            order_id=stored.order_id,
            rules=self._rules,
        )

    def _is_new(self, stored: StoredTicket) -> bool:
        return self._runs.get(stored.task_id) is None

    def _in_progress(self, task_id: str) -> TaskView:
        view = self.get(task_id)
        if view.status.ended:
            raise NotWaiting(f"task {task_id} has ended ({view.status.value}); it cannot be changed any more")
        return view

    def _filtered(self, tenants: frozenset[str] | None, status: TaskStatus, limit: int, start: int) -> TaskPage:
        """Dapr cannot be asked by status, so tickets are looked through until the page is full."""
        views: list[TaskView] = []
        looked = self._tickets.page(tenants, start, _LOOKED_THROUGH)
        for stored in looked:
            view = _view(stored, self._runs.get(stored.task_id))
            if view.status is status:
                views.append(view)
            if len(views) == limit:
                return TaskPage(tasks=tuple(views), next_after=str(stored.sequence))
        more = str(looked[-1].sequence) if len(looked) == _LOOKED_THROUGH else None
        return TaskPage(tasks=tuple(views), next_after=more)


def _new_id() -> str:
    return str(uuid.uuid4())


def _news(trail: Sequence[DecisionView], run: Run) -> list[Settled]:
    """What the run says and the trail does not. A decision whose question another one has answered, or whose run is
    over, is never taken any more."""
    told = {each.decision_id: each for each in run.decisions}
    answered = {each.question for each in run.decisions if each.state is DecisionState.ACCEPTED}
    news = [told[each.decision_id] for each in trail if _differs(each, told.get(each.decision_id))]
    for each in trail:
        if each.state is DecisionState.HANDED_OVER and each.decision_id not in told:
            if each.question in answered:
                news.append(_too_late(each, decisions.ANSWERED_BEFORE, run))
            elif run.status.ended:
                news.append(_too_late(each, decisions.ENDED, run))
    return news


def _differs(known: DecisionView, told: Settled | None) -> bool:
    return told is not None and told.state is not known.state


def _too_late(view: DecisionView, code: str, run: Run) -> Settled:
    same = view.model_dump(include={"decision_id", "question", "verdict", "by", "refund"})
    return Settled(**same, at=run.updated_at, state=DecisionState.TOO_LATE, code=code)


def _where_it_is(view: TaskView) -> str:
    return f"has ended ({view.status.value})" if view.status.ended else f"is {view.status.value}"


def _decided_before(trail: Sequence[DecisionView]) -> str:
    """Who was first, where somebody was."""
    taken = [each for each in trail if each.state in (DecisionState.ACCEPTED, DecisionState.HANDED_OVER)]
    return f"; {taken[-1].by} has sent `{taken[-1].verdict}` before" if taken else ""


def _view(stored: StoredTicket, run: Run | None) -> TaskView:
    """A ticket without a run was accepted a moment ago: its task is about to start."""
    return TaskView(
        task_id=stored.task_id,
        tenant=stored.tenant,
        ticket_id=stored.ticket_id,
        status=run.status if run else TaskStatus.RUNNING,
        created_at=stored.received_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        updated_at=run.updated_at if run else None,
        category=run.category if run else None,
        waiting_for=run.waiting_for if run else None,
        proposed_refund=run.proposed_refund if run else None,
        question=run.question if run else None,
        result=run.result if run else None,
        error=run.error if run else None,
    )
