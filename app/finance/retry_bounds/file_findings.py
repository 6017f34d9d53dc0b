"""What is wrong with a resiliency file: daprd says nothing, or one line in its log, and goes on without it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`wrong`: what stands there cannot be meant; else it only has no effect, or a doubtful one."""

    where: str
    problem: str
    wrong: bool
