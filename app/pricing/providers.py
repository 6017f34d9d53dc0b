"""The providers of models, and all names that Dapr, bills, price files and people use for them.

Names are compared without case, spaces, commas, hyphens, dots, underscores and Dapr's prefix `conversation.`. An
unknown name is kept as it is, without a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Our ids are those of the published price list. Some providers here are not on the list, because they publish no
# prices.
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
_SEPARATORS = re.compile(r"[\s._,-]+")
# The Dapr component types that call one provider's own service, with the provider's id.
COMPONENT_TYPES: Mapping[str, str] = {
    "conversation.anthropic": "anthropic",
    "conversation.aws.bedrock": "aws",
    "conversation.deepseek": "deepseek",
    "conversation.googleai": "google",
    "conversation.mistral": "mistral",
    "conversation.openai": "openai",
}
# Components of these providers have a configurable address, so they may call any server with OpenAI's protocol.
SPEAKS_OPENAI = frozenset({"openai", "deepseek", "huggingface", "ollama"})
# Providers that send no bill: the echo component, and models on the user's own machine.
UNBILLED = frozenset({"echo", "ollama"})
# Azure sells other makers' models; they are called with OpenAI's component (apiType azure) or Anthropic's (foundry).
_AZURE = frozenset({"openai", "anthropic"})


def _normalise(name: str) -> str:
    return _SEPARATORS.sub("", name.strip().lower().removeprefix(_PREFIX))


_IDS: Mapping[str, str] = {
    _normalise(name): provider for provider, names in _NAMES.items() for name in (provider, *names)
}


def known_provider(name: str) -> str | None:
    """Our id of a provider, by any of its known names; None for an unknown name."""
    return _IDS.get(_normalise(name))


def provider_id(name: str) -> str:
    """Our id of a provider; an unknown name is returned in lower case."""
    return known_provider(name) or name.strip().lower()


def known_ids() -> tuple[str, ...]:
    """The ids of all known providers."""
    return tuple(_NAMES)


def may_bill(provider: str, component: str) -> bool:
    """Whether calls of a component may be on a provider's bill. `provider` is an id, `component` a component type or a
    provider's name.

    Dapr reports the component's type, not the owner of its address: OpenAI's component may also call Azure, or any
    provider with OpenAI's protocol that has no component of its own.
    """
    component_provider = provider_id(component)
    if component_provider == provider:
        return True
    if provider == "azure":
        return component_provider in _AZURE
    return component_provider == "openai" and provider not in COMPONENT_TYPES.values() and provider not in UNBILLED
