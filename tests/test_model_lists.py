"""The models on offer are those the provider lists or the operator configures."""

import asyncio

import pytest

from shared.configuration.configuration import load_configuration
from tests.fakes import FakeProvider
from tests.provider_client import KEY, Make, network, settings_for, short_forms
from workers.providers import http_calls
from workers.providers.base import ModelList
from workers.providers.endpoint import endpoints_of
from workers.providers.registry import providers_of


@network
async def test_the_models_are_those_of_the_provider(fake: FakeProvider, make: Make, name: str) -> None:
    fake.models = ("b", "a")
    assert await make(name).list_models() == ModelList(("b", "a"))


@network
async def test_the_dates_of_models_are_those_of_the_provider(fake: FakeProvider, make: Make, name: str) -> None:
    fake.models = ("a",)
    (date,) = (await make(name).list_models()).created.values()
    assert date == (1 if name in {"openai", "responses"} else 1_767_225_600)  # 2026-01-01


@short_forms
async def test_configured_models_need_no_request(fake: FakeProvider, make: Make, name: str) -> None:
    fake.models = ("b", "a")
    assert await make(name, **{f"{name}_models": "c, d"}).list_models() == ModelList(("c", "d"), closed=True)


@network
@pytest.mark.parametrize("trouble", ["empty", "status", "silent", "down"])
async def test_any_model_is_accepted_if_the_provider_lists_none(
    fake: FakeProvider, make: Make, monkeypatch: pytest.MonkeyPatch, name: str, trouble: str
) -> None:
    provider = make(name)
    match trouble:
        case "empty":
            fake.models = ()
        case "status":
            fake.list_status = 404
        case "silent":
            monkeypatch.setattr(http_calls, "LIST_TIMEOUT_S", 0.1)
            fake.list_gate = asyncio.Event()
        case "down":
            await fake.stop()
    assert await provider.list_models() == ModelList((), open=True)


async def test_listing_models_can_be_cancelled(fake: FakeProvider, make: Make) -> None:
    fake.list_gate = asyncio.Event()
    listing = asyncio.create_task(make("openai").list_models())
    await asyncio.sleep(0.05)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing


async def test_the_providers_are_those_in_the_environment(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {
        "OPENAI_API_KEY": None,
        "OPENAI_BASE_URL": None,
        "ANTHROPIC_API_KEY": None,
        "ANTHROPIC_BASE_URL": None,
        "OLLAMA_HOST": None,
    }
    for variable in nothing:
        monkeypatch.delenv(variable, raising=False)
    rows: list[tuple[dict[str, object], set[str]]] = [
        ({}, {"demo"}),
        ({"OPENAI_API_KEY": KEY}, {"demo", "openai"}),
        ({"OPENAI_BASE_URL": fake.openai_base_url}, {"demo", "openai"}),
        ({"ANTHROPIC_API_KEY": KEY}, {"demo", "anthropic"}),
        ({"ANTHROPIC_BASE_URL": fake.anthropic_base_url}, {"demo", "anthropic"}),
        ({"OLLAMA_HOST": fake.ollama_host}, {"demo", "ollama"}),
    ]
    for given, names in rows:
        providers = providers_of(endpoints_of(load_configuration(settings_for(fake, **nothing | given)))[0])
        assert set(providers) == names
        for name, provider in providers.items():
            assert provider.name == name
            await provider.aclose()
