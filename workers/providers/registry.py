"""Builds the adapters of the configured providers."""

from collections.abc import Mapping

from workers.providers.base import Provider
from workers.providers.endpoint import Endpoint


def providers_of(endpoints: Mapping[str, Endpoint]) -> dict[str, Provider]:
    """Return the adapters by the names of their providers. Requires a running event loop."""
    return {name: provider_of(endpoint) for name, endpoint in endpoints.items()}


def provider_of(endpoint: Endpoint) -> Provider:
    """Return the adapter of one provider.

    The SDKs are imported here, not at the top: each costs more than half a second, and memory.
    """
    match endpoint.entry.kind:
        case "openai":
            from workers.providers.openai_apis import openai_provider  # noqa: PLC0415

            return openai_provider(endpoint)
        case "openai-responses":
            from workers.providers.openai_responses import ResponsesProvider  # noqa: PLC0415

            return ResponsesProvider(endpoint)
        case "anthropic":
            from workers.providers.anthropic import AnthropicProvider  # noqa: PLC0415

            return AnthropicProvider(endpoint)
        case "ollama":
            from workers.providers.ollama import OllamaProvider  # noqa: PLC0415

            return OllamaProvider(endpoint)
        case "demo":
            from workers.providers.demo import DemoProvider  # noqa: PLC0415

            return DemoProvider(endpoint)
    raise NotImplementedError(endpoint.entry.kind)
