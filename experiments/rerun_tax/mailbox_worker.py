"""The mailbox's worker: another workflow on the product's worker, gateway, journal and ledger.

python -m experiments.rerun_tax.mailbox_worker     in the place of `python -m app serve`, same environment
"""

from __future__ import annotations

import logging
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dapr.ext.workflow import DaprWorkflowContext

from app import bootstrap, settings, sidecar, tokens
from app.executions import Executions
from app.gateway.incarnation import Incarnation
from app.ledger import database
from app.ledger.writer import Writer
from app.settings import Settings
from app.stages.services import Services, as_activity
from app.worker import Worker
from experiments.rerun_tax import mailbox

_AT_ONCE = 100


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(chosen: Settings) -> None:
    """Works mailboxes until SIGTERM."""
    tokens.encoding()
    engine = database.connect(chosen.database_url)
    sidecar.wait_until_ready(chosen.dapr_http)
    bootstrap.reconnect_quickly()
    bootstrap.trace_nothing()
    writer = Writer(engine)
    incarnation = Incarnation(writer, bootstrap.utc_now)
    incarnation.begin()
    services = bootstrap.make_services(chosen, engine, writer, incarnation.worker, lambda _component: "")
    worker = Worker(
        chosen.dapr_host,
        chosen.dapr_grpc_port,
        _AT_ONCE,
        lambda _task_id, _ended: None,
        Executions(writer, incarnation.worker, bootstrap.utc_now),
        sidecar.Connected(chosen.dapr_http),
    )
    register(worker, services)
    worker.start()
    health = ThreadingHTTPServer((chosen.web_host, chosen.web_port), _Healthy)
    threading.Thread(target=health.serve_forever, daemon=True).start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    health.shutdown()
    worker.shutdown()
    incarnation.end()
    writer.close()
    engine.dispose()


def register(worker: Worker, services: Services) -> None:
    """Makes the workflow and its steps known."""

    def workflow(context: DaprWorkflowContext, task: mailbox.MailboxInput) -> mailbox.Process:
        return mailbox.sort_mailbox(context, task)

    worker.register_workflow(workflow, name=mailbox.NAME)
    for step in mailbox.STEPS:
        worker.register_activity(as_activity(step(services)), name=step.__name__)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    serve(settings.load())
