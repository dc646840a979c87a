"""Builds the providers that the settings configure."""

from shared.settings import Settings
from workers.providers.base import Provider
from workers.providers.demo import DemoProvider


def configured_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers by name: ``demo`` always, each other one if its key or address is set.

    The SDKs are imported here, not at the top: each costs more than half a second, and memory.
    """
    providers: list[Provider] = [DemoProvider(settings)]
    if settings.openai_api_key or settings.openai_base_url:
        from workers.providers.openai import OpenAIProvider  # noqa: PLC0415

        providers.append(OpenAIProvider(settings))
    if settings.anthropic_api_key or settings.anthropic_base_url:
        from workers.providers.anthropic import AnthropicProvider  # noqa: PLC0415

        providers.append(AnthropicProvider(settings))
    if settings.ollama_host:
        from workers.providers.ollama import OllamaProvider  # noqa: PLC0415

        providers.append(OllamaProvider(settings))
    return {provider.name: provider for provider in providers}
