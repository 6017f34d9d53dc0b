"""Says on what the figures were measured: the machine, its load, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from lab.bench import environment
from runtime import paths


def describe() -> dict[str, str]:
    """Names and values, ready to print."""
    return hardware() | {
        "daprd": daprd(),
        "dapr-ext-workflow": version("dapr-ext-workflow"),
        "dbos": environment.version("dbos"),
    }


def hardware() -> dict[str, str]:
    """The machine itself, and the Python that everything here runs on."""
    return {
        "machine": f"{os.cpu_count()} x {_cpu()}, {_memory_gib():.0f} GiB, {platform.system()} {platform.release()}",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
    }


def daprd() -> str:
    """The version of the daprd that is started."""
    done = subprocess.run([str(paths.LAUNCH_BIN / "daprd"), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    found = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return int(found[1]) / 2**20 if found else float("nan")
