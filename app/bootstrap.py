"""The one place where parts are put together: clients are built here and handed to those who use them."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

from dapr.ext.workflow import DaprWorkflowClient, DaprWorkflowContext
from dapr.ext.workflow._durabletask.internal import shared
from dapr.ext.workflow.logger import LoggerOptions
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from sqlalchemy import Engine

from app import policy, sidecar, tokens
from app.access import Access, make_local_token, parse_tokens
from app.condemned import Condemned
from app.cost import book
from app.cost.book import PriceBook
from app.desk import TaskDesk
from app.executions import Executions
from app.gateway.conversation import DaprConversation
from app.gateway.gateway import ModelGateway
from app.gateway.incarnation import Incarnation
from app.gateway.journal import Journal
from app.gateway.sidecar_watch import SidecarWatch
from app.history.reader import HistoryReader
from app.ledger import checking, comparing, database, rebuilding
from app.ledger.checking import Difference
from app.ledger.projection import Naming
from app.ledger.projector import Projector
from app.ledger.reading import Records
from app.ledger.rebuilding import Rebuilt
from app.ledger.replies import Replies
from app.ledger.sources import Sources
from app.ledger.tickets import Tickets
from app.ledger.writer import Writer
from app.runs import Runs
from app.settings import Settings
from app.stages import STAGE_OF, STAGES, TOOLS
from app.stages.services import Services, as_activity
from app.steps import RESUME, TaskInput
from app.systems import DaprSystems
from app.telemetry.live import Live
from app.telemetry.metrics import Metrics as Telemetry
from app.web.factory import create_app
from app.web.handlers import Books
from app.web.pages import make_pages
from app.web.server import WebServer
from app.worker import Rested, Worker
from app.workflow import NAME, refund_ticket

if TYPE_CHECKING:
    from app.telemetry.export import Traces

log = logging.getLogger(__name__)

TOKENS_SECRET = "api-tokens"  # noqa: S105 - the name of a secret, not a secret
# Model calls spend their time waiting: far more of them fit into one worker than it has cores.
_ACTIVITIES_AT_ONCE = 1000
# Threads that serve the web; they wait for the sidecar most of the time.
_THREADS = 16
_LIBRARY_LEVELS = {
    "alembic": logging.WARNING,
    "WorkflowRuntime": logging.ERROR,
    "DaprWorkflowClient": logging.ERROR,
    "durabletask-client": logging.WARNING,
    "durabletask-worker": logging.WARNING,
    "httpx": logging.WARNING,
}


def utc_now() -> datetime:
    """The clock that everything else is handed."""
    return datetime.now(UTC)


def serve(settings: Settings) -> None:
    """Runs worker and web in this process until SIGTERM or SIGINT."""
    _log_to_stderr(settings.log_level)
    tokens.encoding()  # half a second, which the first model call would wait for otherwise
    rules = policy.load(settings.policy_file)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    engine = database.connect(settings.database_url)
    sidecar.wait_until_ready(settings.dapr_http)
    reconnect_quickly()
    trace_nothing()
    writer = Writer(engine)
    incarnation = Incarnation(writer, utc_now)
    incarnation.begin()
    history = HistoryReader(settings.dapr_grpc)
    prices = book.load(settings.prices_file)
    traces = make_traces(settings, engine)
    live = Live(
        activities_running=lambda: worker.running,
        activities_waiting=lambda: worker.waiting,
        tasks_to_record=lambda: projector.waiting,
        tasks_not_traced=(lambda: traces.dropped) if traces else None,
    )
    telemetry = Telemetry(live)
    observers = [telemetry.observe, *([traces.observe] if traces else [])]
    watch = SidecarWatch(
        writer,
        incarnation.worker,
        utc_now,
        lambda task_id: projector.hint(task_id, ended=False),
        http=settings.dapr_http,
        metrics=settings.dapr_metrics,
    )
    services = make_services(settings, engine, writer, incarnation.worker, watch.provider)
    desk = TaskDesk(services.tickets, Runs(_workflow_client(settings)), rules)
    mend = Condemned(writer, desk.restart).begin_again
    projector = Projector(make_sources(engine, history, prices), writer, observers, mend)
    books = Books(Records(engine), lambda bill: comparing.compare(engine, prices, bill), telemetry.render)
    known = access(settings)
    pages = make_pages(desk, known, books.records, utc_now)
    app = create_app(desk, known, version=version(), books=books, pages=pages)
    web = WebServer(app, host=settings.web_host, port=settings.web_port, threads=_THREADS)
    executions = Executions(writer, incarnation.worker, utc_now)
    worker = make_worker(settings, services, lambda task_id, ended: projector.hint(task_id, ended=ended), executions)
    if traces:
        traces.start()
    projector.start()
    watch.start()
    worker.start()
    web.start()
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look through it again and again
    log.info("ready on %s; %d accepted tickets were still to be started", web.url, desk.start_waiting_tickets())
    _until_told_to_stop()
    web.stop()
    worker.shutdown()
    watch.stop()
    projector.stop()
    if traces:
        traces.stop()
    history.close()
    incarnation.end()
    writer.close()
    engine.dispose()


def make_services(
    settings: Settings, engine: Engine, writer: Writer, worker: str, provider: Callable[[str], str]
) -> Services:
    """The stages' collaborators, as they are in production."""
    conversation = DaprConversation(settings.llm_component, grpc=settings.dapr_grpc, http=settings.dapr_http)
    journal = Journal(writer, worker, utc_now)
    return Services(
        gateway=ModelGateway(conversation, settings.llm_component, journal, provider),
        systems=DaprSystems(settings.dapr_http),
        tickets=Tickets(engine, writer, utc_now),
        replies=Replies(engine, writer, utc_now),
    )


