"""A provider has one id for all its names; unknown names are not guessed."""

from __future__ import annotations

import pytest

from app.pricing.list_prices import load_bundled
from app.pricing.providers import COMPONENT_TYPES, known_ids, known_provider, provider_id


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("OpenAI", "openai", "conversation.openai", "Open AI", "OPENAI", " open-ai ", "OpenAI, LLC"), "openai"),
        (("azure", "Azure OpenAI", "azure_openai", "azure-openai", "Microsoft Azure", "az.ai.openai"), "azure"),
        (("anthropic", "Anthropic", "conversation.anthropic", "Claude"), "anthropic"),
        (("aws", "bedrock", "AWS Bedrock", "aws_bedrock", "Amazon Bedrock", "conversation.aws.bedrock"), "aws"),
        (
            ("google", "googleai", "Google AI", "vertex", "Vertex AI", "gcp.vertex_ai", "conversation.googleai"),
            "google",
        ),
        (("mistral", "Mistral AI", "mistral_ai", "conversation.mistral"), "mistral"),
        (("x-ai", "xAI", "x.ai"), "x-ai"),
        (("conversation.echo", "Echo"), "echo"),
    ],
)
def test_all_names_of_a_provider_are_one(names: tuple[str, ...], expected: str) -> None:
    assert {provider_id(name) for name in names} == {expected}


@pytest.mark.parametrize("name", ["", "open", "azur", "openaix", "my gateway", "aws lambda", "*"])
def test_an_unknown_name_is_kept(name: str) -> None:
    assert known_provider(name) is None
    assert provider_id(name) == name


def test_our_ids_are_those_of_the_published_list() -> None:
    published = {provider.id: provider.name for provider in load_bundled()._snapshot.providers}
    ours = {provider for provider in published if not provider.startswith("huggingface_")}
    assert ours - set(known_ids()) == set(), "the list has a provider that is not known here"
    assert {known_provider(provider) for provider in ours} == ours
    assert [known_provider(published[provider]) for provider in sorted(ours)] == sorted(ours)
    assert set(COMPONENT_TYPES.values()) <= set(published)
