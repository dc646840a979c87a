"""Routes of the SDKs besides the answers: errors of every path, HEAD, upgrades, input items and token counts."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.fakes.answer import Answer, ToolCall
from tests.openai_client import openai_client
from tests.raw_client import connected
from tests.system import System

CLAUDE = {"anthropic-version": "2023-06-01", "x-api-key": "none"}
USER: list[Any] = [{"role": "user", "content": "hi"}]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(system) as client:
        yield client


def fits_openai(body: dict[str, Any], kind: str) -> bool:
    return {"message", "type", "param", "code"} <= set(body["error"]) and body["error"]["type"] == kind


def fits_anthropic(body: dict[str, Any], kind: str) -> bool:
    return bool(body["type"] == "error" and body["error"]["type"] == kind and body["error"]["message"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/nope", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/models/none/none", 404),
        ("GET", "/v1/models?limit=0", 400),
    ],
)
async def test_errors_of_shared_paths_fit_both_sdks(system: System, method: str, path: str, status: int) -> None:
    for headers, own_type in ((CLAUDE, "not_found_error"), ({}, "not_found_error")):
        kind = own_type if status == 404 else "invalid_request_error"
        answer = await system.http.request(method, system.url + path, headers=headers)
        assert answer.status_code == status
        assert fits_openai(answer.json(), kind), answer.text
        assert fits_anthropic(answer.json(), kind), answer.text
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses", 405),
        ("POST", "/v1/responses/compact", 405),
        ("GET", "/v1/responses/none", 404),
        ("GET", "/v1/responses/none/input_items", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/chat/nope", 404),
    ],
)
async def test_errors_of_the_paths_of_openai_have_its_shape(
    system: System, method: str, path: str, status: int
) -> None:
    answer = await system.http.request(method, system.url + path, headers=CLAUDE)
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert (answer.status_code, fits_openai(answer.json(), kind)) == (status, True), answer.text
    assert answer.json()["error"]["message"] not in {"Not Found", "Method Not Allowed"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/v1/messages", 400, "invalid_request_error"),
        ("POST", "/v1/messages/count_tokens", 400, "invalid_request_error"),
    ],
)
async def test_errors_of_the_paths_of_anthropic_have_its_shape(
    system: System, method: str, path: str, status: int, kind: str
) -> None:
    answer = await system.http.request(method, system.url + path)
    assert answer.status_code == status
    assert fits_anthropic(answer.json(), kind)
    assert set(answer.json()) == {"type", "error"}


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json", "/page/app.js", "/v1/models", "/chat"])
async def test_head_is_get_without_a_body(system: System, path: str) -> None:
    """Claude Code asks ``HEAD /`` first."""
    got = await system.http.get(system.url + path)
    async with connected(system.gateways[0].port) as connection:
        await connection.send(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, fields = await connection.head()
        assert (status, fields["content-type"]) == (200, got.headers["content-type"])
        await connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await connection.answer()).status == 200, "no byte of a body came in between"


async def test_head_of_a_stream_ends_at_once(system: System) -> None:
    stream_id = await system.post("echo", "hello")
    await system.ended(stream_id)
    answer = await system.http.head(f"{system.url}/chat/stream/{stream_id}")
    assert (answer.status_code, answer.headers["x-stream-id"]) == (200, stream_id)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (await system.http.head(f"{system.url}/chat/none")).status_code == 404
    assert (await system.http.head(f"{system.url}/v1/messages")).status_code == 405


async def test_the_input_items_of_a_response_are_listed(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("items", Answer(deltas=["one"]), Answer(tools=[ToolCall("c", "look", ("{}",))]))
    text = [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]
    image = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]
    call = [
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "seen"},
    ]
    first = await client.responses.create(model="openai/items", input=[*text, *image], instructions="Be brief.")  # type: ignore[list-item]
    again: Any = [*call, {"role": "user", "content": "b"}]
    second = await client.responses.create(model="openai/items", input=again, previous_response_id=first.id)
    items = [item async for item in client.responses.input_items.list(second.id, order="asc", limit=2)]
    kinds = ["message", "message", "message", "function_call", "function_call_output", "message"]
    assert [item.type for item in items] == kinds
    shown: list[Any] = list(items)
    assert [part.type for item in shown[:3] for part in item.content] == ["input_text", "input_image", "output_text"]
    assert (shown[1].content[0].image_url, shown[2].content[0].text, shown[5].content[0].text) == (PIXEL, "one", "b")
    assert (shown[3].name, shown[4].output) == ("look", "seen")
    assert len({item.id for item in shown}) == len(shown)
    newest = await client.responses.input_items.list(second.id)
    assert [item.id for item in newest.data] == [item.id for item in reversed(shown)]
    hidden = await client.responses.create(model="openai/items", input="a", store=False)
    for call_of in (
        client.responses.input_items.list(hidden.id),
        client.responses.input_items.list("resp_none"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call_of
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.input_items.list(second.id, after="none")
    assert caught.value.param == "after"


async def test_a_large_input_and_a_file_are_listed(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("large-items", Answer())
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    text = {"type": "input_text", "text": "x" * 600_000}
    sent: Any = [{"role": "user", "content": [text, file]}]
    response = await client.responses.create(model="openai/large-items", input=sent)
    (item,) = (await client.responses.input_items.list(response.id)).data
    shown: Any = item.model_dump(exclude_unset=True)
    assert shown["content"] == [text, file]


async def test_tokens_are_counted_by_the_provider_or_estimated(system: System, client: AsyncOpenAI) -> None:
    system.fake.play("counted", Answer(usage=(41, 0)))
    async with AsyncAnthropic(base_url=system.url, api_key="none", max_retries=0) as claude:
        for provider, count in (("anthropic", None), ("openai", 10), ("ollama", 10)):
            model, words = f"{provider}/counted", "word" * 10
            ours = await client.responses.with_raw_response.input_tokens.count(model=model, input=words)
            messages: list[Any] = [{"role": "user", "content": words}]
            theirs = await claude.messages.with_raw_response.count_tokens(model=model, messages=messages)
            tokens = {ours.parse().input_tokens, (await theirs.parse()).input_tokens}
            estimated = {answer.headers.get("x-headrace-estimated") for answer in (ours, theirs)}
            assert estimated == {None if count is None else "input_tokens"}
            assert len(tokens) == 1
            assert count is None or tokens == {count}
            assert ours.parse().object == "response.input_tokens"
    wrong: Any
    for wrong in ({"model": "demo/none", "input": "a"}, {"model": "openai/counted"}, {"input": "a"}):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            await client.responses.input_tokens.count(**wrong)
