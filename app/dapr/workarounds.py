"""The defects of Dapr that this agent works around, and the versions that make each workaround unnecessary. Pure.

Whoever works around one asks `needed` with the version that runs: daprd's from its metadata (`app/dapr/sidecar.py`),
the Python SDK's from the installed package (`app/dapr/sdk_version.py`). A workaround stays on where the version is
unknown: one that is on for nothing costs little, one that is off when it is needed loses work.

What Dapr never promised is not in the table: that a step may be executed twice, or that an answer may come late.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Version(NamedTuple):
    """A version number. `final` is False for what comes before a release, such as 1.18.4-rc.1."""

    major: int
    minor: int
    patch: int
    final: bool = True

    def __str__(self) -> str:
        """Dotted."""
        return f"{self.major}.{self.minor}.{self.patch}" + ("" if self.final else " (not a release)")


def parse(text: str | None) -> Version | None:
    """The version that a program tells of itself, such as `1.18.2`; None for what is no number, such as `edge`."""
    found = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(\S*)", (text or "").strip())
    return Version(int(found[1]), int(found[2]), int(found[3]), not found[4]) if found else None


@dataclass(frozen=True)
class Versions:
    """From `least` (included) to the release `below` (excluded, with what comes before it)."""

    least: Version
    below: Version

    def __contains__(self, version: Version | None) -> bool:
        """Whether a version lies in between; an unknown one does not."""
        return version is not None and self.least <= version < self.below._replace(final=False)


# Which daprd the agent runs with. The set-up looks for the same (`runtime/programs.py`).
SUPPORTED = Versions(Version(1, 18, 2), Version(1, 19, 0))
# The SDKs that the patches were written for and tried with. In a later one the code may be another, so they are off.
PATCHED = Versions(Version(1, 18, 3), Version(1, 20, 0))


class Component(Enum):
    """Whose defect it is."""

    DAPRD = "daprd"
    SDK = "Python SDK"


@dataclass(frozen=True)
class Workaround:
    """One defect and what makes the workaround unnecessary. `issue` is empty where none is known; `mended` is the first
    release without the defect, None as long as there is none."""

    name: str
    trouble: str
    issue: str
    component: Component
    mended: Version | None

    @property
    def until(self) -> str:
        """For people: how long it is needed."""
        return f"until {self.mended}" if self.mended else "no release is without it yet"


TORN_READ = Workaround(
    "torn history",
    "A history that is read while its run continues is sometimes incomplete.",
    "dapr#10242",
    Component.DAPRD,
    Version(1, 18, 3),
)
REJECTED_RUNS = Workaround(
    "false tampering verdict",
    "With history signing, a late result of a step is taken for tampering, and its run fails for good.",
    "dapr#10419",
    Component.DAPRD,
    Version(1, 18, 4),
)
NEVER_BEGUN = Workaround(
    "run never begun",
    "The first turn of a new run is scheduled before the run is saved; if the sidecar freezes in between, the run "
    "stays pending forever.",
    "dapr#10443",
    Component.DAPRD,
    Version(1, 18, 4),
)
LOST_METRICS = Workaround(
    "lost metrics",
    "The metrics page fails after a Configuration or a Resiliency was reloaded, until the sidecar is restarted.",
    "dapr#10535",
    Component.DAPRD,
    Version(1, 18, 5),
)
LOCKED_UP = Workaround(
    "locked-up sidecar",
    "A sidecar that loses its last worker while work is queued may never give work to another worker.",
    "dapr#10408",
    Component.DAPRD,
    Version(1, 19, 0),
)
TOOL_CHOICE = Workaround(
    "tools of Anthropic and Bedrock",
    "The components for Anthropic and AWS Bedrock send the choice of tools as plain text, and every request with tools "
    "is refused.",
    "components-contrib#4531",
    Component.DAPRD,
    Version(1, 19, 0),
)
PAUSES = Workaround(
    "pauses",
    "While a workflow is paused, its own schedule and a second pause are held back like external events, so that "
    "at resume it fails or never ends its turn.",
    "",
    Component.SDK,
    None,
)
EVENTS = Workaround(
    "events from outside",
    "A workflow fails if it is resumed without being paused or gets an event that is not JSON; an event after a "
    "terminate lets it continue.",
    "",
    Component.SDK,
    None,
)
STEP_NAMES = Workaround(
    "names of steps",
    "A step is named by the time of the turn that schedules it, so a repeated turn schedules a different step.",
    "",
    Component.SDK,
    None,
)
RECONNECTING = Workaround(
    "slow reconnection",
    "The SDK retries a lost sidecar only after up to two minutes and through the machine's proxies, with no "
    "option for either.",
    "",
    Component.SDK,
    None,
)
HEALTH = Workaround(
    "blocking health check",
    "Creating a client checks the sidecar's health on the event loop and through the machine's proxies.",
    "",
    Component.SDK,
    None,
)
SPANS = Workaround(
    "spans for nobody",
    "Every gRPC call gets a span if OpenTelemetry's instrumentation is installed, even if no collector is set.",
    "",
    Component.SDK,
    None,
)
ALL = (
    TORN_READ,
    REJECTED_RUNS,
    NEVER_BEGUN,
    LOST_METRICS,
    LOCKED_UP,
    TOOL_CHOICE,
    PAUSES,
    EVENTS,
    STEP_NAMES,
    RECONNECTING,
    HEALTH,
    SPANS,
)


def needed(workaround: Workaround, running: Version | None) -> bool:
    """Whether it is to be worked around where that version runs."""
    return not _mended(workaround, running) and not untried(workaround, running)


def _mended(workaround: Workaround, running: Version | None) -> bool:
    return running is not None and workaround.mended is not None and running >= workaround.mended


def untried(workaround: Workaround, running: Version | None) -> bool:
    """Whether it is off, although the defect may be there, since the SDK is later than those it was written for."""
    later = running is not None and running >= PATCHED.below._replace(final=False)
    return later and workaround.component is Component.SDK and not _mended(workaround, running)


def active(component: Component, running: Version | None) -> tuple[Workaround, ...]:
    """What is worked around where that version of it runs."""
    return tuple(workaround for workaround in ALL if workaround.component is component and needed(workaround, running))


@dataclass(frozen=True)
class SecurityFix:
    """What an attacker can do below the version that mended it. No workaround of ours closes it."""

    name: str
    trouble: str
    mended: Version


SECURITY = (
    SecurityFix(
        "scheduler authorisation",
        "any app of its namespace can run this one's activities and delete its reminders",
        Version(1, 18, 6),
    ),
    SecurityFix(
        "path encoding",
        "%2F, %5C or %2E in a path gets around the access rules of service invocation",
        Version(1, 18, 6),
    ),
    SecurityFix("caller headers", "a caller can pretend to be another app", Version(1, 18, 6)),
)


def missing_fixes(running: Version | None) -> tuple[SecurityFix, ...]:
    """The security fixes that a version does not have; all of them where it is unknown."""
    return tuple(fix for fix in SECURITY if running is None or running < fix.mended)
