"""Anthropic's guide for gateways of Claude Code is followed; docs/compatibility.md has its points."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
import pytest

from shared.denied_fields import denied_field
from shared.schemas import StoredRequest
from shared.schemas.chat import validate
from tests.fakes import Answer
from tests.system import System

BODY: Final[dict[str, Any]] = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
#: A gateway that knows neither of the last three.
HEADERS: Final = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "a-2026-01-01,b-2026-01-01",
    "anthropic-workspace-id": "wrkspc_1",
    "anthropic-header-of-tomorrow": "yes; q=1",
    "x-claude-code-session-id": "4d9e",
}
#: For the first token, and between two.
TIMEOUT_S: Final = 5
REFUSALS: Final = {
    "messages.1.content.0: Invalid `signature` in `thinking` block": "thinking_signature",
    "messages.3.content.0: this block is bound to a different conversation": "thinking_signature",
    "messages.1: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified": (
        "thinking_signature"
    ),
    "messages.1: role 'system' is not supported on this model": "mid_conv_system",
    'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter': "mid_conv_system",
    "messages.1.cache_control: Extra inputs are not permitted": "cache_control_field",
    "output_config.format: Extra inputs are not permitted": "structured_outputs_unsupported",
    "messages.0.content.1.image.source.base64: Could not process image": "image_block",
    "The PDF specified is password protected.": "document_block",
}


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("gateway"),
        gateways=1,
        workers=1,
        providers=("anthropic",),
        heartbeat_s=0.2,
        first_token_timeout_s=TIMEOUT_S,
        between_tokens_timeout_s=TIMEOUT_S,
        provider_retries=0,
    )
    system.fake.models = ("claude-a", "claude-b")
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def post(system: System, model: str, headers: Any = (), **fields: Any) -> httpx2.Response:
    body = {"model": f"anthropic/{model}", **BODY, **fields}
    return await system.http.post(f"{system.url}/v1/messages?beta=true", headers=headers, json=body)


async def test_every_header_for_anthropic_is_forwarded(system: System) -> None:
    """Header lines are an open list: a new one is for the provider, although no gateway knows it."""
    system.fake.play("headers", Answer())
    lines = [*HEADERS.items(), ("anthropic-beta", "c-2026-01-01")]
    assert (await post(system, "headers", lines)).status_code == 200
    (call,) = [call for call in system.fake.calls if call.model == "headers"]
    for name, value in HEADERS.items():
        if name.startswith("anthropic-") and name != "anthropic-beta":
            assert call.headers[name] == value
    assert call.headers["anthropic-beta"] == "a-2026-01-01,b-2026-01-01, c-2026-01-01"
    assert "x-claude-code-session-id" not in call.headers


async def test_a_header_that_cannot_be_forwarded_is_refused(system: System) -> None:
    answer = await post(system, "headers", [(b"anthropic-beta", "caf\xe9".encode("latin-1"))])
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "anthropic-beta: must be printable ASCII")


def test_an_operator_can_deny_a_header() -> None:
    original = {"family": "anthropic", "body": {}, "headers": {"anthropic-workspace-id": "w"}}
    request = validate(StoredRequest, {"model": "m", "messages": BODY["messages"], "original": original})
    assert denied_field(request, ["headers.anthropic-workspace-id"]) == "headers.anthropic-workspace-id"
    assert denied_field(request, ["headers.anthropic-version"]) is None


@pytest.mark.parametrize(("text", "name"), REFUSALS.items())
async def test_a_refusal_has_the_reason_that_claude_code_recovers_from(system: System, text: str, name: str) -> None:
    """The provider's text stays with the operator, so a name stands for it."""
    model = f"refused-{list(REFUSALS).index(text)}"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": text}}
    system.fake.play(model, Answer(status=400, error_body=error))
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for stream in (True, False):
        answer = await post(system, model, stream=stream, thinking=thinking, max_tokens=2000)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
        message = answer.json()["error"]["message"]
        assert message.endswith(f" (capability_rejected: {name})")
        assert text not in message
    calls = [call for call in system.fake.calls if call.model == model]
    assert len(calls) == 2, "the gateway does not change such a request by itself"
    assert all(call.request["thinking"] == thinking for call in calls)


async def test_another_refusal_has_no_reason(system: System) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "system: too odd"}}
    system.fake.play("odd", Answer(status=400, error_body=error))
    assert "capability_rejected" not in (await post(system, "odd")).text


async def test_a_prompt_that_is_too_long_is_named_so(system: System) -> None:
    text = "prompt is too long: 210000 tokens > 200000 maximum"
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": text}}
    system.fake.play("long", Answer(status=400, error_body=error))
    answer = await post(system, "long")
    assert answer.status_code == 400
    assert "prompt is too long" in answer.json()["error"]["message"]


async def test_hidden_thinking_is_not_taken_for_silence(system: System) -> None:
    """The provider shows nothing of its thinking, but its keep-alives come, longer than the timeouts."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    segments = [frame(message_start()), frame(start), *[frame({"type": "ping"})] * 16]
    signature = {"type": "signature_delta", "signature": "c2ln"}
    ends: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 0, "delta": signature},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "done"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    system.fake.play("hidden", Answer(segments=[*segments, *map(frame, ends)], segment_delay_s=0.4))
    streamed, answer = await asyncio.gather(post(system, "hidden", stream=True), post(system, "hidden"))
    whole = streamed.text
    kinds = [json.loads(line.removeprefix("data: "))["type"] for line in whole.splitlines() if line[:5] == "data:"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[2:4] == ["ping", "ping"]
    assert kinds[-1] == "message_stop"
    assert '"signature":"c2ln"' in whole
    blocks = [{"type": "thinking", "thinking": "", "signature": "c2ln"}, {"type": "text", "text": "done"}]
    assert answer.json()["content"] == blocks


async def test_a_silent_answer_has_heartbeats(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("silent", Answer(deltas=("a", "b"), gate=gate, gate_after=1))
    body = {"model": "anthropic/silent", "stream": True, **BODY}
    async with system.http.stream("POST", f"{system.url}/v1/messages?beta=true", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = b""
        async for chunk in answer.aiter_bytes():
            seen += chunk
            if b": ping" in seen:
                gate.set()
    assert b"message_stop" in seen


async def test_a_wait_is_at_most_a_minute_of_whole_seconds(system: System) -> None:
    """Claude Code gives up at once if it has to wait for longer."""
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    system.fake.play("limited", Answer(status=429, error_body=error, retry_after="3600"))
    answer = await post(system, "limited")
    assert answer.status_code == 429
    assert answer.headers["x-should-retry"] == "true"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_models_are_discovered(system: System) -> None:
    """Claude Code reads `id` and `display_name`, takes models with `claude` in their id, and follows no redirect."""
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "k", "authorization": "Bearer k"}
    answer = await system.http.get(f"{system.url}/v1/models?limit=1000", headers=headers)
    assert answer.status_code == 200
    found = {model["id"]: model["display_name"] for model in answer.json()["data"]}
    assert found.items() >= {"anthropic/claude-a": "claude-a", "anthropic/claude-b": "claude-b"}.items()


@pytest.mark.parametrize("path", ["/", "/api/hello"])
async def test_a_probe_of_the_connection_is_answered(system: System, path: str) -> None:
    answer = await system.http.head(f"{system.url}{path}")
    assert answer.status_code in {200, 404}


def message_start() -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m"}
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 3, "output_tokens": 1}}}


def frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
