"""The defects of Dapr that this agent works around, and the versions in which each workaround is needed.

Each use of a workaround calls `is_needed` with the running version: daprd's comes from its metadata (`sidecar.py`), the
Python SDK's from the installed package (`sdk_version.py`). If the version is unknown, the workaround is on: an unneeded
one costs little, a missing one loses work.

Behaviour that Dapr never promised otherwise is not a defect: a step may be executed twice, an answer may come late.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Version(NamedTuple):
    """A version number. `final` is False for a pre-release such as 1.18.4-rc.1."""

    major: int
    minor: int
    patch: int
    final: bool = True

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + ("" if self.final else " (not a release)")


def parse(text: str | None) -> Version | None:
    """Parses a version as programs report it, such as `1.18.2`; None if it is no number, such as `edge`."""
    match = re.fullmatch(r"v?(\d+)\.(\d+)\.(\d+)(\S*)", (text or "").strip())
    return Version(int(match[1]), int(match[2]), int(match[3]), not match[4]) if match else None


@dataclass(frozen=True)
class Versions:
    """A range of versions from `least` (included) to the release `below` (excluded, and so are its pre-releases)."""

    least: Version
    below: Version

    def __contains__(self, version: Version | None) -> bool:
        """Whether the version is in the range; an unknown one (None) is not."""
        return version is not None and self.least <= version < self.below._replace(final=False)


# The daprd versions that the agent runs with. The set-up accepts the same (`runtime/programs.py`).
SUPPORTED = Versions(Version(1, 18, 2), Version(1, 19, 0))
# The SDK versions that the patches were tested with. A later SDK's code may differ, so the patches are off there.
PATCHED = Versions(Version(1, 18, 3), Version(1, 20, 0))


class Component(Enum):
    """The part of Dapr that has a defect."""

    DAPRD = "daprd"
    SDK = "Python SDK"


@dataclass(frozen=True)
class Workaround:
    """One defect of Dapr that this agent works around.

    trouble: what goes wrong, in one sentence. issue: Dapr's issue, such as `dapr#10242`; empty if none is known.
    fixed_in: the first release without the defect; None while there is none.
    """

    name: str
    trouble: str
    issue: str
    component: Component
    fixed_in: Version | None

    @property
    def until(self) -> str:
        """A phrase for people: how long the workaround is needed."""
        return f"until {self.fixed_in}" if self.fixed_in else "no release has fixed it yet"


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
NEVER_STARTED = Workaround(
    "run never started",
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
    "tool choice",
    "The component for Anthropic sends the choice of tools as plain text, and every request with tools is refused.",
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
    "unused spans",
    "Every gRPC call gets a span if OpenTelemetry's instrumentation is installed, even if no collector is set.",
    "",
    Component.SDK,
    None,
)
ALL = (
    TORN_READ,
    REJECTED_RUNS,
    NEVER_STARTED,
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


def is_needed(workaround: Workaround, running: Version | None) -> bool:
    """Whether the workaround must be on if version `running` of its component runs; None if that is unknown."""
    return not _is_fixed(workaround, running) and not is_untested(workaround, running)


def _is_fixed(workaround: Workaround, running: Version | None) -> bool:
    return running is not None and workaround.fixed_in is not None and running >= workaround.fixed_in


def is_untested(workaround: Workaround, running: Version | None) -> bool:
    """Whether a patch of the SDK is off although the defect may exist, because the running SDK is later than those that
    the patch was tested with."""
    later = running is not None and running >= PATCHED.below._replace(final=False)
    return later and workaround.component is Component.SDK and not _is_fixed(workaround, running)


def active(component: Component, running: Version | None) -> tuple[Workaround, ...]:
    """The workarounds that are on if version `running` of the component runs."""
    return tuple(
        workaround for workaround in ALL if workaround.component is component and is_needed(workaround, running)
    )


@dataclass(frozen=True)
class SecurityFix:
    """A security defect of daprd that no workaround of ours closes. `trouble` says what an attacker can do below the
    release `fixed_in`."""

    name: str
    trouble: str
    fixed_in: Version


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
    """The security fixes that version `running` of daprd lacks; all of them if it is unknown (None)."""
    return tuple(fix for fix in SECURITY if running is None or running < fix.fixed_in)
