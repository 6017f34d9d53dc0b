"""Who sells model calls, by every name that Dapr, bills, price files and people give them. Pure; the one place for it.

Capitals, spaces, hyphens, dots and underscores do not matter, nor does Dapr's prefix `conversation.`. A name that is
not here stays what it is: nobody guesses whose it may be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Our ids are those of the published price list. Some providers are not on it: they have no prices of their own.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("Anthropic PBC", "Anthropic API", "Claude", "Claude API"),
    "arcee": ("Arcee AI",),
    "avian": (),
    "aws": ("Bedrock", "AWS Bedrock", "Amazon Bedrock", "Amazon", "Amazon Web Services", "Bedrock Converse"),
    "azure": (
        "Azure OpenAI",
        "Azure OpenAI Service",
        "Azure AI",
        "Azure AI OpenAI",
        "Azure AI Inference",
        "az.ai.openai",
        "az.ai.inference",
        "Azure AI Foundry",
        "Microsoft",
        "Microsoft Azure",
        "Microsoft Foundry",
    ),
    "baseten": (),
    "cerebras": (),
    "cloudflare": ("Cloudflare Workers AI", "Workers AI"),
    "cohere": (),
    "cursor": (),
    "databricks": (),
    "deepseek": ("DeepSeek AI",),
    "doubleword": (),
    "echo": (),
    "elevenlabs": (),
    "fireworks": ("Fireworks AI",),
    "github-copilot": (),
    "google": (
        "Google AI",
        "Google AI Studio",
        "Google Cloud",
        "Google Gemini",
        "Google Vertex",
        "Google Vertex AI",
        "GCP",
        "gcp.gemini",
        "gcp.vertex_ai",
        "Gemini",
        "Vertex",
        "Vertex AI",
    ),
    "groq": (),
    "huggingface": ("HF",),
    "meta": (),
    "minimax": (),
    "mistral": ("Mistral AI",),
    "modal": (),
    "moonshotai": ("Moonshot", "Kimi"),
    "novita": (),
    "ollama": (),
    "openai": ("OpenAI API", "OpenAI LLC", "OpenAI, L.L.C.", "OpenAI Inc"),
    "openai-decisions": (),
    "openrouter": (),
    "ovhcloud": ("OVHcloud AI Endpoints", "OVH"),
    "perplexity": ("Perplexity AI",),
    "quicksilverpro": (),
    "together": ("Together AI",),
    "typesafe": (),
    "voyageai": ("Voyage",),
    "x-ai": ("Grok",),
    "zai": (),
    "zhipuai": ("Zhipu",),
}
_PREFIX = "conversation."
_SIGNS = re.compile(r"[\s._,-]+")
# Of Dapr's component types, those that a provider of the list stands behind: its own service, at its own address.
COMPONENT_TYPES: Mapping[str, str] = {
    "conversation.anthropic": "anthropic",
    "conversation.aws.bedrock": "aws",
    "conversation.deepseek": "deepseek",
    "conversation.googleai": "google",
    "conversation.mistral": "mistral",
    "conversation.openai": "openai",
}
# A component of these types names an address, and may name one that speaks OpenAI's protocol.
SPEAKS_OPENAI = frozenset({"openai", "deepseek", "huggingface", "ollama"})
# Nobody sends a bill for what these do: they answer by themselves, or on a machine of one's own.
UNBILLED = frozenset({"echo", "ollama"})
# Azure sells what others make: its components are those of OpenAI (apiType azure) and of Anthropic (apiType foundry).
_AZURE = frozenset({"openai", "anthropic"})


def _folded(name: str) -> str:
    return _SIGNS.sub("", name.strip().lower().removeprefix(_PREFIX))


_IDS: Mapping[str, str] = {_folded(name): provider for provider, names in _NAMES.items() for name in (provider, *names)}


def known_provider(name: str) -> str | None:
    """Our id for a provider of any known name; None for a name that is not known."""
    return _IDS.get(_folded(name))


def provider_id(name: str) -> str:
    """Our id for a provider; a name that is not known stays as it is, in lower case."""
    return known_provider(name) or name.strip().lower()


def known_ids() -> tuple[str, ...]:
    """The ids of all providers that are known here."""
    return tuple(_NAMES)


def may_bill(provider: str, component: str) -> bool:
    """Whether calls of that component (its type, or a provider's name) may stand on a bill of that provider (an id).

    Dapr names the component's type, not whom its address belongs to: OpenAI's component also asks Azure, or anybody who
    speaks OpenAI's protocol and has no component of its own.
    """
    ours = provider_id(component)
    if ours == provider:
        return True
    if provider == "azure":
        return ours in _AZURE
    return ours == "openai" and provider not in COMPONENT_TYPES.values() and provider not in UNBILLED
