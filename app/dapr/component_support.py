"""What each of Dapr's conversation components supports, by the source of components-contrib 1.18.3 and langchaingo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.dapr.workarounds import TOOL_CHOICE, Version

# The Dapr version that the table describes, as templates and docs/providers.md name it.
DAPR_VERSION = "Dapr 1.18"
_COMMON = ("key", "model", "cachettl", "responsecachettl")
_BEDROCK = (
    *("region", "endpoint", "accesskey", "secretkey", "sessiontoken", "model", "cachettl", "responsecachettl"),
    *("assumerolearn", "trustanchorarn", "trustprofilearn"),
)


@dataclass(frozen=True)
class ComponentSupport:
    """What one component type supports.

    usage: it passes on the provider's token counts. tools: the agent's tools reach the model, and its calls come back.
    structured_output: a JSON schema reaches the provider. cached_tokens: it passes on the cached share of the input.
    reads: the names of its metadata, in lower case; daprd ignores every other name without a message. tools_from: the
    Dapr version in which tools start to work, if one is known.
    """

    usage: bool
    tools: bool
    structured_output: bool
    cached_tokens: bool
    reads: tuple[str, ...]
    tools_from: Version | None = None

    @property
    def sentence(self) -> str:
        """The support in one line, as each template has it in a comment."""
        parts = (
            ("usage", self.usage),
            ("tools", self.tools),
            ("structured output", self.structured_output),
            ("cached tokens", self.cached_tokens),
        )
        said = ", ".join(f"{name} {'yes' if supported else 'no'}" for name, supported in parts)
        later = f"; tools from Dapr {self.tools_from.major}.{self.tools_from.minor}" if self.tools_from else ""
        return f"{DAPR_VERSION}: {said}{later}"


def _openai_client(*reads: str) -> ComponentSupport:
    """A component that uses langchaingo's client of OpenAI's protocol."""
    return ComponentSupport(usage=True, tools=True, structured_output=True, cached_tokens=True, reads=reads)


SUPPORT: Mapping[str, ComponentSupport] = {
    # tool_choice is sent as a bare string, which Anthropic refuses (components-contrib#4531, corrected for 1.19); its
    # names of the token counts are not recognised by Dapr. A schema is sent as a tool that the model is forced to call.
    "conversation.anthropic": ComponentSupport(
        usage=False,
        tools=False,
        structured_output=True,
        cached_tokens=False,
        reads=(*_COMMON, "endpoint", "apitype"),
        tools_from=TOOL_CHOICE.fixed_in,
    ),
    # Its client fails on Dapr's tool_choice before it sends anything, ignores a schema, and names the counts otherwise.
    "conversation.aws.bedrock": ComponentSupport(
        usage=False, tools=False, structured_output=False, cached_tokens=False, reads=_BEDROCK
    ),
    "conversation.deepseek": _openai_client("key", "model", "endpoint", "maxtokens"),
    # It counts words, and calls every tool that it is offered with arguments that are not JSON.
    "conversation.echo": ComponentSupport(
        usage=True, tools=False, structured_output=False, cached_tokens=False, reads=()
    ),
    "conversation.googleai": _openai_client(*_COMMON),
    "conversation.huggingface": _openai_client(*_COMMON, "endpoint"),
    # Its client uses other names for the counts, and no field for a schema.
    "conversation.mistral": ComponentSupport(
        usage=False, tools=True, structured_output=False, cached_tokens=False, reads=_COMMON
    ),
    "conversation.ollama": _openai_client(*_COMMON, "endpoint"),
    "conversation.openai": _openai_client(*_COMMON, "endpoint", "apiversion", "apitype"),
}


def passes_tools(component_type: str, daprd: Version | None) -> bool:
    """Whether tools reach the model through a component of this type and come back, with this version of daprd; True
    for a type that is not in the table."""
    support = SUPPORT.get(component_type)
    if support is None or support.tools:
        return True
    return support.tools_from is not None and daprd is not None and daprd >= support.tools_from
