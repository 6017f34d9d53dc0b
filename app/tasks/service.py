"""The task service behind the API and the pages: accepts tickets, reads tasks, steers them, and takes people's
decisions."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from app.config.policy import Rules
from app.domain import decision_texts
from app.domain.deadline import remaining, within
from app.domain.errors import (
    DecisionRefused,
    HistoryTampered,
    NotWaiting,
    RefundAgentError,
    Refused,
    TaskNotFound,
    TooLate,
    Unreachable,
)
from app.domain.models import (
    Case,
    Decision,
    DecisionState,
    DecisionView,
    Inbox,
    Intake,
    Retrying,
    SettledDecision,
    TaskPage,
    TaskStatus,
    TaskView,
    Ticket,
    TicketView,
)
from app.domain.standing import Standing, lost_task_message
from app.ledger.store.decision_log import Decisions
from app.ledger.store.standings import ListedTask, Standings
from app.ledger.store.tickets import StoredTicket, Tickets
from app.tasks.workflow_client import WorkflowClient
from app.workflow.steps import TaskInput

# Locks around the start of a task, one for each hash of its id, so that different tasks start in parallel.
_STARTERS = 64
# How long `decide` waits for the task's outcome, which takes a moment since the task looks up the order.
_DECIDED_WITHIN_SECONDS, _LOOK_AGAIN_SECONDS = 5.0, 0.1
# How long the sender of a ticket waits for the start of its task.
_INTAKE_SECONDS = 1.0
# How long one start waits for another start of the same task.
_PATIENCE_SECONDS = 30.0
_STARTED_TOGETHER, _STARTING_AT_ONCE = 200, 4

log = logging.getLogger(__name__)

_GIVEN_UP = "Dapr rejected this run although nobody changed its history; the task is being restarted, look in seconds"
_LOST = "the workflow engine has lost the run; the task was restarted"


class TaskService:
    """Accepts tickets, reads and steers tasks, passes on decisions. Accepting is idempotent: a ticket that arrives
    again gives the same task. Thread-safe."""

    def __init__(
        self,
        tickets: Tickets,
        standings: Standings,
        runs: WorkflowClient,
        rules: Rules,
        trail: Decisions,
        void: Callable[[str, str], None],
        pause: Callable[[float], None] = time.sleep,
        stuck: Callable[[str, datetime | None], Retrying | None] = lambda _task, _turn: None,
        is_restarted: Callable[[str, str, datetime], bool] = lambda _task, _words, _ended: False,
    ) -> None:
        """`void` tells the refund system that a ticket gets no refund. `stuck` says which step a running task is stuck
        at. `is_restarted` says whether the task goes on in a new run although its run failed with this message at this
        time."""
        self._tickets = tickets
        self._standings = standings
        self._runs = runs
        self._rules = rules
        self._trail = trail
        self._void = void
        self._pause = pause
        self._stuck = stuck
        self._is_restarted = is_restarted
        self.someone_waits = threading.Event()  # set when a ticket was accepted and its task could not be started
        self._starting = tuple(threading.Lock() for _ in range(_STARTERS))

    def submit(self, ticket: Ticket) -> tuple[TaskView, Intake]:
        """Accepts a ticket and starts its task. The ticket is stored first, so the caller does not wait for a workflow
        engine that is slow or down: `start_waiting` starts the task later. A known ticket whose run Dapr has lost is
        restarted. Raises Conflict if the id belongs to a different ticket, Unreachable if a lost run cannot be
        restarted."""
        stored, created = self._tickets.accept(ticket)
        if not stored.started:
            try:
                with within(_INTAKE_SECONDS):
                    self._start(stored)
            except Unreachable as error:
                log.warning("task %s: accepted, to be started later: %s", stored.task_id, error)
                self.someone_waits.set()
                return self._from_ledger(stored.task_id), Intake.LATER
        if created:
            return self._from_ledger(stored.task_id), Intake.NEW
        with within(_INTAKE_SECONDS):
            if isinstance(self._read(stored.task_id).trouble, TaskNotFound):
                self._restart_lost(stored.task_id, _LOST)
            return self.get(stored.task_id), Intake.KNOWN

    def start_waiting(self, at_most: int = _STARTED_TOGETHER) -> int:
        """Starts the tasks of the oldest accepted tickets that are not started, and returns how many it started. Raises
        the first error when all of them failed."""
        waiting = self._tickets.not_started(at_most)
        with ThreadPoolExecutor(_STARTING_AT_ONCE) as pool:
            failures = [error for error in pool.map(self._try_to_start, waiting) if error is not None]
        if failures and len(failures) == len(waiting):
            raise failures[0]
        return len(waiting) - len(failures)

    def _try_to_start(self, stored: StoredTicket) -> RefundAgentError | None:
        try:
            self._start(stored)
        except RefundAgentError as error:  # a task that cannot be started must not hold up the others
            return error
        return None

    def _from_ledger(self, task_id: str) -> TaskView:
        return _Seen(self._standings.get(task_id)).view

    def get(self, task_id: str) -> TaskView:
        """One task as Dapr knows it; when Dapr does not, as the ledger knew it last, with the reason in `caveat`.
        Raises TaskNotFound."""
        seen = self._read(task_id)
        view = self._with_decisions(seen)
        if view.status is not TaskStatus.RUNNING or seen.now is None:
            return view
        return view.model_copy(update={"retrying": self._stuck(task_id, seen.standing.at)})

    def list(
        self, tenants: frozenset[str] | None, status: TaskStatus | None, limit: int, after: str | None
    ) -> TaskPage:
        """A page of tasks in order of arrival, as the ledger knows them; Dapr is not asked. `tenants` None means all,
        `after` is the previous page's `next_after`."""
        return _task_page(*self._standings.page(tenants, status, int(after or 0), limit))

    def newest(
        self, tenants: frozenset[str] | None, limit: int, before: str | None, status: TaskStatus | None = None
    ) -> TaskPage:
        """A page of tasks as `list` gives it, newest first. `before` is the previous page's `next_after`."""
        return _task_page(*self._standings.newest(tenants, status, int(before) if before else None, limit))

    def count(self, tenants: frozenset[str] | None, status: TaskStatus | None) -> int:
        """The number of tasks; `tenants` None means all."""
        return self._standings.count(tenants, status)

    def inbox(
        self,
        tenants: frozenset[str] | None,
        narrowed_to: str | None,
        reason: str | None,
        asked_before: datetime | None,
        limit: int,
        after: str | None,
    ) -> Inbox:
        """A page of the tasks that wait for a person, in order of arrival, with their tickets' texts. `tenants` are the
        reader's (None means all), `narrowed_to` is one of them."""
        tally = self._standings.reasons(tenants)
        of = tenants if narrowed_to is None else frozenset({narrowed_to})
        tasks, more = self._standings.waiting(of, reason, asked_before, int(after or 0), limit)
        tickets = self._tickets.find([task.task_id for task in tasks])
        by_reason: Counter[str] = Counter()
        for counts in tally.values():
            by_reason.update(counts)
        return Inbox(
            cases=tuple(Case(task=_Seen(task).view, ticket=_ticket_view(tickets[task.task_id])) for task in tasks),
            total=self._standings.count(of, TaskStatus.WAITING, reason, asked_before),
            reasons=dict(by_reason.most_common()),
            tenants={tenant: sum(counts.values()) for tenant, counts in sorted(tally.items())},
            next_after=str(tasks[-1].sequence) if more else None,
        )

    def ticket(self, task_id: str) -> TicketView:
        """The customer's text, redacted. Raises TaskNotFound."""
        return _ticket_view(self._tickets.get(task_id))

    def pause(self, task_id: str) -> TaskView:
        """Stops the task between two steps until `resume`. Raises NotWaiting when it has ended or is paused already."""
        view = self._in_progress(task_id)
        if view.status is TaskStatus.PAUSED:
            raise NotWaiting(f"task {task_id} is paused already; `task resume` continues it")
        return self._steer(self._runs.pause, view)

    def resume(self, task_id: str) -> TaskView:
        """Continues a paused or parked task. Raises NotWaiting."""
        view = self._in_progress(task_id)
        if view.status is TaskStatus.PAUSED:
            return self._steer(self._runs.resume, view)
        if view.status is TaskStatus.PARKED:
            return self._steer(self._runs.unpark, view)
        raise NotWaiting(
            f"task {task_id} is {view.status.value}, neither paused nor parked; there is nothing to resume"
        )

    def _steer(self, steer: Callable[[str], None], before: TaskView) -> TaskView:
        """The task after `steer`. Dapr accepts a command before the task has changed, so this waits until the task's
        status or time differs from `before`, at most `_DECIDED_WITHIN_SECONDS`."""
        steer(before.task_id)
        limit = time.monotonic() + _DECIDED_WITHIN_SECONDS
        while True:
            view = self.get(before.task_id)
            unchanged = (view.status, view.updated_at) == (before.status, before.updated_at)
            if not unchanged or time.monotonic() >= limit:
                return view
            self._pause(_LOOK_AGAIN_SECONDS)

    def decide(self, task_id: str, decision: Decision, note: str = "") -> tuple[TaskView, bool]:
        """Hands a person's decision to a waiting task and waits some seconds for its outcome: True when the task has
        accepted it, False when the outcome is not known yet. Every decision and its outcome are recorded. Raises
        NotWaiting, TooLate, DecisionRefused."""
        view = self._to_decide(task_id, decision, note)
        question = view.question.number if view.question else None
        if decision.question not in (None, question):
            self._note_refusal(task_id, decision, note, decision_texts.ANSWERED_BEFORE)
            raise TooLate(
                f"task {task_id}: {decision_texts.words_of(decision_texts.ANSWERED_BEFORE)}; look at its new question"
            )
        decision = decision.model_copy(update={"question": question, "decision_id": _new_id()})
        self._trail.record(task_id, decision, note, view.waiting_for or "")
        self._runs.decide(task_id, decision)
        view = self._await_settlement(task_id, decision)
        outcome = next(row for row in view.decisions if row.decision_id == decision.decision_id)
        if outcome.state is DecisionState.REFUSED:
            raise DecisionRefused(f"task {task_id}: {outcome.words}; it waits as before", reason=outcome.code)
        if outcome.state is DecisionState.TOO_LATE:
            raise TooLate(f"task {task_id}: {outcome.words}; look with `task show {task_id}`")
        return view, outcome.state is DecisionState.ACCEPTED

    def note_denied(self, task_id: str, decision: Decision) -> None:
        """Records a decision by somebody who lacks the role for it. Raises TaskNotFound."""
        self._tickets.get(task_id)
        self._note_refusal(task_id, decision, "", decision_texts.NO_ROLE)

    def terminate(self, task_id: str, reason: str) -> TaskView:
        """Ends a task for good; its ticket is voided, so it gets no refund later. Raises Unreachable; NotWaiting when
        the task has ended, or when its refund is committed and can only be posted. A run that a restored older state
        store still has, of a task whose final record the ledger has, is terminated and the record stays."""
        seen = self._read(task_id)
        is_leftover = seen.known.final and _is_running(self._runs.get(task_id))
        if not is_leftover:
            self._void_ticket(self._in_progress(task_id))
        self._runs.terminate(task_id, reason)
        return self.get(task_id)

    def _void_ticket(self, view: TaskView) -> None:
        try:
            self._void(view.tenant, view.ticket_id)
        except Refused as refusal:
            raise NotWaiting(
                f"task {view.task_id}: the books say {refusal.reason}, since the customer is being told of the refund; "
                "the task ends by itself, or after `task resume` where it is parked or paused"
            ) from None

    def rerun(self, task_id: str) -> TaskView:
        """Restarts a task from its ticket when Dapr has lost its run, or the run failed or was terminated. Effects of
        the earlier run stay and are found by their idempotency keys. Raises NotWaiting when the task is running or
        completed."""
        seen = self._read(task_id)
        status = seen.standing.status
        if status is TaskStatus.COMPLETED:
            raise NotWaiting(f"task {task_id} is completed; to repeat the work, send it under a new ticket id")
        if status.ended:
            self.restart(task_id, f"the run has ended ({status.value}); the task was restarted")
        elif isinstance(seen.trouble, TaskNotFound):
            self._restart_lost(task_id, _LOST)
        else:
            seen.must_be_current()
            raise NotWaiting(
                f"task {task_id} is {status.value} and continues; to start over, end it first with `task terminate`"
            )
        return self.get(task_id)

    def restart(self, task_id: str, reason: str = "the run was given up") -> None:
        """Starts a new run of a task whose run has ended; Dapr deletes the ended run. `reason` becomes the task's
        caveat."""
        stored = self._tickets.get(task_id)
        self._standings.prepare_new_run(task_id, reason)
        self._runs.start(self._task_input(stored, again=True))

    def _restart_lost(self, task_id: str, reason: str) -> None:
        """Restarts a lost run unless another thread has done so, under the lock of `_start`."""
        with self._starting[hash(task_id) % _STARTERS]:
            if self._runs.get(task_id) is None:
                self.restart(task_id, reason)

    def _to_decide(self, task_id: str, decision: Decision, note: str) -> TaskView:
        """The task when it can take the decision. Otherwise records the attempt and raises NotWaiting, DecisionRefused,
        HistoryTampered or Unreachable."""
        seen = self._read(task_id)
        view = self._with_decisions(seen)
        if view.status is not TaskStatus.WAITING:
            self._note_refusal(task_id, decision, note, decision_texts.NOT_WAITING)
            raise NotWaiting(
                f"task {task_id} {_state_of(view)}; only a waiting task accepts a decision"
                + _decided_before(view.decisions)
            )
        if decision.verdict == "approve" and decision.refund is None and view.proposed_refund is None:
            self._note_refusal(task_id, decision, note, decision_texts.NO_REFUND)
            raise DecisionRefused(
                f"task {task_id} waits because of {view.waiting_for} and proposes no refund; "
                "approve it with order, amount and currency, or reject it",
                reason=decision_texts.NO_REFUND,
            )
        seen.must_be_current()
        return view

    def _note_refusal(self, task_id: str, decision: Decision, note: str, code: str) -> None:
        self._trail.record_refusal(task_id, decision.model_copy(update={"decision_id": _new_id()}), note, code)

    def _await_settlement(self, task_id: str, decision: Decision) -> TaskView:
        """The task as soon as it has settled the decision, or after `_DECIDED_WITHIN_SECONDS`."""
        limit = time.monotonic() + _DECIDED_WITHIN_SECONDS
        while True:
            view = self.get(task_id)
            row = next(row for row in view.decisions if row.decision_id == decision.decision_id)
            if row.state is not DecisionState.HANDED_OVER or time.monotonic() >= limit:
                return view
            self._pause(_LOOK_AGAIN_SECONDS)

    def _with_decisions(self, seen: _Seen) -> TaskView:
        """The task with its recorded decisions, after their outcomes were updated from the task's status."""
        task_id = seen.known.task_id
        trail = self._trail.of(task_id)
        news = _new_outcomes(trail, seen.standing)
        if news:
            self._trail.settle(task_id, news)
            trail = self._trail.of(task_id)
        return seen.view.model_copy(update={"decisions": trail})

    def _start(self, stored: StoredTicket) -> None:
        """Starts the task unless Dapr knows an instance with its id, since a second start would delete a completed
        instance. The lock covers check and start, because another thread could otherwise start and complete the task in
        between."""
        lock = self._starting[hash(stored.task_id) % _STARTERS]
        if not lock.acquire(timeout=remaining(_PATIENCE_SECONDS)):
            raise Unreachable(f"task {stored.task_id} is being started by another request; try again in some seconds")
        try:
            if self._runs.get(stored.task_id) is None:
                self._runs.start(self._task_input(stored))
        finally:
            lock.release()
        self._tickets.mark_started(stored.task_id)

    def _task_input(self, stored: StoredTicket, *, again: bool = False) -> TaskInput:
        return TaskInput(
            tenant=stored.tenant,
            ticket_id=stored.ticket_id,
            customer_id=stored.customer_id,
            order_id=stored.order_id,
            rules=self._rules,
            again=again,
        )

    def _in_progress(self, task_id: str) -> TaskView:
        """The task when it can be steered. Raises NotWaiting for a task that has ended or that Dapr does not know,
        HistoryTampered, Unreachable."""
        seen = self._read(task_id)
        if seen.standing.status.ended:
            raise NotWaiting(f"task {task_id} has ended ({seen.standing.status.value}); it can no longer be changed")
        seen.must_be_current()
        return seen.view

    def _read(self, task_id: str) -> _Seen:
        """One task as the ledger and Dapr know it. Dapr is not asked for a task with a final record. Raises
        TaskNotFound."""
        known = self._standings.get(task_id)
        if known.final:
            return _Seen(known)
        try:
            now = self._runs.get(task_id)
        except (HistoryTampered, Unreachable) as error:
            return _Seen(known, trouble=error)
        failed_at = now.at if now is not None and now.status is TaskStatus.FAILED else None
        if now is not None and failed_at is not None and self._is_restarted(task_id, now.error or "", failed_at):
            return _Seen(known, trouble=Unreachable(_GIVEN_UP))
        lost = now is None and known.started and not known.standing.status.ended
        return _Seen(known, now, TaskNotFound(lost_task_message(task_id)) if lost else None)


