"""The plain runner's process: works jobs from step one, through the same sidecar, and keeps everything in memory.

python -m lab.crash_cost.plain_runner FOLDER AT_ONCE     in the environment of the product's worker

Reads FOLDER/jobs.jsonl; appends the name of each finished job to FOLDER/done.txt, and each request that it begins to
FOLDER/requests.txt. Its supervisor starts it again when it dies, with the jobs that are not finished.
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
    """The gateway without a journal: asks, and forgets."""

    conversation: Conversation
    component: str
    noted: TextIO

    async def ask(self, call: ModelCall) -> ModelAnswer:
        """One question, one answer."""
        _note(self.noted, call.task_id, MODEL)
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
class NotedSystems:
    """The internal systems; says whom it asks."""

    systems: Systems
    noted: TextIO
    task_id: str

    async def ask(self, system: str, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request."""
        _note(self.noted, self.task_id, system)
        return await self.systems.ask(system, method, body)


@dataclass(frozen=True)
class OneTicket:
    """The ticket of a task, as the ledger would have it: redacted."""

    ticket: Ticket

    def to_read(self, _task_id: str) -> Ticket:
        """The ticket."""
        return self.ticket.model_copy(update={"subject": redact(self.ticket.subject), "text": redact(self.ticket.text)})


@dataclass(frozen=True)
class Texts:
    """The letters that a task has drafted."""

    by_digest: dict[str, str] = field(default_factory=dict)

    def keep(self, _task_id: str, text: str) -> str:
        """Keeps a letter and returns its digest."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.by_digest[digest] = text
        return digest

    def get(self, _task_id: str, digest: str) -> str:
        """The letter with that digest."""
        return self.by_digest[digest]


async def work_all(folder: Path, at_once: int) -> None:
    """Works every job, so many at once."""
    known = settings.load()
    settings.leave_proxies_out(known)
    rules = policy.load(known.policy_file)
    jobs = [Job.model_validate_json(line) for line in (folder / JOBS).read_text().splitlines()]
    free = asyncio.Semaphore(at_once)
    conversation = DaprConversation(known.llm_component, known.daprd)
    async with AsyncExitStack() as open_until:
        systems = DaprSystems(known.daprd)
        open_until.push_async_callback(systems.close)
        noted = open_until.enter_context((folder / REQUESTS).open("a", buffering=1))
        done = open_until.enter_context((folder / DONE).open("a", buffering=1))
        gateway = PlainGateway(conversation, known.llm_component, noted)

        async def work(job: Job) -> None:
            async with free:
                # Begun again behind its own refund, a task may find it, decide otherwise, and be told that its case is
                # closed, or that a person must decide: there is nothing left for it to do.
                with suppress(NeedsPerson, Refused):
                    await worked(job, rules, gateway, NotedSystems(systems, noted, job.task_id))
                done.write(f"{job.name}\n")

        await asyncio.gather(*[work(job) for job in jobs])


async def worked(job: Job, rules: Rules, gateway: PlainGateway, systems: Systems) -> Any:
    """One job, from step one to its end."""
    parts: dict[str, Any] = {"gateway": gateway, "tickets": OneTicket(job.ticket), "replies": Texts()}
    memory = Memory(job.task_id)
    services = Services(systems=systems, scheduled_input=memory.asked, **parts)
    steps = {build.__name__: build(services) for build in (*STAGES, *TOOLS, *mailbox.STEPS)}
    return await in_memory.run(_process(job, rules, memory), memory, steps)


def _process(job: Job, rules: Rules, memory: Memory) -> Generator[Any, Any, Any]:
    context = cast(Any, memory)
    if job.letters:
        return mailbox.sort_mailbox(context, mailbox.MailboxInput(job=job, rules=rules))
    given = job.ticket.model_dump(include={"tenant", "ticket_id", "customer_id", "order_id"})
    return refund_ticket(context, TaskInput(**given, rules=rules))


def _note(noted: TextIO, task_id: str, target: str) -> None:
    noted.write(f"{task_id} {target}\n")


if __name__ == "__main__":
    tokenizer.encoding()
    asyncio.run(work_all(Path(sys.argv[1]), int(sys.argv[2])))
