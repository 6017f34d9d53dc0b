"""The processes of both sides, with one face: where tickets go, what burns CPU, which books tell what is done."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.config.settings import Settings
from app.tasks.access import read_local_token
from lab.bench import environment
from lab.bench.plan import Block, Side, Store, Variant
from lab.bench.stores import DATABASE, Prepared, prepare
from runtime import paths, processes
from runtime.loopback import HOST, answers, free_ports
from runtime.stack import Stack
from tests.servers import PostgresServer

_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """One side, ready for load."""

    side: Side
    web_url: str  # POST /tasks
    token: str
    model_url: str
    sandbox_state: Path
    leaders: dict[str, int]  # processes by name
    store_version: str
    dapr_grpc: str = ""  # ours: daprd's address
    api_token: str = ""  # ours: what opens daprd's API
    ledger_url: str = ""  # ours: where tickets are kept before they are worked

    def set_latency(self, seconds: float) -> None:
        """Makes each model call take so long."""
        httpx.put(f"{self.model_url}/latency", json={"seconds": seconds}, trust_env=False).raise_for_status()

    def bill(self) -> dict[str, int]:
        """What the model was asked so far: requests and tokens."""
        answer = httpx.get(f"{self.model_url}/bill/total", trust_env=False).raise_for_status().json()
        return {key: int(value) for key, value in answer.items() if isinstance(value, int)}


@contextmanager
def running(block: Block, folder: Path) -> Iterator[Running]:
    """Starts the processes of a block below `folder`, and ends them."""
    with ExitStack() as open_until:
        if block.variant is not None:
            yield _peer(block.variant, folder, open_until)
        else:
            yield open_until.enter_context(ours(block.store, folder))


@contextmanager
def ours(store: Store, folder: Path, worker: Sequence[str] | None = None) -> Iterator[Running]:
    """The product on that store; `worker` is another command than the product's own."""
    with ExitStack() as open_until:
        prepared = prepare(store, open_until)
        stack = open_until.enter_context(Stack(folder, overlay=prepared.overlay, worker=worker))
        yield described(stack, prepared)


def described(stack: Stack, prepared: Prepared) -> Running:
    """A stack that runs, as the load generator needs it; its processes are those of the stack and of the store."""
    return Running(
        side=Side.OURS,
        web_url=stack.web_url,
        token=read_local_token(stack.state / "token"),
        model_url=stack.model_url,
        sandbox_state=stack.state / "sandbox",
        leaders={name: stack.pid(name) for name in stack.parts} | prepared.leaders,
        store_version=prepared.version,
        dapr_grpc=stack.dapr_grpc,
        api_token=stack.api_token,
        ledger_url=Settings(state_dir=stack.state).database_url,
    )


def _peer(variant: Variant, folder: Path, open_until: ExitStack) -> Running:
    environment.ensure()
    postgres = open_until.enter_context(PostgresServer())
    stack = open_until.enter_context(Stack(folder, parts=["sandbox"]))
    (port,) = free_ports(1)
    token = secrets.token_hex(24)
    command = [
        *(str(environment.PYTHON), "-m", "lab.bench.dbos_baseline.serve"),
        *("--style", variant.style, "--start", variant.start),
        *("--threads", str(variant.threads), "--connections", str(variant.connections)),
        *("--database", postgres.create_database(DATABASE), "--port", str(port), "--token", token),
        *("--model", stack.model_url, "--systems", stack.systems_url),
    ]
    child = processes.start("peer", command, log=folder / "peer.log", folder=paths.ROOT)
    open_until.callback(processes.stop, child)
    processes.wait_until(
        lambda: answers(port, "/healthz"), what="the peer", deadline_seconds=_READY_SECONDS, children=[child]
    )
    return Running(
        side=Side.PEER,
        web_url=f"http://{HOST}:{port}",
        token=token,
        model_url=stack.model_url,
        sandbox_state=stack.state / "sandbox",
        leaders={"worker": child.pid, "sandbox": stack.pid("sandbox"), "postgres": postgres.pid},
        store_version=postgres.version(),
    )
