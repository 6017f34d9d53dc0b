"""The house's rules about rooms: imports point down only, pure rooms do no I/O, one file reads the environment."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import ROOT

APP = ROOT / "app"
# A room may import those above it here, and itself. Finance is pure: the ledger reads what it computes from, and hands
# it over, so it stands below the ledger as pricing does.
ORDER = (
    "domain",
    "dapr",
    "config",
    "pricing",
    "finance",
    "ledger",
    "llm",
    "worker",
    "telemetry",
    "providers",
    "workflow",
    "tasks",
    "web",
    "bootstrap",
    "cli",
    "__main__",
)
# Three rooms at one height: none of them knows of the others.
APART = frozenset({"llm", "worker", "telemetry"})
# The ledger's own rooms, in the same sense.
OF_THE_LEDGER = ("store", "recording", "reading", "audit")
# What the sandbox may have of the product: the words of the business, the tokenizer, and files for their owner alone.
FOR_THE_SANDBOX = ("app.domain", "app.llm.tokenizer", "app.config.private_files")

# Rooms and files that do no I/O: what goes in comes as arguments.
PURE = ("domain", "pricing", "finance")
PURE_FILES = (
    *(f"dapr/history/{name}.py" for name in ("model", "times", "causes", "executions")),
    "workflow/activities/guards.py",
    "workflow/activities/prompts.py",
    *(f"telemetry/{name}.py" for name in ("spans", "names")),
)
NOT_PURE = frozenset({"finance/retry_bounds/sidecar_files.py"})  # it reads the sidecar's files
# What a pure file may not import, directly or through another of ours.
IMPURE = ("dapr", "grpc", "aiohttp", "httpx", "sqlalchemy", "flask", "waitress", "os", "socket", "subprocess")


def imports(file: Path) -> set[str]:
    """The modules that a file names in its import statements."""
    return names_in(ast.walk(ast.parse(file.read_text())))


def imports_at_start(file: Path) -> set[str]:
    """Those that it imports when it is loaded itself."""
    return names_in(ast.parse(file.read_text()).body)


def names_in(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that import statements among the nodes name."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(file: Path) -> str:
    """The room of a file of the product."""
    return file.relative_to(APP).with_suffix("").parts[0]


def rooms_used(file: Path) -> set[str]:
    """The rooms that a file imports from."""
    names = (name.split(".") for name in imports(file) if name.startswith("app."))
    return {parts[1] for parts in names} - {"__version__"}


def files() -> list[Path]:
    """Every file of the product but the package's own."""
    return [file for file in sorted(APP.rglob("*.py")) if file != APP / "__init__.py"]


def test_every_file_stands_in_a_room() -> None:
    assert {room_of(file) for file in files()} == set(ORDER)
    assert {file.name for file in APP.glob("*.py")} == {"__init__.py", "__main__.py", "bootstrap.py"}


@pytest.mark.parametrize("room", ORDER)
def test_imports_point_down_only(room: str) -> None:
    allowed = set(ORDER[: ORDER.index(room) + 1]) - (APART - {room} if room in APART else set())
    for file in (file for file in files() if room_of(file) == room):
        assert rooms_used(file) <= allowed, f"{file.relative_to(ROOT)} imports {rooms_used(file) - allowed}"


@pytest.mark.parametrize("room", OF_THE_LEDGER)
def test_inside_the_ledger_too(room: str) -> None:
    allowed = set(OF_THE_LEDGER[: OF_THE_LEDGER.index(room) + 1])
    for file in (APP / "ledger" / room).rglob("*.py"):
        used = {name.split(".")[2] for name in imports(file) if name.startswith("app.ledger.")}
        assert used <= allowed, f"{file.relative_to(ROOT)} imports {used - allowed}"


@pytest.mark.parametrize("house", ["app", "sandbox", "lab", "runtime"])
def test_no_module_imports_itself_through_others(house: str) -> None:
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (ROOT / house).rglob("*.py")
    }
    graph = {name: imports_at_start(file) & set(modules) - {name} for name, file in modules.items()}
    packages = {name for name, file in modules.items() if file.name == "__init__.py"}
    # `from package import module` loads the module; what the package itself imports counts for the package.
    TopologicalSorter({name: used - packages for name, used in graph.items()}).prepare()


def test_no_two_modules_have_one_name() -> None:
    names = Counter(file.name for file in files() if file.name not in ("__init__.py", "__main__.py"))
    # The blueprint of the pages, and the commands, are named by convention.
    assert {name for name, count in names.items() if count > 1} <= {"prices.py"}


def test_no_two_public_classes_have_one_name() -> None:
    names = Counter(
        node.name
        for file in files()
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}


def test_the_sandbox_knows_nothing_of_the_agent() -> None:
    for file in (ROOT / "sandbox").rglob("*.py"):
        used = {name for name in imports(file) if name.startswith("app.")} - {"app.llm", "app.config"}
        assert all(name.startswith(FOR_THE_SANDBOX) for name in used), f"{file.relative_to(ROOT)} imports {used}"


def pure_files() -> list[str]:
    """Paths below app/."""
    found = {str(file.relative_to(APP)) for room in PURE for file in (APP / room).rglob("*.py")}
    return sorted((found | set(PURE_FILES)) - NOT_PURE)


@pytest.mark.parametrize("name", pure_files())
def test_pure_files_do_no_io(name: str) -> None:
    assert not set(IMPURE) & {module.partition(".")[0] for module in imports(APP / name)}, name


def test_pure_files_bring_no_client_with_them() -> None:
    """All in one process, which takes a second and not one for each."""
    modules = ["app." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in pure_files()]
    # The package of the activities imports them all; a pure file among them is loaded without it.
    wanted = [module for module in modules if not module.startswith("app.workflow.")]
    code = (
        f"import sys, importlib\nfor name in {wanted!r}: importlib.import_module(name)\nprint('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not (set(IMPURE) - {"os", "socket", "subprocess"}) & set(done.stdout.split())


def test_one_file_reads_the_environment() -> None:
    readers = []
    for file in APP.rglob("*.py"):
        if re.search(r"\benviron\b|\bgetenv\b|envvar=", file.read_text()):
            readers.append(str(file.relative_to(APP)))
    # settings.py reads it through pydantic-settings, and keeps proxies out of it; tiktoken is told its folder by the
    # environment and nothing else.
    assert sorted(readers) == ["config/settings.py", "llm/tokenizer.py"]
