"""Makes the peer's virtual environment from its own hash-checked lock; the product's packages are seen behind it.

The peer uses the product's rules and prompts, so it sees the product's environment too, after its own: what
both need has one version (the lock is compiled under the product's as a constraint).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from runtime import paths
from runtime.problems import Problem

LOCK = Path(__file__).with_name("requirements-dbos.lock")
HOME = paths.RUNTIME / "peer"
PYTHON = HOME / "bin" / "python"
_STAMP = HOME / "installed.sha256"
_INSTALL_SECONDS = 600


def ensure() -> None:
    """Makes the environment when it is missing or of another lock. Raises Problem with pip's last lines."""
    wanted = hashlib.sha256(LOCK.read_bytes() + f"{sys.version} {paths.VENV}".encode()).hexdigest()
    if _STAMP.exists() and _STAMP.read_text() == wanted:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    venv.create(HOME, with_pip=True, symlinks=True)
    options = ["--disable-pip-version-check", "--no-input", "-q", "--require-hashes", "--no-deps"]
    command = [str(PYTHON), "-m", "pip", "install", *options, "-r", str(LOCK)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise Problem(f"pip cannot install {LOCK.name}: {(done.stderr or done.stdout).strip()[-600:]}")
    (_packages(HOME) / "product.pth").write_text(f"{_packages(paths.VENV)}\n")
    _STAMP.write_text(wanted)


def version(distribution: str) -> str:
    """The version of a package of the peer's environment."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _packages(home: Path) -> Path:
    """Where a virtual environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)}))
