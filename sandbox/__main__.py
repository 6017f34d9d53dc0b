"""Starts the sandbox: the model server and the internal systems, on two ports of one process.

python -m sandbox --model-port 8091 --systems-port 8092 --state .state/sandbox
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from app.config.private_files import keep_private
from app.llm import tokenizer
from sandbox.bill import Bill
from sandbox.faults import FaultBook
from sandbox.model.brain.lexicon import LANGUAGES, lexicon
from sandbox.model.server import MAX_LATENCY_SECONDS, ModelServer
from sandbox.systems import BOOKKEEPING_PATH, create_app

BILL_FILE = "bill.sqlite"
_BACKLOG = 1024
_SHUTDOWN_SECONDS = 1.0
_CANNOT_START = 1
_log = logging.getLogger("sandbox")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line. A wrong one ends the process with status 2 and a message."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--model-port", type=int, default=8091, help="port of the model server")
    parser.add_argument("--systems-port", type=int, default=8092, help="port of the internal systems")
    parser.add_argument("--state", type=Path, default=Path(".state/sandbox"), help="folder of bill and books")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that every model answer takes")
    chosen = parser.parse_args(arguments)
    if not 0 <= chosen.latency <= MAX_LATENCY_SECONDS:
        parser.error(f"--latency {chosen.latency} is not between 0 and {MAX_LATENCY_SECONDS:.0f} seconds")
    return chosen


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


async def serve(chosen: argparse.Namespace, stop: asyncio.Event) -> None:
    """Runs both servers until `stop` is set. Raises OSError when a port is taken."""
    faults = FaultBook()
    model = ModelServer(Bill(chosen.state / BILL_FILE), faults, utc_now, chosen.latency)
    warm_up()
    async with AsyncExitStack() as stack:
        await _listen(stack, model.app(), chosen.host, chosen.model_port)
        systems = create_app(chosen.state, faults, utc_now, _events_to(chosen))
        await _listen(stack, systems, chosen.host, chosen.systems_port)
        _log.info("sandbox ready: model on port %d, systems on port %d", chosen.model_port, chosen.systems_port)
        await stop.wait()


def _events_to(chosen: argparse.Namespace) -> str:
    """The URL of the bookkeeping, which runs in this process but is called by HTTP so that faults can be injected."""
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    return f"http://{host}:{chosen.systems_port}{BOOKKEEPING_PATH}"


def warm_up() -> None:
    """Loads vocabulary and phrases, so that the first request is not slower than others."""
    tokenizer.encoding()
    for language in LANGUAGES:
        lexicon(language)


async def _listen(stack: AsyncExitStack, app: web.Application, host: str, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()


async def run(chosen: argparse.Namespace) -> None:
    """Serves until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(chosen, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit status."""
    chosen = parse(sys.argv[1:] if arguments is None else arguments)
    keep_private()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run(chosen))
    except OSError as error:
        _log.error("sandbox cannot start: %s; choose free ports and a writable --state folder", error)
        return _CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