@dataclass(frozen=True)
class _Seen:
    """One task: `known` is what the ledger holds, `now` what Dapr answered. `trouble` is why Dapr gave no answer:
    TaskNotFound, HistoryTampered or Unreachable."""

    known: ListedTask
    now: Standing | None = None
    trouble: RefundAgentError | None = None

    @property
    def standing(self) -> Standing:
        """The standing as of the later turn. The ledger's may be later: the worker reports a turn shortly before Dapr
        has saved it."""
        reported = self.known.standing.at
        if self.now is None or self.now.at is None or (reported is not None and reported > self.now.at):
            return self.known.standing
        return self.now

    @property
    def view(self) -> TaskView:
        """The task as readers see it, without its decisions."""
        standing = self.standing
        return TaskView(
            task_id=self.known.task_id,
            tenant=self.known.tenant,
            ticket_id=self.known.ticket_id,
            status=standing.status,
            created_at=_iso(self.known.received_at),
            updated_at=_iso(standing.at) if standing.at else None,
            category=standing.category,
            waiting_for=standing.waiting_for,
            proposed_refund=standing.proposed_refund,
            question=standing.question,
            result=standing.result,
            error=standing.error,
            caveat=self._caveat() or None,
        )

    def must_be_current(self) -> None:
        """Raises the reason why the task cannot be steered, if there is one: NotWaiting when Dapr does not know it,
        HistoryTampered, Unreachable."""
        if isinstance(self.trouble, TaskNotFound):
            status = self.known.standing.status.value
            raise NotWaiting(f"task {self.known.task_id} (last known: {status}) is {self.trouble}")
        if self.trouble is not None:
            raise self.trouble

    def _caveat(self) -> str:
        """The reason why the view is not Dapr's. The ledger's own caveat, if it begins with the same words, has the
        time too and is preferred."""
        words = str(self.trouble or "")
        return self.known.caveat if self.now is None and self.known.caveat.startswith(words) else words


def _task_page(tasks: Sequence[ListedTask], more: bool) -> TaskPage:
    return TaskPage(
        tasks=tuple(_Seen(task).view for task in tasks), next_after=str(tasks[-1].sequence) if more else None
    )


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _is_running(now: Standing | None) -> bool:
    return now is not None and not now.status.ended


def _ticket_view(stored: StoredTicket) -> TicketView:
    return TicketView(
        task_id=stored.task_id,
        customer_id=stored.customer_id,
        order_id=stored.order_id,
        subject=stored.subject,
        text=stored.text,
        received_at=_iso(stored.received_at),
    )


def _new_id() -> str:
    return str(uuid.uuid4())


def _new_outcomes(trail: Sequence[DecisionView], run: Standing) -> list[SettledDecision]:
    """The outcomes that the run reports and the trail lacks. A decision that was handed over is too late when another
    one has answered its question, or the run has ended."""
    reported = {decision.decision_id: decision for decision in run.decisions}
    answered = {decision.question for decision in run.decisions if decision.state is DecisionState.ACCEPTED}
    news = [reported[row.decision_id] for row in trail if _differs(row, reported.get(row.decision_id))]
    for row in trail:
        if row.state is DecisionState.HANDED_OVER and row.decision_id not in reported:
            if row.question in answered:
                news.append(_too_late(row, decision_texts.ANSWERED_BEFORE, run))
            elif run.status.ended:
                news.append(_too_late(row, decision_texts.ENDED, run))
    return news


def _differs(row: DecisionView, reported: SettledDecision | None) -> bool:
    return reported is not None and reported.state is not row.state


def _too_late(view: DecisionView, code: str, run: Standing) -> SettledDecision:
    same = view.model_dump(include={"decision_id", "question", "verdict", "by", "refund"})
    return SettledDecision(**same, at=_iso(run.at) if run.at else "", state=DecisionState.TOO_LATE, code=code)


def _state_of(view: TaskView) -> str:
    return f"has ended ({view.status.value})" if view.status.ended else f"is {view.status.value}"


def _decided_before(trail: Sequence[DecisionView]) -> str:
    """The end of an error message that names the last decision that was handed over or accepted; empty without one."""
    taken = [row for row in trail if row.state in (DecisionState.ACCEPTED, DecisionState.HANDED_OVER)]
    return f"; {taken[-1].by} has sent `{taken[-1].verdict}` before" if taken else ""
