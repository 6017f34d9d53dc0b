"""Describes the machine that figures were measured on: hardware, load, versions; and reads its CPU times."""

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

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(leader: int, *, with_children: bool = True) -> float:
    """CPU seconds of a process, its descendants, and those of their children that have ended; read from /proc."""
    pids = {leader, *(processes.descendants(leader) if with_children else ())}
    return sum(_process_seconds(pid) for pid in pids)


def cpu_snapshot(leaders: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far by name, with those of this process as `load generator`."""
    seconds = {name: cpu_seconds(pid) for name, pid in leaders.items()}
    return seconds | {"load generator": sum(os.times()[:2])}


def machine_busy() -> float:
    """Busy seconds of all cores since the machine was started, for any process."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, hard, soft = (int(ticks) for ticks in fields[:7])
    return (user + nice + system + hard + soft) / _TICKS


def cpu_since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds by name between two snapshots."""
    return {name: round(after[name] - before[name], 4) for name in before}


def _process_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # ended between listing and reading
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS


def describe() -> dict[str, str]:
    """Hardware and versions as names and values, ready to print."""
    return hardware() | {
        "daprd": daprd(),
        "dapr-ext-workflow": version("dapr-ext-workflow"),
        "dbos": sides.dbos_environment_version("dbos"),
    }


def hardware() -> dict[str, str]:
    """Processor, memory, operating system, load average and Python version."""
    return {
        "machine": f"{os.cpu_count()} x {_cpu_model()}, {_memory_gib():.0f} GiB, "
        f"{platform.system()} {platform.release()}",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
    }


def daprd() -> str:
    """The version of the daprd that the stack starts."""
    done = subprocess.run([str(paths.LAUNCH_BIN / "daprd"), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    match = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def _memory_gib() -> float:
    match = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) / 2**20 if match else float("nan")
