"""Starts either side, the product or DBOS, and describes it in one form for the load generator."""

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

# DBOS has its own virtual environment, made from a hash-checked lock. It uses the product's rules and prompts, so the
# product's environment comes after its own on the path. Packages that both need have one version, since the lock is
# compiled with the product's lock as a constraint.

DBOS_LOCK = Path(__file__).with_name("requirements-dbos.lock")
DBOS_HOME = paths.RUNTIME / "peer"
DBOS_PYTHON = DBOS_HOME / "bin" / "python"
_DBOS_STAMP = DBOS_HOME / "installed.sha256"
_INSTALL_SECONDS = 600


def ensure_dbos_environment() -> None:
    """Makes DBOS's environment if it is missing or made from another lock. Raises UserError with pip's last lines."""
    digest = hashlib.sha256(DBOS_LOCK.read_bytes() + f"{sys.version} {paths.VENV}".encode()).hexdigest()
    if _DBOS_STAMP.exists() and _DBOS_STAMP.read_text() == digest:
        return
    shutil.rmtree(DBOS_HOME, ignore_errors=True)
    venv.create(DBOS_HOME, with_pip=True, symlinks=True)
    options = ["--disable-pip-version-check", "--no-input", "-q", "--require-hashes", "--no-deps"]
    command = [str(DBOS_PYTHON), "-m", "pip", "install", *options, "-r", str(DBOS_LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise UserError(f"pip cannot install {DBOS_LOCK.name}: {(done.stderr or done.stdout).strip()[-600:]}")
    (_packages(DBOS_HOME) / "product.pth").write_text(f"{_packages(paths.VENV)}\n")
    _DBOS_STAMP.write_text(digest)


def dbos_environment_version(distribution: str) -> str:
    """The version of a package in DBOS's environment."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run([str(DBOS_PYTHON), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _packages(home: Path) -> Path:
    """The site-packages folder of a virtual environment."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))


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
class PreparedStore:
    """A state store that is ready: the overlay with its component, process ids by name, and its version."""

    overlay: dict[str, str] = field(default_factory=dict)
    leaders: dict[str, int] = field(default_factory=dict)
    version: str = ""


def prepare_store(store: Store, open_until: ExitStack) -> PreparedStore:
    """Starts the store's server, which stops with `open_until`. SQLite, the product's default, needs none."""
    if store is Store.POSTGRES:
        postgres = open_until.enter_context(PostgresServer())
        url = postgres.create_database(DATABASE)
        overlay = component("state.postgresql", "v2", connectionString=url)
        return PreparedStore(overlay, {"postgres": postgres.pid}, postgres.version())
    if store is Store.REDIS:
        redis = open_until.enter_context(RedisServer())
        overlay = component("state.redis", "v1", redisHost=redis.address, redisPassword=redis.password)
        return PreparedStore(overlay, {"redis": redis.pid}, f"{redis.version()}, appendfsync {redis.fsync}")
    return PreparedStore()


def component(type_name: str, version: str, **metadata: str) -> dict[str, str]:
    """The overlay that replaces the default state store's component."""
    lines = "".join(f'    - name: {name}\n      value: "{value}"\n' for name, value in metadata.items())
    return {"statestore.yaml": _COMPONENT.format(type=type_name, version=version, metadata=lines)}


_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Running:
    """One side that is ready for load."""

    side: Side
    web_url: str  # POST /tasks
    token: str
    sandbox: SandboxApi
    sandbox_state: Path
    leaders: dict[str, int]  # process ids by name; descendants count as theirs
    store_version: str
    dapr_grpc: str = ""  # ours: daprd's address
    api_token: str = ""  # ours: the token of daprd's API
    ledger_url: str = ""  # ours: the database that holds the tickets


@contextmanager
def running(block: Block, folder: Path) -> Iterator[Running]:
    """Starts the processes of a block with their files below `folder`, and stops them at the end."""
    with ExitStack() as open_until:
        if block.variant is not None:
            yield _start_dbos(block.variant, folder, open_until)
        else:
            yield open_until.enter_context(ours(block.store, folder))


@contextmanager
def ours(store: Store, folder: Path, worker: Sequence[str] | None = None) -> Iterator[Running]:
    """The product on that store. `worker` replaces the command of the product's worker."""
    with ExitStack() as open_until:
        prepared = prepare_store(store, open_until)
        stack = open_until.enter_context(Stack(folder, overlay=prepared.overlay, worker=worker))
        yield describe_stack(stack, prepared)


def describe_stack(stack: Stack, prepared: PreparedStore) -> Running:
    """Describes a running stack and its store for the load generator."""
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


def _start_dbos(variant: Variant, folder: Path, open_until: ExitStack) -> Running:
    ensure_dbos_environment()
    postgres = open_until.enter_context(PostgresServer())
    stack = open_until.enter_context(Stack(folder, parts=["sandbox"]))
    (port,) = free_ports(1)
    token = secrets.token_hex(24)
    command = [
        *(str(DBOS_PYTHON), "-m", "lab.bench.dbos_baseline.serve"),
        *("--style", variant.style, "--start", variant.start),
        *("--threads", str(variant.threads), "--connections", str(variant.connections)),
        *("--database", postgres.create_database(DATABASE), "--port", str(port), "--token", token),
        *("--model", stack.model_url, "--systems", stack.systems_url),
    ]
    child = processes.start("dbos", command, log=folder / "dbos.log", folder=paths.ROOT)
    open_until.callback(processes.stop, child)
    processes.wait_until(
        lambda: answers(port, "/healthz"), what="the DBOS baseline", deadline_seconds=_READY_SECONDS, children=[child]
    )
    return Running(
        side=Side.DBOS,
        web_url=f"http://{HOST}:{port}",
        token=token,
        sandbox=SandboxApi.of(stack),
        sandbox_state=stack.state / "sandbox",
        leaders={"worker": child.pid, "sandbox": stack.pid("sandbox"), "postgres": postgres.pid},
        store_version=postgres.version(),
    )
