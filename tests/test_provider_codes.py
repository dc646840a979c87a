"""A provider's own error codes reach the client if they are about its request; addresses and settings never do."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.fakes import Answer, FakeProvider
from tests.provider_client import Make, ask, failure, network
from tests.raw_server import answering
from tests.system import PROVIDERS, System
from workers.providers import errors
from workers.providers.errors import provider_failure

USER: list[Any] = [{"role": "user", "content": "hi"}]
TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens."


def of_openai(code: str | int | None, *, param: str | None = None, message: str = "no") -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def of_anthropic(kind: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("name", "status", "body", "code", "provider_code", "param"),
    [
        ("openai", 400, of_openai("context_length_exceeded", param="messages"), "rejected", "too long", "messages"),
        ("openai", 400, of_openai("unsupported_value", param="temperature"), "rejected", "same", "temperature"),
        ("openai", 400, of_openai("invalid_value", param="messages[0].content"), "rejected", "same", "same"),
        ("openai", 400, of_openai("made_up", param="it is a secret"), "rejected", None, None),
        ("openai", 400, of_openai(400, message=TOO_LONG), "rejected", "too long", "messages"),
        ("openai", 400, {"object": "error", "message": TOO_LONG, "code": 400}, "rejected", "too long", "messages"),
        ("openai", 400, {"error": {"type": "exceed_context_size_error"}}, "rejected", "too long", "messages"),
        ("openai", 401, of_openai("invalid_api_key", param="messages"), "auth", None, None),
        ("openai", 404, of_openai("model_not_found"), "model_not_found", "same", None),
        ("openai", 429, of_openai("rate_limit_exceeded"), "rate_limited", "same", None),
        ("openai", 429, of_openai("insufficient_quota"), "rate_limited", None, None),
        ("openai", 500, of_openai("invalid_value", param="x"), "unavailable", None, None),
        ("openai", 400, {"error": [1]}, "rejected", None, None),
        (
            "anthropic",
            400,
            of_anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            "rejected",
            "too long",
            "messages",
        ),
        (
            "anthropic",
            400,
            of_anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 9 > 8"),
            "rejected",
            "too long",
            "messages",
        ),
        ("anthropic", 413, of_anthropic("request_too_large"), "rejected", "request_too_large", None),
        ("anthropic", 400, of_anthropic("invalid_request_error"), "rejected", None, None),
        ("ollama", 400, {"error": "the input length exceeds the context length"}, "rejected", "too long", "messages"),
        ("ollama", 500, {"error": "input exceeds context length"}, "rejected", "too long", "messages"),
        ("ollama", 500, {"error": "out of memory"}, "unavailable", None, None),
    ],
)
async def test_known_codes_are_passed_on(
    fake: FakeProvider,
    make: Make,
    name: str,
    status: int,
    body: dict[str, Any],
    code: str,
    provider_code: str | None,
    param: str | None,
) -> None:
    fake.play("m", Answer(status=status, error_body=body))
    error = await failure(make(name), ask("m"))
    sent = body["error"] if isinstance(body.get("error"), dict) else {}
    provider_code = {"same": sent.get("code"), "too long": "context_length_exceeded"}.get(
        provider_code or "", provider_code
    )
    param = sent.get("param") if param == "same" else param
    assert (error.code, error.provider_code, error.param) == (f"provider_{code}", provider_code, param)


async def test_the_operator_sees_more_codes_than_the_client(fake: FakeProvider, make: Make) -> None:
    fake.play("m", Answer(status=429, error_body=of_openai("insufficient_quota")))
    error = await failure(make("openai"), ask("m"))
    assert "HTTP 429, insufficient_quota" in error.detail
    assert "insufficient_quota" not in error.message


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "openai",
            b'data: {"error":{"message":"no","type":"x","param":"messages","code":"context_length_exceeded"}}\n\n',
        ),
        (
            "anthropic",
            b'data: {"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9"}}\n\n',
        ),
        ("ollama", b'{"error":"the input length exceeds the context length"}\n'),
    ],
)
async def test_a_code_within_the_stream_is_passed_on(make: Make, name: str, line: bytes) -> None:
    async with answering(line) as url:
        provider = make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url, OLLAMA_HOST=url)
        error = await failure(provider, ask("m"))
    assert (error.code, error.retryable) == ("provider_rejected", False)
    assert (error.provider_code, error.param) == ("context_length_exceeded", "messages")


@network
async def test_the_body_of_an_error_may_be_missing(fake: FakeProvider, make: Make, name: str) -> None:
    async with answering(b"<html>", b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n") as url:
        provider = make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url, OLLAMA_HOST=url)
        error = await failure(provider, ask("m"))
    assert (error.code, error.provider_code, error.param) == ("provider_rejected", None, None)


def test_messages_for_clients_name_no_host_and_no_setting() -> None:
    for code in (*errors._RETRYABLE, *errors._FINAL):
        message = provider_failure(code, "openai", model="m", detail="private").message
        for private in ("HEADRACE", "_KEY", "_URL", "host", "worker", "private", "{"):
            assert private not in message


# --- what clients see


@pytest.fixture(params=PROVIDERS)
def refusing(request: pytest.FixtureRequest, system: System) -> str:
    """A model whose requests are always too long."""
    body: dict[str, Any] = {
        "openai": of_openai("context_length_exceeded", param="messages"),
        "anthropic": of_anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
        "ollama": {"error": "the input length exceeds the context length"},
    }[request.param]
    system.fake.play("too-long", Answer(status=400, error_body=body))
    return f"{request.param}/too-long"


@pytest.fixture
async def openai_client(system: System) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{system.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_a_native_stream_and_the_status(system: System, refusing: str) -> None:
    provider, _, model = refusing.partition("/")
    async with await system.stream(model, provider=provider) as connection:
        error = (await connection.next("error")).data
        await connection.rest()
    assert (error["code"], error["provider_code"], error["param"]) == (
        "provider_rejected",
        "context_length_exceeded",
        "messages",
    )
    assert (await system.status(connection.stream_id))["error"] == error


async def test_an_error_without_a_code_has_no_such_fields(system: System) -> None:
    system.fake.play("just-400", Answer(status=400))
    async with await system.stream("just-400") as connection:
        error = await connection.next("error")
    assert set(error.data) == {"code", "message", "retryable"}


@pytest.mark.parametrize("stream", [True, False])
async def test_openais_sdk(openai_client: AsyncOpenAI, refusing: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as chat:
        await openai_client.chat.completions.create(model=refusing, messages=USER, stream=stream)
    assert (chat.value.code, chat.value.param) == ("context_length_exceeded", "messages")
    assert chat.value.type == "invalid_request_error"


async def test_openais_responses(openai_client: AsyncOpenAI, refusing: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await openai_client.responses.create(model=refusing, input="hi")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    stream = await openai_client.responses.create(model=refusing, input="hi", stream=True)
    with pytest.raises(openai.APIError) as failed:
        async for _ in stream:
            pass
    assert (failed.value.code, failed.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("stream", [True, False])
async def test_anthropics_sdk(system: System, refusing: str, stream: bool) -> None:
    async with AsyncAnthropic(base_url=system.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as caught:
            await client.messages.create(model=refusing, messages=USER, max_tokens=9, stream=stream)
    assert caught.value.type == "invalid_request_error"


async def test_openais_sdk_within_a_stream(system: System, openai_client: AsyncOpenAI) -> None:
    line = 'data: {"error":{"message":"no","type":"x","param":"messages","code":"context_length_exceeded"}}\n\n'
    word = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    system.fake.play("breaks-late", Answer(raw=(word + line).encode()))
    chunks = await openai_client.chat.completions.create(model="openai/breaks-late", messages=USER, stream=True)
    with pytest.raises(openai.APIError) as caught:
        _ = [chunk async for chunk in chunks]
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
