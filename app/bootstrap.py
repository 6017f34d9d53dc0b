"""The composition root: builds all parts of the agent and connects them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from dapr.ext.workflow import DaprWorkflowContext
from sqlalchemy import Engine

from app import __version__
from app.config import policy
from app.config.policy import UNLIMITED, Rules
from app.config.private_files import exposure_warning, private_folder
from app.config.settings import Settings, bypass_proxies_for_sidecar
from app.dapr import sdk_patches, sidecar
from app.dapr.daprd import Daprd
from app.dapr.history.reader import HistoryReader
from app.dapr.systems import DaprSystems, ask_blocking
from app.domain.errors import ConfigurationError
from app.domain.standing import Standing
from app.ledger.audit import ledger_check, rebuilding
from app.ledger.audit.ledger_check import LedgerDifference
from app.ledger.audit.rebuilding import Rebuilt
from app.ledger.reading import comparing
from app.ledger.reading.queries import LedgerQueries
from app.ledger.recording.projection import Naming
from app.ledger.recording.projector import Projector
from app.ledger.recording.sources import Sources
from app.ledger.store import database
from app.ledger.store.decision_log import Decisions
from app.ledger.store.sessions import Sessions
from app.ledger.store.standings import Standings
from app.ledger.store.tickets import Replies, Tickets
from app.ledger.store.writer import Writer
from app.llm import tokenizer
from app.llm.conversation import DaprConversation
from app.llm.gateway import LLMGateway, ModelComponent
from app.llm.journal import Journal
from app.pricing import book
from app.pricing.book import PriceBook
from app.tasks.access import LOCAL_TOKEN_NAME, TOKENS_SECRET, Access, Token, TokenWatch, make_local_token, parse_tokens
from app.tasks.rejected_runs import RejectedRuns
from app.tasks.service import TaskService
from app.tasks.starter import Starter
from app.tasks.stuck_steps import Stuck
from app.tasks.workflow_client import WorkflowClient, connect
from app.telemetry.metrics import Live
from app.telemetry.metrics import Metrics as Telemetry
from app.web.api.handlers import LedgerApi
from app.web.factory import create_app
from app.web.front import make_front
from app.web.pages import make_pages
from app.web.server import WebServer
from app.worker import process
from app.worker.execution_log import Executions, Heartbeat, StepAttempt
from app.worker.sidecar_watch import SidecarWatch
from app.worker.vitals import Vitals
from app.worker.worker import StandingListener, Worker
from app.workflow.activities import STAGE_OF, STAGES, TOOLS
from app.workflow.activities.services import Services, as_activity
from app.workflow.refund import NAME, refund_ticket
from app.workflow.steps import DECISION, RESUME, TaskInput

if TYPE_CHECKING:
    from app.telemetry.export import Traces

log = logging.getLogger(__name__)

# Model calls mostly wait, so one worker can run far more of them than it has cores.
ACTIVITIES_AT_ONCE = 1000
# Web threads: more than may wait for the sidecar at the same time, so that requests to the ledger are still served.
_THREADS = 32


def utc_now() -> datetime:
    """The clock of all parts."""
    return datetime.now(UTC)


class AgentPart(Protocol):
    """A part of the agent that works in the background between `start` and `stop`."""

    def start(self) -> None:
        """Starts the part."""

    def stop(self) -> object:
        """Stops the part within a bounded time."""


@dataclass(frozen=True)
class Opened:
    """The opened resources that the agent's parts share."""

    engine: Engine
    writer: Writer
    heartbeat: Heartbeat
    history: HistoryReader
    prices: PriceBook


@dataclass(frozen=True)
class Agent:
    """The assembled agent. `parts` are started in this order and stopped in the reverse order."""

    service: TaskService
    web: WebServer
    parts: Sequence[AgentPart]


def serve(settings: Settings) -> None:
    """Runs worker and web in this process until SIGTERM or SIGINT. Started parts are stopped in reverse order, also if
    a later part fails to start."""
    process.log_to_stderr(settings.log_level)
    tokenizer.encoding()  # loads for half a second, for which the first model call would wait
    rules = policy.load(settings.policy_file)
    with ExitStack() as ends:
        agent = make_agent(settings, rules, open_all(settings, ends))
        for part in agent.parts:
            part.start()
            ends.callback(part.stop)
        process.freeze_loaded_objects()
        log.info("ready on %s", agent.web.url)
        process.wait_for_stop_signal()


