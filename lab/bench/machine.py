"""Says on what the figures were measured: the machine, its load, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from lab.bench import sides
from runtime import paths, processes

# CPU seconds of processes, from /proc: what a process and all below it have used, ended children included.

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(leader: int, *, with_children: bool = True) -> float:
    """Seconds used so far by a process, by the living ones below it, and by those they have outlived."""
    pids = {leader, *(processes.descendants(leader) if with_children else ())}
    return sum(_own(pid) for pid in pids)


def cpu_snapshot(leaders: Mapping[str, int]) -> dict[str, float]:
    """Seconds used so far, by name; this process itself is the load generator."""
    seconds = {name: cpu_seconds(pid) for name, pid in leaders.items()}
    return seconds | {"load generator": sum(os.times()[:2])}


def machine_busy() -> float:
    """Seconds in which a core of this machine did something, for whomever, since it was started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, hard, soft = (int(ticks) for ticks in fields[:7])
    return (user + nice + system + hard + soft) / _TICKS


def cpu_since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used between two snapshots."""
    return {name: round(after[name] - before[name], 4) for name in before}


def _own(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # ended between listing and reading
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def describe() -> dict[str, str]:
    """Names and values, ready to print."""
    return hardware() | {
        "daprd": daprd(),
        "dapr-ext-workflow": version("dapr-ext-workflow"),
        "dbos": sides.peer_version("dbos"),
    }


def hardware() -> dict[str, str]:
    """The machine itself, and the Python that everything here runs on."""
    return {
        "machine": f"{os.cpu_count()} x {_cpu_model()}, {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
    }


def daprd() -> str:
    """The version of the daprd that is started."""
    done = subprocess.run([str(paths.LAUNCH_BIN / "daprd"), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    found = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) / 2**20 if found else float("nan")