def make_traces(settings: Settings, engine: Engine) -> Traces | None:
    """Exports spans where a collector is named; where none is, its client is not even loaded."""
    if not settings.otlp_endpoint:
        return None
    from app.telemetry.export import Traces
    from app.telemetry.texts import StoredAnswers

    texts = StoredAnswers(engine) if settings.trace_texts else None
    return Traces(settings.otlp_endpoint, service="refund-agent", version=version(), texts=texts)


def make_sources(engine: Engine, history: HistoryReader, prices: PriceBook) -> Sources:
    """What records are made from."""
    return Sources(engine, history.read, prices, Naming(stage_of=STAGE_OF, parked_at=RESUME), utc_now)


def check_ledger(settings: Settings) -> tuple[Difference, ...]:
    """Everything in the ledger that is not what histories and journal say; the sidecar has to run."""
    with _opened_sources(settings) as sources:
        return tuple(checking.check(sources))


def rebuild_ledger(settings: Settings, progress: Callable[[int, int], None]) -> Rebuilt:
    """Makes the record again from histories and journal; the sidecar has to run."""
    with _opened_sources(settings) as sources:
        return rebuilding.rebuild(sources, progress)


@contextmanager
def _opened_sources(settings: Settings) -> Iterator[Sources]:
    with HistoryReader(settings.dapr_grpc) as history:
        engine = database.connect(settings.database_url)
        try:
            yield make_sources(engine, history, book.load(settings.prices_file))
        finally:
            engine.dispose()


def make_worker(settings: Settings, services: Services, rested: Rested, executions: Executions) -> Worker:
    """The workflow worker, with the workflow and every stage and tool registered; not started."""
    connected = sidecar.Connected(settings.dapr_http)
    worker = Worker(settings.dapr_host, settings.dapr_grpc_port, _ACTIVITIES_AT_ONCE, rested, executions, connected)
    worker.register_workflow(_workflow(), name=NAME)
    for stage in (*STAGES, *TOOLS):
        worker.register_activity(as_activity(stage(services)), name=stage.__name__)
    return worker


def access(settings: Settings) -> Access:
    """The tokens of the secret store; without any there, one random local admin token in the state folder."""
    text = sidecar.secret(settings.dapr_http, settings.secret_store, TOKENS_SECRET)
    if text is not None:
        return Access(parse_tokens(text, f"secret {TOKENS_SECRET}"))
    local = make_local_token(settings.state_dir / "token")
    log.info("no %s in the secret store: the bearer token of this machine is in %s", TOKENS_SECRET, local.path)
    return Access([local.record])


def reconnect_quickly() -> None:
    """gRPC waits up to two minutes before it tries a lost sidecar again, and all connections with equal options share
    that wait. The SDK offers no option for it, so its defaults are extended before the first connection is made."""
    pause = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1_000))
    shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS = (*shared.DEFAULT_GRPC_KEEPALIVE_OPTIONS, *pause)


def trace_nothing() -> None:
    """The SDK wraps every gRPC call in a span as soon as OpenTelemetry is installed, also when nobody collects them:
    a fifth of the worker's CPU time. Spans of our own are made where they say something."""
    GrpcInstrumentorClient().uninstrument()


def version() -> str:
    """The product's version, as installed; a checkout that is not installed says so."""
    try:
        return installed_version("refund-agent")
    except PackageNotFoundError:
        return "0+checkout"


def _workflow() -> Callable[[DaprWorkflowContext, TaskInput], Generator[Any, Any, dict[str, Any]]]:
    """A function of its own for each runtime: registering marks the function and refuses it a second time."""

    def workflow(context: DaprWorkflowContext, task: TaskInput) -> Generator[Any, Any, dict[str, Any]]:
        return refund_ticket(context, task)

    return workflow


def _workflow_client(settings: Settings) -> DaprWorkflowClient:
    options = LoggerOptions(log_handler=logging.NullHandler())
    return DaprWorkflowClient(host=settings.dapr_host, port=str(settings.dapr_grpc_port), logger_options=options)


def _log_to_stderr(level: str) -> None:
    logging.Formatter.converter = lambda *_: utc_now().timetuple()
    logging.basicConfig(level=level, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    # The SDK logs every turn of every workflow, each failed attempt without its task, and each question about an
    # instance that does not exist yet, which is what intake asks about. Ours says the same once, with the task.
    for name, threshold in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(threshold)


def _until_told_to_stop() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