def open_all(settings: Settings, ends: ExitStack) -> Opened:
    """Opens the ledger and the connection to the sidecar, until `ends` closes; waits until the sidecar is ready."""
    sdk_patches.reconnect_quickly()
    sdk_patches.skip_health_checks()
    sdk_patches.disable_grpc_spans()
    bypass_proxies_for_sidecar(settings)
    if exposed := private_folder(settings.state_dir):
        log.warning("%s", exposure_warning(exposed))
    engine = database.connect(settings.database_url)
    ends.callback(engine.dispose)
    sidecar.wait_until_ready(settings.dapr_http)
    writer = Writer(engine)
    ends.callback(writer.close)
    beside = f"{socket.gethostname()} {settings.daprd.grpc}"
    heartbeat = Heartbeat(writer, utc_now, beside, sidecar.version(settings.daprd))
    heartbeat.begin()
    ends.callback(heartbeat.end)
    history = ends.enter_context(HistoryReader(settings.daprd))
    return Opened(engine, writer, heartbeat, history, book.load(settings.prices_file))


def make_agent(settings: Settings, rules: Rules, opened: Opened) -> Agent:
    """Assembles all parts of the agent's process, without starting them."""

    def hint(task_id: str) -> None:
        projector.hint(task_id, ended=False)

    def on_turn_end(task_id: str, standing: Standing) -> None:
        standings.report(task_id, standing)
        if standing.resting or standing.status.ended:
            projector.hint(task_id, ended=standing.status.ended)

    def is_restarted(task_id: str, words: str, ended: datetime) -> bool:
        if not rejected_runs.is_restarted(task_id, words, ended):
            return False
        projector.look(task_id)
        return True

    traces = make_traces(settings, opened.engine)
    live = Live(
        activities_running=lambda: worker.loop.running,
        activities_waiting=lambda: worker.loop.waiting,
        tasks_to_record=lambda: projector.waiting,
        tasks_not_traced=(lambda: traces.dropped) if traces else None,
        turns_set_aside=lambda: worker.loop.turns.set_aside,
        turns_broken=lambda: worker.loop.turns.broken,
        tasks_pending=lambda: projector.pending,
        histories_tampered=lambda: projector.tampered,
        sidecar_counted=lambda: int(watch.counts()),
    )
    telemetry = Telemetry(live)
    needs = partial(sidecar.needs, settings.daprd)
    watch = SidecarWatch(opened.writer, opened.heartbeat.worker, utc_now, metrics=settings.dapr_metrics, needs=needs)
    services = make_services(settings, opened)
    runs = WorkflowClient(connect(settings.daprd), needs=needs)
    standings = Standings(opened.engine, opened.writer, utc_now)
    trail = Decisions(opened.engine, opened.writer, utc_now)
    void = partial(void_refund, settings.daprd)
    stuck = Stuck(opened.history.read, utc_now)
    service = TaskService(
        services.tickets, standings, runs, rules, trail, void, stuck=stuck.look, is_restarted=is_restarted
    )
    rejected_runs = RejectedRuns(opened.writer, service.restart, utc_now)
    observers = [telemetry.observe, *([traces.observe] if traces else [])]
    sources = make_sources(opened.engine, opened.history, opened.prices)
    projector = Projector(sources, opened.writer, observers, rejected_runs.begin_again, runs.wake, runs.begin)
    worker = make_worker(settings, opened, on_turn_end)
    register(worker, services)
    access = Access(valid_tokens(settings))
    vitals = Vitals(worker.loop, partial(database.ping, opened.engine))
    web = make_web(settings, opened, service, telemetry, access, vitals)
    tokens_watch = TokenWatch(access, lambda: valid_tokens(settings))
    parts: list[AgentPart] = [projector, watch, worker, Starter(service), tokens_watch, vitals, web]
    return Agent(service, web, [*([traces] if traces else []), *parts])


def void_refund(daprd: Daprd, tenant: str, ticket_id: str) -> None:
    """Voids the ticket's hold in the refund system, since it ends without a refund. Raises Refused, Unreachable."""
    ask_blocking(daprd, "refunds", "void", {"tenant": tenant, "ticket_id": ticket_id})


def make_web(
    settings: Settings, opened: Opened, service: TaskService, telemetry: Telemetry, access: Access, vitals: Vitals
) -> WebServer:
    """The web server with API and pages, not yet listening."""
    engine, prices = opened.engine, opened.prices
    ledger = LedgerApi(LedgerQueries(engine), lambda bill: comparing.compare(engine, prices, bill), telemetry.render)
    front = make_front(settings.public_url)
    pages = make_pages(service, access, ledger.records, Sessions(engine, opened.writer, utc_now), utc_now, front)
    app = create_app(service, access, version=__version__, ledger=ledger, vitals=vitals, pages=pages, front=front)
    return WebServer(app, host=settings.web_host, port=settings.web_port, threads=_THREADS)


