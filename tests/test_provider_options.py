"""Options of one provider of headrace.toml that change its requests: quirks, Entra tokens, optional packages."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.configuration.configuration import Configuration, load_configuration
from shared.errors import ProviderError
from shared.schemas import ChatRequest
from shared.settings import Settings
from tests.fakes import Answer, FakeProvider
from tests.provider_client import ask, collect
from workers.providers.endpoint import Endpoint, endpoints_of
from workers.providers.errors import host_of
from workers.providers.registry import provider_of

STAND_IN = """
import time
number = 0
class ClientAuthenticationError(Exception): pass
class Token:
    def __init__(self, token, expires_on): self.token, self.expires_on = token, expires_on
class DefaultAzureCredential:
    async def __aenter__(self): return self
    async def __aexit__(self, *_): pass
    async def get_token(self, scope):
        global number
        number += 1
        assert scope == "https://cognitiveservices.azure.com/.default"
        if life_s is None: raise ClientAuthenticationError("the secret answer of the service")
        return Token(f"token-{number}", int(time.time()) + life_s)
life_s = 3600
"""
CALL = {"id": "call_0123456789abcdef", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        fake.play("m", Answer(deltas=["Hello"]))
        yield fake


def configured(folder: Path, table: str) -> Configuration:
    file = folder / "headrace.toml"
    file.write_text(f"[providers.alpha]\n{table}")
    return load_configuration(Settings(config=file))


async def sent(configuration: Configuration, fake: FakeProvider, request: ChatRequest) -> dict[str, Any]:
    """Return the body of the request that the provider alpha sends."""
    endpoints, problems = endpoints_of(configuration)
    assert problems == []
    provider = provider_of(endpoints["alpha"])
    try:
        await collect(provider, request)
    finally:
        await provider.aclose()
    return fake.calls[-1].request


@pytest.mark.parametrize("value", ["true", "false"])
async def test_a_server_without_stream_options_gets_none(tmp_path: Path, fake: FakeProvider, value: str) -> None:
    table = f"kind = 'openai'\nbase_url = '{fake.openai_base_url}'\nquirks = {{ stream_options = {value} }}"
    body = await sent(configured(tmp_path, table), fake, ask("m"))
    assert ("stream_options" in body) is (value == "true")


@pytest.mark.parametrize(("quirk", "length"), [("nine", 9), ("any", len(str(CALL["id"])))])
async def test_ids_of_tool_calls_are_those_that_the_server_accepts(
    tmp_path: Path, fake: FakeProvider, quirk: str, length: int
) -> None:
    table = f"kind = 'openai'\nbase_url = '{fake.openai_base_url}'\nquirks = {{ tool_call_ids = '{quirk}' }}"
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": CALL["id"], "content": "done"},
    ]
    request = ChatRequest.model_validate({"model": "m", "messages": messages})
    _, assistant, result = (await sent(configured(tmp_path, table), fake, request))["messages"]
    assert assistant["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == length


# --- Entra


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for azure-identity, which needs Azure. Returns its module."""
    package = tmp_path / "packages/azure/identity"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "aio.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    import azure.identity.aio as module

    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "azure"]:
        del sys.modules[name]


def entra(folder: Path, fake: FakeProvider) -> Endpoint:
    table = f"kind = 'openai'\nbase_url = '{fake.openai_base_url}'\nauth = 'entra'"
    return endpoints_of(configured(folder, table))[0]["alpha"]


@pytest.mark.parametrize(("life_s", "tokens"), [(3600, ["token-1", "token-1"]), (60, ["token-1", "token-2"])])
async def test_a_token_is_used_until_it_nearly_ends(
    tmp_path: Path, fake: FakeProvider, identity: Any, life_s: int, tokens: list[str]
) -> None:
    identity.life_s = life_s
    provider = provider_of(entra(tmp_path, fake))
    for _ in tokens:
        await collect(provider, ask("m"))
    await provider.aclose()
    assert [call.headers["authorization"] for call in fake.calls] == [f"Bearer {token}" for token in tokens]


async def test_a_token_stays_in_use_while_no_new_one_is_given(
    tmp_path: Path, fake: FakeProvider, identity: Any
) -> None:
    identity.life_s = 60
    provider = provider_of(entra(tmp_path, fake))
    await collect(provider, ask("m"))
    identity.life_s = None
    await collect(provider, ask("m"))
    await provider.aclose()
    assert {call.headers["authorization"] for call in fake.calls} == {"Bearer token-1"}


async def test_a_missing_token_is_explained(tmp_path: Path, fake: FakeProvider, identity: Any) -> None:
    identity.life_s = None
    provider = provider_of(entra(tmp_path, fake))
    with pytest.raises(ProviderError) as caught:
        await collect(provider, ask("m"))
    await provider.aclose()
    assert caught.value.code == "provider_auth"
    assert "no token, ClientAuthenticationError" in caught.value.detail
    assert "check the Azure identity and its role" in caught.value.detail
    assert "secret answer" not in caught.value.detail
    assert fake.calls == []


# --- optional packages


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            "kind = 'openai'\nbase_url = 'https://x.openai.azure.com/openai/v1'\nauth = 'entra'",
            "auth entra needs azure.identity, which is not installed; install headrace[azure]",
        ),
        (
            "kind = 'anthropic-bedrock'\nregion = 'eu-central-1'\nmodels = ['m']",
            "kind anthropic-bedrock needs boto3, which is not installed; install headrace[bedrock]",
        ),
        (
            "kind = 'anthropic-vertex'\nmodels = ['m']",
            "kind anthropic-vertex needs google.auth, which is not installed; install headrace[vertex]",
        ),
    ],
)
def test_a_missing_package_is_named(tmp_path: Path, table: str, problem: str) -> None:
    endpoints, problems = endpoints_of(configured(tmp_path, table))
    assert list(endpoints) == ["demo"]
    assert problems == [f"providers.alpha: {problem}"]


@pytest.mark.parametrize(
    ("table", "host", "counts"),
    [
        ("kind = 'anthropic-bedrock'\nregion = 'eu-central-1'", "bedrock-runtime.eu-central-1.amazonaws.com", False),
        ("kind = 'anthropic-vertex'\nproject = 'p'", "aiplatform.googleapis.com", True),
        ("kind = 'anthropic-vertex'\nregion = 'europe-west1'", "europe-west1-aiplatform.googleapis.com", True),
    ],
)
async def test_clouds_are_called_at_their_addresses(tmp_path: Path, table: str, host: str, counts: bool) -> None:
    """Only the address: the services themselves were never called."""
    configuration = configured(tmp_path, f"{table}\nmodels = ['m']")
    endpoint = Endpoint("alpha", configuration.providers["alpha"], (), configuration)
    provider: Any = provider_of(endpoint)
    try:
        assert host_of(str(provider._client.base_url)) == host
        assert provider.counts_tokens is counts
        assert (await provider.list_models()).models == ("m",)
    finally:
        await provider.aclose()
