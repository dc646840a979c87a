"""Adapters that talk to the fake provider, and the results of their requests."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from shared.configuration.configuration import load_configuration
from shared.configuration.document import Document
from shared.errors import ProviderError
from shared.protocol.events import Extra
from shared.schemas import ChatRequest
from shared.settings import Settings
from tests.fakes import FakeProvider
from workers.providers.base import Delta, Finished, IgnoredFields, Provider, Replayed, TextDelta
from workers.providers.endpoint import Endpoint, endpoints_of
from workers.providers.registry import provider_of

KEY = "test-key-123"
PROMPT = "my secret prompt"
#: Providers that the environment alone can configure.
SHORT_FORMS = ("openai", "anthropic", "ollama")
NETWORK = (*SHORT_FORMS, "responses")
Make = Callable[..., Provider]
T = TypeVar("T")

network = pytest.mark.parametrize("name", NETWORK)
short_forms = pytest.mark.parametrize("name", SHORT_FORMS)


def provider_named(name: str, settings: Settings) -> Provider:
    """Return the adapter of one provider, as the settings configure it."""
    configuration = load_configuration(settings)
    endpoints, _ = endpoints_of(configuration)
    if name == "responses":  # it has no short form in the environment
        return provider_of(_responses(endpoints["openai"]))
    return provider_of(endpoints[name])


def _responses(openai: Endpoint) -> Endpoint:
    """Return the same server as a provider of a configuration's file."""
    entry = openai.entry.model_copy(update={"kind": "openai-responses"})
    configuration = replace(openai.configuration, document=Document(providers={"responses": entry}))
    return Endpoint("responses", entry, openai.keys, configuration)


def settings_for(fake: FakeProvider, **overrides: object) -> Settings:
    ours: dict[str, object] = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": fake.openai_base_url,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": fake.anthropic_base_url,
        "OLLAMA_HOST": fake.ollama_host,
    }
    return Settings.model_validate(ours | overrides)


def ask(model: str, prompt: str = PROMPT, **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": model, "messages": [{"role": "user", "content": prompt}], **fields})


async def collect(provider: Provider, request: ChatRequest) -> list[Delta | Finished]:
    """Return the parts of an answer, without those that only clients of Responses get."""
    return canonical(part for part in await parts_of(provider, request) if not isinstance(part, IgnoredFields))


def canonical(parts: Iterable[T]) -> list[T]:
    """Return parts of an answer without those that only clients of Responses get."""
    return [part for part in parts if not (isinstance(part, Extra) and part.family == "responses")]


async def parts_of(provider: Provider, request: ChatRequest) -> list[Delta | Finished | IgnoredFields]:
    received: list[Delta | Finished | IgnoredFields] = []
    async for part in provider.stream(request):
        assert not isinstance(part, Replayed)
        received += part if isinstance(part, list) else [part]
    return received


def text_in(deltas: Iterable[Delta | Finished]) -> str:
    return "".join(d.text for d in deltas if isinstance(d, TextDelta))


async def failure(provider: Provider, request: ChatRequest) -> ProviderError:
    """Return the error of the stream. Neither prompt nor key may appear in it, not even in a traceback."""
    with pytest.raises(ProviderError) as caught:
        await collect(provider, request)
    shown = "".join(traceback.format_exception(caught.value))
    for secret in (PROMPT, KEY, KEY[:8], KEY[-4:], "Incorrect API key"):
        assert secret not in caught.value.message + caught.value.detail
        assert secret not in shown
    return caught.value