def make_services(settings: Settings, opened: Opened) -> Services:
    """The services that the activities use in production."""
    engine, writer = opened.engine, opened.writer
    models = policy.models(settings.policy_file)
    names = {settings.llm_component, *models.stages.values()}
    if unused := models.limits.keys() - names:
        raise ConfigurationError(
            f"{settings.policy_file}: models.limits: no stage asks {', '.join(sorted(unused))}; "
            f"the components that are asked: {', '.join(sorted(names))}"
        )
    components = {
        name: ModelComponent(name, DaprConversation(name, settings.daprd), models.limits.get(name, UNLIMITED))
        for name in names
    }
    stages: dict[str, ModelComponent] = {stage: components[name] for stage, name in models.stages.items()}
    journal = Journal(writer, opened.heartbeat.worker, utc_now, policy.losses(settings.policy_file))

    async def scheduled_input(task_id: str, event_id: int, execution_id: str) -> str | None:
        return await asyncio.to_thread(opened.history.scheduled_input, task_id, event_id, execution_id)

    return Services(
        gateway=LLMGateway(components[settings.llm_component], journal, stages),
        systems=DaprSystems(settings.daprd),
        tickets=Tickets(engine, writer, utc_now),
        replies=Replies(engine, writer, utc_now),
        scheduled_input=scheduled_input,
    )


def make_traces(settings: Settings, engine: Engine) -> Traces | None:
    """The exporter of spans; None, without loading its client, if no collector is configured."""
    if not settings.otlp_endpoint:
        return None
    from app.telemetry.export import StoredAnswers, Traces

    texts = StoredAnswers(engine) if settings.trace_texts else None
    return Traces(settings.otlp_endpoint, service="refund-agent", version=__version__, texts=texts)


def make_sources(engine: Engine, history: HistoryReader, prices: PriceBook) -> Sources:
    """The sources from which records are made."""

    def custom_status(task_id: str) -> str | None:
        status = history.status(task_id).custom_status
        return status.text if status else None

    naming = Naming(stage_of=STAGE_OF, parked_at=RESUME, decided_by=DECISION)
    return Sources(engine, history.read, prices, naming, utc_now, custom_status, history.instance_ids)


def check_ledger(settings: Settings) -> tuple[LedgerDifference, ...]:
    """The differences between the ledger and its sources, histories and journal. The sidecar must run."""
    with _open_sources(settings) as sources:
        return tuple(ledger_check.check(sources))


def rebuild_ledger(settings: Settings, progress: Callable[[int, int], None]) -> Rebuilt:
    """Rebuilds the record from histories and journal; calls `progress` with tasks done and in total. The sidecar must
    run."""
    with _open_sources(settings) as sources:
        return rebuilding.rebuild(sources, progress)


@contextmanager
def _open_sources(settings: Settings) -> Iterator[Sources]:
    with HistoryReader(settings.daprd) as history:
        engine = database.connect(settings.database_url)
        try:
            yield make_sources(engine, history, book.load(settings.prices_file))
        finally:
            engine.dispose()


def make_worker(settings: Settings, opened: Opened, on_standing: StandingListener) -> Worker:
    """A workflow worker without workflows and activities, not started. It calls `on_standing` with each task's state
    after a turn."""

    def recorded_result(attempt: StepAttempt) -> str | None:
        return opened.history.result(attempt.task_id, attempt.event_id, attempt.execution_id)

    executions = Executions(opened.writer, opened.heartbeat.worker, utc_now, recorded_result)
    connection = sidecar.WorkerConnection(settings.daprd)
    return Worker(settings.daprd, ACTIVITIES_AT_ONCE, on_standing, executions, connection, settings.grace_seconds)


def register(worker: Worker, services: Services) -> None:
    """Registers the workflow, the stages and the tools with the worker."""
    worker.register_workflow(_workflow(), name=NAME)
    for stage in (*STAGES, *TOOLS):
        worker.register_activity(as_activity(stage(services)), name=stage.__name__)


def valid_tokens(settings: Settings) -> tuple[Token, ...]:
    """The tokens of the secret store, and the local admin token of the state folder. The local token is created if the
    store has no tokens; it stays valid for this machine's command line when further tokens are added."""
    path = settings.state_dir / "token"
    text = sidecar.secret(settings.daprd, settings.secret_store, TOKENS_SECRET)
    stored = () if text is None else parse_tokens(text, f"secret {TOKENS_SECRET}")
    if stored and not path.exists():
        return stored
    others = tuple(token for token in stored if token.name != LOCAL_TOKEN_NAME)
    return (make_local_token(path).record, *others)


def _workflow() -> Callable[[DaprWorkflowContext, TaskInput], Generator[Any, Any, dict[str, Any]]]:
    """A new function for each worker, since the SDK marks a registered function and refuses to register it again."""

    def workflow(context: DaprWorkflowContext, task: TaskInput) -> Generator[Any, Any, dict[str, Any]]:
        return refund_ticket(context, task)

    return workflow
