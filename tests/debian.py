"""Finds PostgreSQL, PgBouncer, Redis and nginx, installs their Debian packages if allowed, and drops root.

The installation starts no service: Debian asks `policy-rc.d` before it starts one, and this module makes it refuse
during the installation.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import UserError

POSTGRES_PROGRAMS = ("postgres", "initdb", "pg_isready", "psql")
REDIS_PROGRAM = "redis-server"
PGBOUNCER_PROGRAM = "pgbouncer"
NGINX_PROGRAM = "nginx"
PACKAGES = {"postgres": "postgresql", "redis": "redis-server", "pgbouncer": "pgbouncer", "nginx": "nginx"}
# PostgreSQL refuses to run as root; one of these is on every Debian machine.
_UNPRIVILEGED = ("postgres", "nobody")
_DEBIAN_HOMES = Path("/usr/lib/postgresql")
_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_SERVICES = "#!/bin/sh\n# Servers are started by hand for a while; removed again after the installation.\nexit 101\n"
_INSTALL_SECONDS = 600


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs, of the newest version. Raises UserError if it is not installed."""
    homes = sorted(_DEBIAN_HOMES.glob("*/bin"), key=_version, reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        homes.append(Path(on_path).resolve().parent)
    for home in homes:
        if all((home / program).exists() for program in POSTGRES_PROGRAMS):
            return home
    raise UserError("PostgreSQL's server is not installed.", remedy=_remedy("postgres"))


def find_redis() -> Path:
    """Redis's server program. Raises UserError if it is not installed."""
    return _on_path(REDIS_PROGRAM, "Redis's server is not installed.", "redis")


def find_pgbouncer() -> Path:
    """PgBouncer's program. Raises UserError if it is not installed."""
    return _on_path(PGBOUNCER_PROGRAM, "PgBouncer is not installed.", "pgbouncer")


def find_nginx() -> Path:
    """nginx's program, which is in /usr/sbin on Debian. Raises UserError if it is not installed."""
    path = shutil.which(NGINX_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise UserError("nginx is not installed.", remedy=_remedy("nginx"))
    return Path(path)


def _on_path(program: str, message: str, name: str) -> Path:
    path = shutil.which(program)
    if path is None:
        raise UserError(message, remedy=_remedy(name))
    return Path(path)


def missing(*names: str) -> list[str]:
    """Those of `names` (keys of `PACKAGES`) that are not installed."""
    absent = []
    for name in names:
        try:
            _FIND[name]()
        except UserError:
            absent.append(name)
    return absent


_FIND = {"postgres": find_postgres, "redis": find_redis, "pgbouncer": find_pgbouncer, "nginx": find_nginx}


def ensure_installed(*more: str) -> None:
    """Installs those of PostgreSQL, Redis and `more` that are missing, if this is root on a Debian machine; otherwise
    raises UserError with the remedy."""
    needed = ("postgres", "redis", *more)
    absent = missing(*needed)
    if not absent:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(f"Not installed: {', '.join(absent)}.", remedy=_remedy(*absent))
    with _no_services():
        _apt_get("update", "-qq")
        _apt_get("install", "-y", "-qq", "--no-install-recommends", *(PACKAGES[name] for name in absent))
    still = missing(*needed)
    if still:
        raise UserError(
            f"apt-get installed its packages, but {', '.join(still)} cannot be found.", remedy=_remedy(*still)
        )


def give_away(*paths: Path) -> None:
    """Gives files and folders to the user that the servers run as."""
    owner = _owner()
    if owner is not None:
        for path in paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)


def lowered(tether: signal.Signals | None = None) -> list[str]:
    """The command prefix that drops root. `tether` is the signal that the command gets when its parent ends; it is set
    here because the kernel resets it when root is dropped."""
    owner = _owner()
    if owner is None:
        return []
    drop = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    return [*drop, *(["--pdeathsig", tether.name.removeprefix("SIG")] if tether else []), "--"]


def _owner() -> pwd.struct_passwd | None:
    """The user that the servers run as; None means the current one. Raises UserError if root finds no such user."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise UserError(
        f"This machine has none of the users {', '.join(_UNPRIVILEGED)}.", remedy="Run this as a user other than root."
    )


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Forbids starting services while the context is open; then restores the machine's policy, if it had one."""
    before = _POLICY.read_bytes() if _POLICY.exists() else None
    mode = _POLICY.stat().st_mode if before is not None else 0o755
    try:
        _POLICY.write_text(_NO_SERVICES)
        _POLICY.chmod(0o755)
        yield
    finally:
        if before is None:
            _POLICY.unlink(missing_ok=True)
        else:
            _POLICY.write_bytes(before)
            _POLICY.chmod(mode)


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(
        ["apt-get", *arguments], capture_output=True, text=True, check=False, env=environment, timeout=_INSTALL_SECONDS
    )
    if done.returncode:
        raise UserError(f"apt-get {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")


def _version(home: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", home.parent.name))


def _remedy(*names: str) -> str:
    return f"On Debian and Ubuntu: apt-get install {' '.join(PACKAGES[name] for name in names)}; no service need run."
