"""Which providers this process has, as its settings say."""

from shared.settings import Settings
from workers.providers.base import Provider
from workers.providers.demo import DemoProvider


def configured_providers(settings: Settings) -> dict[str, Provider]:
    """By name: ``demo`` always, the others where the environment has their key or address.

    SDKs are imported here, not at the top: each costs over half a second, and memory.
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
