"""A failing provider is reported with a code and whether a retry helps, and never with a prompt or a key."""

import asyncio
from contextlib import aclosing

import pytest

from shared.errors import ProviderError
from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, canonical, failure, network
from tests.raw_server import answering
from workers.providers.base import Delta, TextDelta
from workers.providers.errors import Upstream, host_of, provider_error


@network
async def test_a_clean_end_without_the_formats_marker_is_not_finished(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=["a", "b"], end="truncate"))
    came: list[Delta] = []

    async def read() -> None:
        async for deltas in make(name).stream(ask("m")):
            came.extend(deltas if isinstance(deltas, list) else [])

    with pytest.raises(ProviderError) as caught:
        await read()
    assert canonical(came) == [TextDelta("a"), TextDelta("b")]
    assert (caught.value.code, caught.value.retryable) == ("upstream_truncated", True)


@network
async def test_a_reset_after_text_is_upstream_truncated(fake: FakeProvider, make: Make, name: str) -> None:
    gate = asyncio.Event()
    fake.play("m", Answer(deltas=["a", "b"], gate=gate, gate_after=2, end="reset"))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        deltas_read: list[Delta] = []
        while len(deltas_read) < 2:
            together = await anext(deltas)
            assert isinstance(together, list)
            deltas_read += canonical(together)
        assert deltas_read == [TextDelta("a"), TextDelta("b")]
        gate.set()
        with pytest.raises(ProviderError) as caught:
            await anext(deltas)
    assert (caught.value.code, caught.value.retryable) == ("upstream_truncated", True)
    assert not fake.calls[0].closed_by_client


@network
async def test_a_reset_before_any_answer_is_unreachable(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(end="refuse"))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == ("provider_unreachable", True)


@network
async def test_a_refused_connection_names_the_host_and_the_variable(
    fake: FakeProvider, make: Make, name: str
) -> None:
    provider = make(name)
    await fake.stop()
    error = await failure(provider, ask("m"))
    assert (error.code, error.retryable) == ("provider_unreachable", True)
    variables = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL", "ollama": "OLLAMA_HOST"}
    for private in (host_of(fake.ollama_host), variables.get(name, "base_url of [providers.responses]")):
        assert private in error.detail
        assert private not in error.message


@network
async def test_an_error_within_the_stream_is_retryable(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=["a"], end="error_in_band"))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == ("provider_unavailable", True)


@network
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "provider_rejected", False),
        (401, "provider_auth", False),
        (402, "provider_rejected", False),
        (403, "provider_auth", False),
        (404, "provider_model_not_found", False),
        (408, "provider_unavailable", True),
        (413, "provider_rejected", False),
        (422, "provider_rejected", False),
        (429, "provider_rate_limited", True),
        (500, "provider_unavailable", True),
        (503, "provider_unavailable", True),
        (529, "provider_unavailable", True),
    ],
)
async def test_each_status_has_its_code_and_is_tried_once(
    fake: FakeProvider, make: Make, name: str, status: int, code: str, retryable: bool
) -> None:
    fake.play("m", Answer(status=status))
    error = await failure(make(name), ask("m"))
    assert (error.code, error.retryable) == (code, retryable)
    assert name in error.message
    assert len(fake.calls) == 1


async def test_a_refused_key_names_the_variable_to_check(fake: FakeProvider, make: Make) -> None:
    fake.play("m", Answer(status=401))
    error = await failure(make("openai"), ask("m"))
    host = host_of(fake.openai_base_url)
    assert error.detail == f"openai at {host} refused the key (HTTP 401); check OPENAI_API_KEY on the workers"
    assert error.message == "openai refused access to model 'm'; contact the operator of this service"


@network
@pytest.mark.parametrize(
    "body",
    [b"event: x\ndata: {nonsense\n\n", b'event: x\ndata: 1\n\n{"message": 1}\n', b"event: x\ndata: []\n\n[]\n"],
)
async def test_a_response_outside_the_protocol_is_a_protocol_error(make: Make, name: str, body: bytes) -> None:
    async with answering(body) as url:
        provider = make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url, OLLAMA_HOST=url)
        error = await failure(provider, ask("m"))
    assert (error.code, error.retryable) == ("provider_protocol", False)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rate_limit_error", "provider_rate_limited"),
        ("authentication_error", "provider_auth"),
        ("invalid_request_error", "provider_rejected"),
        ("502", "provider_unavailable"),
        ("overloaded_error", "provider_unavailable"),
    ],
)
def test_an_error_within_a_stream_is_classified_by_its_type(kind: str, code: str) -> None:
    class APIError(Exception):
        type = kind

    upstream = Upstream("openai", "api.openai.com", "OPENAI_API_KEY", "OPENAI_BASE_URL", "openai")
    assert provider_error(APIError(), upstream, model="m", started=True).code == code


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://user:secret@example.com:8080/v1", "example.com:8080"),
        ("https://api.openai.com/v1", "api.openai.com"),
        ("127.0.0.1:11434", "127.0.0.1:11434"),
        ("gpu-box", "gpu-box"),
    ],
)
def test_the_host_in_messages_carries_no_credentials(url: str, host: str) -> None:
    assert host_of(url) == host


async def test_an_error_body_nested_without_end_does_not_change_the_error(make: Make) -> None:
    head = b"HTTP/1.1 503 Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    async with answering(b"[" * 10_000, head) as url:
        error = await failure(make("ollama", OLLAMA_HOST=url), ask("m"))
    assert (error.code, error.retryable) == ("provider_unavailable", True)
