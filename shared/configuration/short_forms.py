"""Providers that environment variables configure: ``openai``, ``anthropic``, ``ollama``, and always ``demo``."""

from typing import Any, Final, Literal

from shared.configuration.entries import ProviderEntry
from shared.settings import Settings

SHORT_FORMS: Final[tuple[Literal["openai", "anthropic", "ollama"], ...]] = ("openai", "anthropic", "ollama")


def short_forms(settings: Settings) -> dict[str, ProviderEntry]:
    """Return the providers by name: each one if its key or address is set. Gateways do not have those variables."""
    entries = {"demo": ProviderEntry(kind="demo")}
    if settings.openai_api_key or settings.openai_base_url:
        entries["openai"] = _entry(settings, "openai", settings.openai_base_url)
    if settings.anthropic_api_key or settings.anthropic_base_url:
        entries["anthropic"] = _entry(settings, "anthropic", settings.anthropic_base_url)
    if settings.ollama_host:
        entries["ollama"] = _entry(settings, "ollama", settings.ollama_host)
    streams = settings.provider_streams
    return {
        name: entry.model_copy(update={"concurrent_streams": streams.get(name)}) for name, entry in entries.items()
    }


def _entry(settings: Settings, kind: Any, address: str | None) -> ProviderEntry:
    key = getattr(settings, f"{kind}_api_key")
    return ProviderEntry(
        kind=kind,
        api_keys=(f"env:{kind.upper()}_API_KEY",) if key else (),
        models=getattr(settings, f"{kind}_models"),
    ).model_copy(update={"base_url": address})  # OLLAMA_HOST may lack the scheme
