"""CPU seconds of processes, from /proc: what a process and all below it have used, ended children included."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtime import process_tree

_TICKS = os.sysconf("SC_CLK_TCK")


def used(leader: int, *, with_children: bool = True) -> float:
    """Seconds used so far by a process, by the living ones below it, and by those they have outlived."""
    pids = {leader, *(process_tree.descendants(leader) if with_children else ())}
    return sum(_own(pid) for pid in pids)


def snapshot(leaders: Mapping[str, int]) -> dict[str, float]:
    """Seconds used so far, by name; this process itself is the load generator."""
    seconds = {name: used(pid) for name, pid in leaders.items()}
    return seconds | {"load generator": sum(os.times()[:2])}


def machine_busy() -> float:
    """Seconds in which a core of this machine did something, for whomever, since it was started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _waiting, hard, soft = (int(ticks) for ticks in fields[:7])
    return (user + nice + system + hard + soft) / _TICKS


def since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used between two snapshots."""
    return {name: round(after[name] - before[name], 4) for name in before}


def _own(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # ended between listing and reading
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS
