"""Builds the adapters of the configured providers."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Final

from workers.providers.base import Provider
from workers.providers.endpoint import Endpoint

#: Module, and the name in it that makes an adapter, by kind.
_MAKERS: Final = {
    "openai": ("openai_apis", "openai_provider"),
    "openai-responses": ("openai_responses", "ResponsesProvider"),
    "anthropic": ("anthropic", "AnthropicProvider"),
    "anthropic-bedrock": ("anthropic_clouds", "BedrockProvider"),
    "anthropic-vertex": ("anthropic_clouds", "VertexProvider"),
    "ollama": ("ollama", "OllamaProvider"),
    "demo": ("demo", "DemoProvider"),
}


def providers_of(endpoints: Mapping[str, Endpoint]) -> dict[str, Provider]:
    """Return the adapters by the names of their providers. Requires a running event loop."""
    return {name: provider_of(endpoint) for name, endpoint in endpoints.items()}


def provider_of(endpoint: Endpoint) -> Provider:
    """Return the adapter of one provider."""
    return maker_of(endpoint.entry.kind)(endpoint)


def maker_of(kind: str) -> Callable[[Endpoint], Provider]:
    """Return the function that makes an adapter.

    Modules are imported here, not at the top: an SDK costs more than half a second, and memory.
    """
    module, name = _MAKERS[kind]
    maker: Callable[[Endpoint], Provider] = getattr(import_module(f"workers.providers.{module}"), name)
    return maker
