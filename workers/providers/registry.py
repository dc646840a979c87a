"""Builds the adapters of the configured providers."""

from collections.abc import Callable, Mapping

from workers.providers.base import Provider
from workers.providers.endpoint import Endpoint


def providers_of(endpoints: Mapping[str, Endpoint]) -> dict[str, Provider]:
    """Return the adapters by the names of their providers. Requires a running event loop."""
    return {name: provider_of(endpoint) for name, endpoint in endpoints.items()}


def provider_of(endpoint: Endpoint) -> Provider:
    """Return the adapter of one provider."""
    return class_of(endpoint.entry.kind)(endpoint)


def class_of(kind: str) -> Callable[[Endpoint], Provider]:
    """Return the adapter's class.

    The SDKs are imported here, not at the top: each costs more than half a second, and memory.
    """
    match kind:
        case "openai":
            from workers.providers.openai import OpenAIProvider  # noqa: PLC0415

            return OpenAIProvider
        case "anthropic":
            from workers.providers.anthropic import AnthropicProvider  # noqa: PLC0415

            return AnthropicProvider
        case "anthropic-bedrock":
            from workers.providers.anthropic_clouds import BedrockProvider  # noqa: PLC0415

            return BedrockProvider
        case "anthropic-vertex":
            from workers.providers.anthropic_clouds import VertexProvider  # noqa: PLC0415

            return VertexProvider
        case "ollama":
            from workers.providers.ollama import OllamaProvider  # noqa: PLC0415

            return OllamaProvider
        case "demo":
            from workers.providers.demo import DemoProvider  # noqa: PLC0415

            return DemoProvider
    raise NotImplementedError(kind)
