"""Who may be asked: the models behind Conversation components, and the internal systems. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a target is."""

    MODEL = "model"
    SYSTEM = "system"


@dataclass(frozen=True)
class Target:
    """type: a component's type, like conversation.openai. model: as its file names it; empty where it does not."""

    name: str
    kind: Kind
    type: str = "HTTPEndpoint"
    model: str = ""


@dataclass(frozen=True)
class Client:
    """How often a client of daprd's sends one request itself, out of the sidecar's sight and outside its breaker's
    count. requests: None is not known."""

    requests: int | None
    fact: str


_ONCE = Client(1, "its client sends each request once")
# As found in components-contrib 1.18.3, langchaingo and what they use.
_CLIENTS: Mapping[str, Client] = {
    "HTTPEndpoint": _ONCE,
    "conversation.anthropic": _ONCE,
    "conversation.deepseek": _ONCE,
    "conversation.echo": Client(1, "it asks nobody"),
    "conversation.googleai": _ONCE,
    "conversation.huggingface": _ONCE,
    "conversation.ollama": _ONCE,
    "conversation.openai": _ONCE,
    "conversation.mistral": Client(
        5, "its client sends a request up to 5 times (429, 500, 502, 503, 504, no answer), also after the time-out"
    ),
    "conversation.aws.bedrock": Client(3, "AWS's client sends a request up to 3 times (throttled, 5xx, no answer)"),
}


def client(target: Target) -> Client:
    """The client that daprd uses for a target."""
    unknown = Client(None, f"nobody has looked how often the client of {target.type} sends a request")
    return _CLIENTS.get(target.type, unknown)


def model(component: Mapping[str, Any]) -> Target:
    """Of a Conversation component."""
    spec = component["spec"]
    entries = {str(each.get("name", "")).lower(): each.get("value") for each in spec.get("metadata") or []}
    name = str(component["metadata"]["name"])
    return Target(name, Kind.MODEL, str(spec["type"]), str(entries.get("model") or ""))


def system(endpoint: Mapping[str, Any]) -> Target:
    """Of an HTTPEndpoint."""
    return Target(str(endpoint["metadata"]["name"]), Kind.SYSTEM)
