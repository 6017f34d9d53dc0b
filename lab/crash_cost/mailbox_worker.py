"""The worker of the mailbox workflow, with the product's worker, gateway, journal and ledger.

python -m lab.crash_cost.mailbox_worker     replaces `python -m app serve`, in the same environment
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dapr.ext.workflow import DaprWorkflowContext

from app import bootstrap
from app.config import settings
from app.config.settings import Settings
from app.llm import tokenizer
from app.worker import process
from app.worker.worker import Worker
from app.workflow.activities.services import Services, as_activity
from lab.crash_cost import mailbox


class _HealthHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(chosen: Settings) -> None:
    """Works mailboxes until SIGTERM."""
    tokenizer.encoding()
    with ExitStack() as ends:
        opened = bootstrap.open_all(chosen, ends)
        worker = bootstrap.make_worker(chosen, opened, lambda _task_id, _standing: None)
        register(worker, bootstrap.make_services(chosen, opened))
        worker.start()
        ends.callback(worker.stop)
        health = ThreadingHTTPServer((chosen.web_host, chosen.web_port), _HealthHandler)
        threading.Thread(target=health.serve_forever, daemon=True).start()
        ends.callback(health.shutdown)
        process.wait_for_stop_signal()


def register(worker: Worker, services: Services) -> None:
    """Registers the workflow and its steps at the worker."""

    def workflow(context: DaprWorkflowContext, task: mailbox.MailboxInput) -> mailbox.Process:
        return mailbox.sort_mailbox(context, task)

    worker.register_workflow(workflow, name=mailbox.NAME)
    for step in mailbox.STEPS:
        worker.register_activity(as_activity(step(services)), name=step.__name__)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    serve(settings.load())
