"""The processes of both sides, with one face: where tickets go, what burns CPU, which books tell what is done."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.config.settings import Settings
from app.tasks.access import read_local_token
from lab.bench.plan import Block, Side, Store, Variant
from lab.clients import SandboxApi
from runtime import paths, processes
from runtime.errors import UserError
from runtime.loopback import HOST, answers, free_ports
from runtime.stack import Stack
from tests.servers import PostgresServer, RedisServer

# Makes the peer's virtual environment from its own hash-checked lock; the product's packages are seen behind it.
#
# The peer uses the product's rules and prompts, so it sees the product's environment too, after its own: what both need
# has one version (the lock is compiled under the product's as a constraint).

PEER_LOCK = Path(__file__).with_name("requirements-dbos.lock")
PEER_HOME = paths.RUNTIME / "peer"
PEER_PYTHON = PEER_HOME / "bin" / "python"
_PEER_STAMP = PEER_HOME / "installed.sha256"
_INSTALL_SECONDS = 600


def ensure_peer_environment() -> None:
    """Makes the environment when it is missing or of another lock. Raises UserError with pip's last lines."""
    wanted = hashlib.sha256(PEER_LOCK.read_bytes() + f"{sys.version} {paths.VENV}".encode()).hexdigest()
    if _PEER_STAMP.exists() and _PEER_STAMP.read_text() == wanted:
        return
    shutil.rmtree(PEER_HOME, ignore_errors=True)
    venv.create(PEER_HOME, with_pip=True, symlinks=True)
    options = ["--disable-pip-version-check", "--no-input", "-q", "--require-hashes", "--no-deps"]
    command = [str(PEER_PYTHON), "-m", "pip", "install", *options, "-r", str(PEER_LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise UserError(f"pip cannot install {PEER_LOCK.name}: {(done.stderr or done.stdout).strip()[-600:]}")
    (_packages(PEER_HOME) / "product.pth").write_text(f"{_packages(paths.VENV)}\n")
    _PEER_STAMP.write_text(wanted)


def peer_version(distribution: str) -> str:
    """The version of a package of the peer's environment."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run([str(PEER_PYTHON), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _packages(home: Path) -> Path:
    """Where a virtual environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))


# The state stores: throw-away servers, and the components with which daprd uses them.

_COMPONENT = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
scopes: [agent]
spec:
  type: {type}
  version: {version}
  metadata:
    - name: actorStateStore
      value: "true"
{metadata}"""
DATABASE = "workflow"


@dataclass(frozen=True)
class Prepared:
    """A store that is ready: the component's overlay, its server's process, and its version."""

    overlay: dict[str, str] = field(default_factory=dict)
    leaders: dict[str, int] = field(default_factory=dict)
    version: str = ""


def prepare_store(store: Store, open_until: ExitStack) -> Prepared:
    """Starts what the store needs; it ends with `open_until`. SQLite needs nothing and is the product's default."""
    if store is Store.POSTGRES:
        postgres = open_until.enter_context(PostgresServer())
        url = postgres.create_database(DATABASE)
        overlay = component("state.postgresql", "v2", connectionString=url)
        return Prepared(overlay, {"postgres": postgres.pid}, postgres.version())
    if store is Store.REDIS:
        redis = open_until.enter_context(RedisServer())
        overlay = component("state.redis", "v1", redisHost=redis.address, redisPassword=redis.password)
        return Prepared(overlay, {"redis": redis.pid}, f"{redis.version()}, appendfsync {redis.fsync}")
    return Prepared()


def component(type_name: str, version: str, **metadata: str) -> dict[str, str]:
    """The overlay that puts another store in the place of the default one."""
    lines = "".join(f'    - name: {name}\n      value: "{value}"\n' for name, value in metadata.items())
    return {"statestore.yaml": _COMPONENT.format(type=type_name, version=version, metadata=lines)}


_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """One side, ready for load."""

    side: Side
    web_url: str  # POST /tasks
    token: str
    sandbox: SandboxApi
    sandbox_state: Path
    leaders: dict[str, int]  # processes by name
    store_version: str
    dapr_grpc: str = ""  # ours: daprd's address
    api_token: str = ""  # ours: what opens daprd's API
    ledger_url: str = ""  # ours: where tickets are kept before they are worked


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
        prepared = prepare_store(store, open_until)
        stack = open_until.enter_context(Stack(folder, overlay=prepared.overlay, worker=worker))
        yield describe_stack(stack, prepared)


def describe_stack(stack: Stack, prepared: Prepared) -> Running:
    """A stack that runs, as the load generator needs it; its processes are those of the stack and of the store."""
    return Running(
        side=Side.OURS,
        web_url=stack.web_url,
        token=read_local_token(stack.state / "token"),
        sandbox=SandboxApi.of(stack),
        sandbox_state=stack.state / "sandbox",
        leaders={name: stack.pid(name) for name in stack.parts} | prepared.leaders,
        store_version=prepared.version,
        dapr_grpc=stack.dapr_grpc,
        api_token=stack.api_token,
        ledger_url=Settings(state_dir=stack.state).database_url,
    )


def _peer(variant: Variant, folder: Path, open_until: ExitStack) -> Running:
    ensure_peer_environment()
    postgres = open_until.enter_context(PostgresServer())
    stack = open_until.enter_context(Stack(folder, parts=["sandbox"]))
    (port,) = free_ports(1)
    token = secrets.token_hex(24)
    command = [
        *(str(PEER_PYTHON), "-m", "lab.bench.dbos_baseline.serve"),
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
        sandbox=SandboxApi.of(stack),
        sandbox_state=stack.state / "sandbox",
        leaders={"worker": child.pid, "sandbox": stack.pid("sandbox"), "postgres": postgres.pid},
        store_version=postgres.version(),
    )
