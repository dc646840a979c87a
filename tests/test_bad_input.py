"""Invalid input gets an error that names the field, always in the same shape, and queues nothing."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import StartSystem
from tests.system import System, ask

GOOD = ask("echo")


TOOL = {"type": "function", "function": {"name": "f"}}
STRICT = {"type": "function", "function": {"name": "f", "strict": "yes"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "x"}


def function(name: str, parameters: object = None) -> dict[str, object]:
    named = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": named}


def picture(url: str) -> dict[str, object]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def calls_of(arguments: str) -> list[dict[str, object]]:
    return [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}]


def call_of(arguments: str) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": calls_of(arguments)}


def by_schema(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


TWICE = {"role": "assistant", "tool_calls": [*calls_of("{}"), *calls_of("{}")]}
DEEP = nested(70)


def without(field: str) -> dict[str, object]:
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("body", "status", "code", "names"),
    [
        (GOOD | {"temprature": 1}, 422, "invalid_request", "temprature: unknown field; did you mean temperature?"),
        (without("model"), 422, "invalid_request", "model"),
        (without("messages"), 422, "invalid_request", "messages"),
        (GOOD | {"messages": []}, 422, "invalid_request", "messages"),
        (GOOD | {"messages": "hi"}, 422, "invalid_request", "messages"),
        (GOOD | {"messages": [{"role": "wizard", "content": "x"}]}, 422, "invalid_request", "messages.0.role"),
        (GOOD | {"messages": [{"role": "user", "content": 3}]}, 422, "invalid_request", "messages.0.content"),
        (GOOD | {"messages": [{"role": "user", "content": "x", "n": 1}]}, 422, "invalid_request", "messages.0.n"),
        (GOOD | {"temperature": "hot"}, 422, "invalid_request", "temperature"),
        (GOOD | {"temperature": 9}, 422, "invalid_request", "temperature"),
        (GOOD | {"temperature": "0.5"}, 422, "invalid_request", "temperature: must be a number, not a string"),
        (GOOD | {"temperature": True}, 422, "invalid_request", "temperature: must be a number, not true"),
        (GOOD | {"max_tokens": "5"}, 422, "invalid_request", "max_tokens: must be an integer"),
        (GOOD | {"max_tokens": 5.5}, 422, "invalid_request", "max_tokens: must be an integer"),
        (GOOD | {"tools": [STRICT]}, 422, "invalid_request", "strict: must be true or false"),
        (GOOD | {"max_tokens": 0}, 422, "invalid_request", "max_tokens"),
        (GOOD | {"on_disconnect": "explode"}, 422, "invalid_request", "on_disconnect"),
        (GOOD | {"grace_s": -1}, 422, "invalid_request", "grace_s"),
        (GOOD | {"metadata": {"a": {"b": 1}}}, 422, "invalid_request", "metadata"),
        ([1, 2], 422, "invalid_request", "body"),
        (GOOD | {"messages": [{"role": "user"}]}, 422, "invalid_request", "messages.0: content is missing"),
        (GOOD | {"messages": [picture("ftp://x/y")]}, 422, "invalid_request", "messages.0.content.0.image_url.url"),
        (GOOD | {"messages": [picture("file:///etc/passwd")]}, 422, "invalid_request", "image_url.url"),
        (GOOD | {"tools": [TOOL, TOOL]}, 422, "invalid_request", "tools.1.function.name: an earlier tool"),
        (GOOD | {"tools": [function("a\nb")]}, 422, "invalid_request", "tools.0.function.name"),
        (GOOD | {"tools": [function("f", 3)]}, 422, "invalid_request", "tools.0.function.parameters"),
        (GOOD | {"tools": [function("f", {"type": "x"})]}, 422, "invalid_request", "parameters: not a JSON schema"),
        (GOOD | {"tool_choice": "auto"}, 422, "invalid_request", "tool_choice: there are no tools"),
        (GOOD | {"tools": [TOOL], "tool_choice": "must"}, 422, "invalid_request", "tool_choice: must be 'auto'"),
        (GOOD | {"tools": [TOOL], "tool_choice": function("g")}, 422, "invalid_request", "no tool has this name"),
        (GOOD | {"messages": [TWICE]}, 422, "invalid_request", "messages.0.tool_calls.1.id"),
        (GOOD | {"response_format": {"type": "xml"}}, 422, "invalid_request", "response_format.type"),
        (
            GOOD | {"response_format": {"type": "json_schema"}},
            422,
            "invalid_request",
            "response_format: `json_schema`",
        ),
        (
            GOOD | {"response_format": by_schema({"type": "strnig"})},
            422,
            "invalid_request",
            "not a JSON schema at /type",
        ),
        (
            GOOD | {"response_format": by_schema({"$ref": "http://127.0.0.1:1/"})},
            422,
            "invalid_request",
            "schema: $ref",
        ),
        (GOOD | {"response_format": by_schema({"pattern": "("})}, 422, "invalid_request", "at /pattern"),
        (GOOD | {"response_format": by_schema(DEEP)}, 422, "invalid_request", "nested more than 64 levels deep"),
        (GOOD | {"fallbacks": ["demo/demo", "nobody/x"]}, 422, "invalid_request", "fallbacks.1: model: "),
        (GOOD | {"fallbacks": ["demo/gpt"]}, 422, "invalid_request", "fallbacks.0: model: unknown model 'gpt'"),
        (GOOD | {"reasoning_effort": "all"}, 422, "invalid_request", "reasoning_effort"),
        (GOOD | {"provider": "nobody"}, 400, "unknown_model", "anthropic, demo, ollama, openai"),
        (GOOD | {"provider": "demo", "model": "gpt"}, 400, "unknown_model", "available: demo"),
        (without("provider") | {"model": "which"}, 400, "unknown_model", "set provider to choose one"),
    ],
)
@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_an_invalid_body_is_refused_and_its_field_named(
    system: System, path: str, body: Any, status: int, code: str, names: str
) -> None:
    answer = await system.http.post(system.url + path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), error
    assert names in error["message"]
    assert error["retryable"] is False


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model": "\xff"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}',
    ],
)
async def test_a_body_that_is_not_json_is_refused(system: System, raw: bytes) -> None:
    answer = await system.http.post(f"{system.url}/chat", content=raw)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_a_body_over_the_limit_is_refused(system: System) -> None:
    body = json.dumps(ask("echo", "x" * (1024 * 1024))).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65536):
            yield body[at : at + 65536]

    for content in (body, pieces()):  # declared, and chunked
        answer = await system.http.post(f"{system.url}/chat", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
        assert str(1024 * 1024) in answer.json()["error"]["message"]


async def test_an_error_does_not_repeat_the_input(system: System) -> None:
    secret = "my-private-prompt"
    body = ask("echo", secret) | {"temperature": secret, "messages": [{"role": secret, "content": secret}]}
    answer = await system.http.post(f"{system.url}/chat", json=body)
    assert answer.status_code == 422
    assert secret not in answer.text
    assert not any(secret in process.log.read_text() for process in (*system.gateways, *system.workers))


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/chat", 405), ("POST", "/chat/x/cancel", 404)]
)
async def test_other_errors_have_the_same_shape(system: System, method: str, path: str, status: int) -> None:
    answer = await system.http.request(method, system.url + path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "retryable"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/chat", "GET, HEAD, POST"),
        ("PUT", "/chat/x", "DELETE, GET, HEAD"),
        ("PUT", "/chat/x/cancel", "POST"),
        ("GET", "/chat/stream", "POST"),  # no stream has the id `stream`
        ("DELETE", "/chat/stream", "POST"),
        ("PUT", "/chat/stream", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_405_lists_the_allowed_methods(system: System, method: str, path: str, allowed: str) -> None:
    answer = await system.http.request(method, system.url + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert ", ".join(sorted(answer.headers["allow"].split(", "))) == allowed


async def test_a_whole_number_may_be_written_as_a_fraction(system: System) -> None:
    stream_id = await system.post("echo", "as ever", max_tokens=5.0)
    assert (await system.ended(stream_id))["finish_reason"] == "stop"


@pytest.mark.parametrize("key", ["", "k" * 256])
@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
@pytest.mark.parametrize("cursor", ["0", "1-2"])
async def test_an_invalid_idempotency_key_is_refused(system: System, path: str, key: str, cursor: str) -> None:
    headers = {"Idempotency-Key": key, "Last-Event-ID": cursor}
    answer = await system.http.post(system.url + path, json=GOOD, headers=headers)
    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["error"]["message"]


async def test_a_model_is_accepted_bare_and_with_its_provider(system: System) -> None:
    for model in ("demo", "demo/demo"):
        answer = await system.http.post(f"{system.url}/chat", json=without("provider") | {"model": model})
        assert answer.status_code == 202, answer.text
    listed = (await system.http.get(f"{system.url}/v1/models")).json()
    names = [model["id"] for model in listed["data"]]
    assert names == ["anthropic/*", "demo/demo", "ollama/*", "openai/*", "responses/*"]


async def test_a_client_that_disconnects_within_its_request_logs_no_error(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    gateway = system.gateways[0]
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b'POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"model":')
        await writer.drain()
        assert (await system.http.get(f"{system.url}/healthz")).status_code == 200
        writer.close()
        await writer.wait_closed()
    gateway.signal(signal.SIGTERM)  # it ends and logs its requests before it stops
    await gateway.wait()
    assert "Traceback" not in gateway.log.read_text()
