"""Finds every process that a child has started, also those that have left its tree or its session.

A child carries a mark in its environment, which its descendants inherit; together with the process tree
and the session id nothing gets away. Reads /proc; on a system without it only the child itself is known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "RUNTIME_FAMILY"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    zombie: bool


def processes() -> dict[int, Process]:
    """All processes that can be seen now, by pid."""
    found = (_read(int(entry.name)) for entry in _PROC.glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def members(leader: int, mark: str) -> set[int]:
    """The living processes of a child's family: its tree, its session and all that carry its mark."""
    table = processes()
    tree = set(_tree(leader, table))
    session = {process.pid for process in table.values() if process.session == leader}
    marked = {pid for pid in table if _carries(pid, mark)}
    return {pid for pid in tree | session | marked if pid in table and not table[pid].zombie}


def descendants(leader: int) -> set[int]:
    """The living processes below one process, itself not included."""
    table = processes()
    return {pid for pid in _tree(leader, table) if pid != leader and not table[pid].zombie}


def _tree(leader: int, table: dict[int, Process]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = [leader] if leader in table else []
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(children.get(pid, []))


def _read(pid: int) -> Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:  # gone between listing and reading
        return None
    state, parent, _group, session = text.rpartition(")")[2].split()[:4]
    return Process(pid, int(parent), int(session), state in "ZX")


def _carries(pid: int, mark: str) -> bool:
    if pid == os.getpid():
        return False
    try:
        return f"{MARK}={mark}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return False
