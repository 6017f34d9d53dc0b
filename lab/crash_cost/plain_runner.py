"""The process of the plain runner: works jobs from step one through the product's sidecar, with all state in memory.

python -m lab.crash_cost.plain_runner FOLDER AT_ONCE     in the environment of the product's worker

Reads FOLDER/jobs.jsonl. Appends the name of each finished job to FOLDER/done.txt, and each request before it is sent to
FOLDER/requests.txt. If it dies, its supervisor restarts it with the jobs that are not finished.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from app.config import policy, settings
from app.config.policy import Rules
from app.dapr.systems import DaprSystems, Systems
from app.domain.errors import Refused
from app.domain.models import AnsweredBy, ModelUse, Ticket
from app.domain.redaction import redact
from app.llm import tokenizer
from app.llm.call import ModelCall
from app.llm.conversation import Conversation, DaprConversation
from app.llm.gateway import ModelAnswer, reported_or_estimated
from app.pricing.charge_types import usage_columns
from app.workflow.activities import STAGES, TOOLS
from app.workflow.activities.services import Services
from app.workflow.refund import refund_ticket
from app.workflow.steps import TaskInput
from lab.crash_cost import in_memory, mailbox
from lab.crash_cost.in_memory import Memory, NeedsPerson
from lab.crash_cost.jobs import Job
from lab.crash_cost.trace import MODEL

JOBS, DONE, REQUESTS = "jobs.jsonl", "done.txt", "requests.txt"


@dataclass(frozen=True)
class PlainGateway:
    """A gateway without a journal."""

    conversation: Conversation
    component: str
    request_log: TextIO

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """Calls the model and logs the request."""
        _log_request(self.request_log, call.task_id, MODEL)
        answer = await self.conversation.ask(call.messages, call.tools)
        use = ModelUse(
            answered_by=AnsweredBy.PROVIDER,
            component=self.component,
            model=answer.model,
            prompt_version=call.prompt_version,
            request_digest=call.digest,
            **usage_columns(reported_or_estimated(answer, call, "")),
        )
        return ModelAnswer(answer, use)


@dataclass(frozen=True)
class LoggedSystems:
    """The internal systems; each request is logged."""

    systems: Systems
    request_log: TextIO
    task_id: str

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends and logs one request."""
        _log_request(self.request_log, self.task_id, system)
        return await self.systems.ask(system, method, body)


@dataclass(frozen=True)
class OneTicket:
    """Replaces the ledger's tickets: holds the one ticket of a task."""

    ticket: Ticket

    def to_read(self, _task_id: str) -> Ticket:
        """The redacted ticket."""
        return self.ticket.model_copy(update={"subject": redact(self.ticket.subject), "text": redact(self.ticket.text)})


@dataclass(frozen=True)
class Texts:
    """Replaces the ledger's replies: the letters of a task by digest."""

    by_digest: dict[str, str] = field(default_factory=dict)

    def keep(self, _task_id: str, text: str) -> str:
        """Stores a letter and returns its digest."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.by_digest[digest] = text
        return digest

    def get(self, _task_id: str, digest: str) -> str:
        """The letter with that digest."""
        return self.by_digest[digest]


async def work_all(folder: Path, at_once: int) -> None:
    """Works all jobs of the folder, `at_once` in parallel."""
    current = settings.load()
    settings.bypass_proxies_for_sidecar(current)
    rules = policy.load(current.policy_file)
    jobs = [Job.model_validate_json(line) for line in (folder / JOBS).read_text().splitlines()]
    free = asyncio.Semaphore(at_once)
    conversation = DaprConversation(current.llm_component, current.daprd)
    async with AsyncExitStack() as open_until:
        systems = DaprSystems(current.daprd)
        open_until.push_async_callback(systems.close)
        requests = open_until.enter_context((folder / REQUESTS).open("a", buffering=1))
        done = open_until.enter_context((folder / DONE).open("a", buffering=1))
        gateway = PlainGateway(conversation, current.llm_component, requests)

        async def work(job: Job) -> None:
            async with free:
                # A task that restarts after its own refund may find that refund and decide differently. Then it needs a
                # person, or is refused because its case is closed. Both end it.
                with suppress(NeedsPerson, Refused):
                    await work_job(job, rules, gateway, LoggedSystems(systems, requests, job.task_id))
                done.write(f"{job.name}\n")

        await asyncio.gather(*[work(job) for job in jobs])


async def work_job(job: Job, rules: Rules, gateway: PlainGateway, systems: Systems) -> Any:
    """Works one job from step one to its end."""
    parts: dict[str, Any] = {"gateway": gateway, "tickets": OneTicket(job.ticket), "replies": Texts()}
    memory = Memory(job.task_id)
    services = Services(systems=systems, scheduled_input=memory.scheduled_input, **parts)
    steps = {build.__name__: build(services) for build in (*STAGES, *TOOLS, *mailbox.STEPS)}
    return await in_memory.run(_make_process(job, rules, memory), memory, steps)


def _make_process(job: Job, rules: Rules, memory: Memory) -> Generator[Any, Any, Any]:
    context = cast(Any, memory)
    if job.letters:
        return mailbox.sort_mailbox(context, mailbox.MailboxInput(job=job, rules=rules))
    identity = job.ticket.model_dump(include={"tenant", "ticket_id", "customer_id", "order_id"})
    return refund_ticket(context, TaskInput(**identity, rules=rules))


def _log_request(request_log: TextIO, task_id: str, target: str) -> None:
    request_log.write(f"{task_id} {target}\n")


if __name__ == "__main__":
    tokenizer.encoding()
    asyncio.run(work_all(Path(sys.argv[1]), int(sys.argv[2])))
