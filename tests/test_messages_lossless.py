"""A Messages client loses nothing over a provider of the same family: neither of its request nor of the answer."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from anthropic import AsyncAnthropic

from tests.fakes import FakeProvider
from tests.fakes.answer import Answer, Call
from tests.provider_client import Make, ask, parts_of
from tests.system import System

BETAS: Final = "context-management-2025-06-27,interleaved-thinking-2025-05-14"
#: As an agent sends it: the members are in no particular order.
REQUEST: Final[dict[str, Any]] = {
    "model": "anthropic/m-lossless",
    "messages": [
        {"content": [{"text": "look", "type": "text", "cache_control": {"type": "ephemeral"}}], "role": "user"},
        {"role": "system", "content": "Environment", "output_config": {"effort": "medium"}},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"},
                {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "text", "text": "", "citations": []},
                {"type": "tool_use", "name": "Read", "id": "toolu_1", "input": {"b": 1, "a": 2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "tool_use_id": "toolu_1",
                    "type": "tool_result",
                    "is_error": False,
                    "content": [
                        {"type": "image", "source": {"type": "base64", "data": "AA==", "media_type": "image/png"}},
                        {"type": "tool_reference", "tool_name": "Later"},
                    ],
                    "cache_control": {"type": "ephemeral", "ttl": "1h"},
                },
                {"type": "document", "source": {"type": "file", "file_id": "f"}, "citations": {"enabled": True}},
                {"type": "block_of_tomorrow", "value": [1.5, None]},
            ],
        },
    ],
    "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
    "tools": [
        {"name": "Read", "input_schema": {"type": "object", "properties": {"z": {}, "a": {}}}, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        {"type": "bash_20250124", "name": "bash"},
    ],
    "tool_choice": {"type": "tool", "name": "bash"},
    "metadata": {"user_id": "u", "session": "s"},
    "max_tokens": 32000,
    "thinking": {"budget_tokens": 31999, "type": "enabled", "display": "omitted"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "m"}],
    "container": None,
    "service_tier": "auto",
    "top_k": 5,
    "field_of_tomorrow": {"b": 1, "a": [2]},
    "stream": False,
}


def blocks_of_every_kind() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the wire events of an answer, and its content as the official SDK builds it."""
    citation = {
        "type": "char_location",
        **{"cited_text": "x", "document_index": 0, "document_title": None, "file_id": None},
        **{"start_char_index": 0, "end_char_index": 1},
    }
    search = {"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": "e", "page_age": None}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                {"type": "thinking_delta", "thinking": "one"},
                {"type": "signature_delta", "signature": "c2lnbmVkIG9uZQ=="},
            ],
        ),
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                {"type": "thinking_delta", "thinking": "two"},
                {"type": "signature_delta", "signature": "c2lnbmVkIHR3bw=="},
            ],
        ),
        ({"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="}, []),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "I look. "}]),
        (
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
            [
                {"type": "input_json_delta", "partial_json": '{"query":'},
                {"type": "input_json_delta", "partial_json": '"x"}'},
            ],
        ),
        ({"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [search]}, []),
        ({"type": "text", "text": "", "citations": []}, [{"type": "text_delta", "text": "It is "}]),
        (
            {"type": "text", "text": "", "citations": []},
            [{"type": "citations_delta", "citation": citation}, {"type": "text_delta", "text": "x"}],
        ),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "."}]),
        (
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}, "caller": {"type": "direct"}},
            [
                {"type": "input_json_delta", "partial_json": '{"at":'},
                {"type": "input_json_delta", "partial_json": "1}"},
            ],
        ),
    ]
    content: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "one", "signature": "c2lnbmVkIG9uZQ=="},
        {"type": "thinking", "thinking": "two", "signature": "c2lnbmVkIHR3bw=="},
        {"type": "redacted_thinking", "data": "cmVkYWN0ZWQ="},
        {"type": "text", "text": "I look. "},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [search]},
        {"type": "text", "text": "It is ", "citations": []},
        {"type": "text", "text": "x", "citations": [citation]},
        {"type": "text", "text": "."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}, "caller": {"type": "direct"}},
    ]
    usage = {"input_tokens": 9, "output_tokens": 1, "service_tier": "standard", "inference_geo": "eu"}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    frames: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (block, deltas) in enumerate(blocks):
        frames.append({"type": "content_block_start", "index": index, "content_block": block})
        frames += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        frames.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c", "expires_at": "e"}}
    last = {"output_tokens": 7, "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}}
    frames.append({"type": "message_delta", "delta": end, "usage": last, "context_management": {"applied_edits": []}})
    return [*frames, {"type": "message_stop"}], content


def wire(frames: list[dict[str, Any]]) -> list[bytes]:
    return [f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode() for frame in frames]


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=system.url, api_key="none", max_retries=0) as client:
        yield client


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


async def test_a_request_reaches_anthropic_as_the_client_wrote_it(system: System) -> None:
    system.fake.play("m-lossless", Answer(deltas=('{"command":"ls"}',)))  # the input of the forced tool
    body = {**REQUEST, "fallbacks": [], "grace_s": 5}
    headers = {"anthropic-beta": BETAS, "anthropic-version": "2023-06-02"}
    answer = await system.http.post(f"{system.url}/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert "x-headrace-ignored" not in answer.headers
    call = last_call(system, "m-lossless")
    expected = {**REQUEST, "model": "m-lossless", "stream": True}
    assert json.dumps(call.request) == json.dumps(expected)  # the order of members too
    assert {name: call.headers[name] for name in headers} == headers


async def test_the_answer_has_every_block_of_the_provider(system: System, client: AsyncAnthropic) -> None:
    frames, content = blocks_of_every_kind()
    system.fake.play("m-blocks", Answer(segments=wire(frames)))
    options: dict[str, Any] = {
        "model": "anthropic/m-blocks",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
    }
    key = {"Idempotency-Key": "joined-late"}
    whole = await client.messages.create(**options)
    messages = [whole]
    for headers in ({}, key, key):  # the last one reads what the one before it made
        async with client.messages.stream(**options, extra_headers=headers) as stream:
            messages.append(await stream.get_final_message())
    for message in messages:
        assert [block.model_dump(exclude_unset=True) for block in message.content] == content
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
        usage = message.usage.model_dump(exclude_unset=True)
        assert (usage["input_tokens"], usage["output_tokens"], usage["service_tier"]) == (9, 7, "standard")
        assert usage["server_tool_use"]["web_search_requests"] == 1
    assert len([call for call in system.fake.calls if call.model == "m-blocks"]) == 3
    turn = [*options["messages"], {"role": "assistant", "content": content}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
    system.fake.play("m-blocks", Answer(deltas=("done",)))
    await client.messages.create(**{**options, "messages": [*turn, {"role": "user", "content": [result]}]})
    assert last_call(system, "m-blocks").request["messages"][1] == turn[1]


async def test_a_conversation_goes_on_at_a_provider_of_another_family(system: System) -> None:
    """Nothing of Anthropic's own ends the conversation."""
    system.fake.play("m-other", Answer(deltas=("done",)))
    body = {**REQUEST, "model": "openai/m-other", "tool_choice": {"type": "auto"}}
    answer = await system.http.post(f"{system.url}/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"] == [{"type": "text", "text": "done"}]
    assert [tool["function"]["name"] for tool in last_call(system, "m-other").request["tools"]] == ["Read"]


async def test_thinking_that_anthropic_did_not_sign_is_not_sent_to_it(system: System) -> None:
    system.fake.play("m-unsigned", Answer(deltas=("done",)))
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    text = {"type": "text", "text": "hello"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thinking, text]},
        {"role": "user", "content": "go on"},
    ]
    body = {"model": "anthropic/m-unsigned", "max_tokens": 9, "messages": turns}
    assert (await system.http.post(f"{system.url}/v1/messages", json=body)).status_code == 200
    assert last_call(system, "m-unsigned").request["messages"][1] == {"role": "assistant", "content": [text]}


async def test_foreign_ids_of_calls_are_replaced_for_anthropic(system: System) -> None:
    system.fake.play("m-ids", Answer(deltas=("done",)))
    use = {"type": "tool_use", "id": "functions.look:0", "name": "functions.look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "functions.look:0", "content": "ok"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "anthropic/m-ids", "max_tokens": 9, "messages": turns}
    assert (await system.http.post(f"{system.url}/v1/messages", json=body)).status_code == 200
    _, made, answered = last_call(system, "m-ids").request["messages"]
    (use,), (result,) = made["content"], answered["content"]
    assert use["id"] == result["tool_use_id"]
    assert use["id"].replace("_", "").isalnum()
    assert use["name"].replace("_", "").isalnum()


async def test_dropped_fields_are_named_in_a_header(system: System) -> None:
    for stream in (False, True):
        body = {"model": "anthropic/echo", "messages": [{"role": "user", "content": "x"}], "stream": stream}
        answer = await system.http.post(f"{system.url}/v1/chat/completions", json={**body, "frequency_penalty": 0.5})
        assert "frequency_penalty" in answer.headers["x-headrace-ignored"]


@pytest.mark.parametrize(
    ("fields", "message", "first", "second"),
    [
        (
            {"reasoning_effort": "low", "max_tokens": 20_000},
            "adaptive thinking is not supported on this model",
            ("adaptive", {"effort": "low"}),
            ({"type": "enabled", "budget_tokens": 4096}, None),
        ),
        (
            {"reasoning_tokens": 3000, "max_tokens": 20_000},
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".',
            ("enabled", None),
            ({"type": "adaptive"}, {"effort": "low"}),
        ),
    ],
)
async def test_the_form_of_thinking_is_learned(
    fake: FakeProvider,
    make: Make,
    fields: dict[str, Any],
    message: str,
    first: tuple[str, Any],
    second: tuple[Any, Any],
) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    fake.play("m-form", Answer(status=400, error_body=error), Answer(deltas=("done",)))
    provider = make("anthropic")
    for _ in range(2):
        await parts_of(provider, ask("m-form", **fields))
    tried, *learned = [call.request for call in fake.calls]
    assert (tried["thinking"]["type"], tried.get("output_config")) == first
    assert [(body["thinking"], body.get("output_config")) for body in learned] == [second, second]


async def test_signed_thinking_goes_on_after_a_tools_result(fake: FakeProvider, make: Make) -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call], "extra": {"anthropic": {"blocks": blocks}}},
        {"role": "tool", "tool_call_id": "c1", "content": "no", "is_error": True},
    ]
    provider = make("anthropic")
    fields: dict[str, Any] = {
        "reasoning_effort": "high",
        "tools": [{"type": "function", "function": {"name": "look"}}],
    }
    await parts_of(provider, ask("echo", messages=turns, **fields))
    del turns[1]["extra"]
    await parts_of(provider, ask("echo", messages=turns, **fields))
    signed, unsigned = [call.request for call in fake.calls]
    assert signed["messages"][1]["content"][0] == blocks[0]
    assert signed["messages"][2]["content"][0]["is_error"] is True
    assert signed["thinking"]["type"] == "adaptive"
    assert "thinking" not in unsigned


async def test_cache_breakpoints_and_orphaned_results_reach_anthropic(fake: FakeProvider, make: Make) -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": "be kind", **mark}]},
        {"role": "tool", "tool_call_id": "gone", "content": "an old result"},
        {"role": "user", "content": [{"type": "text", "text": "hi", **mark}]},
    ]
    tool = {"type": "function", "function": {"name": "look"}, **mark}
    options = {"anthropic": {"service_tier": "auto", "betas": ["b1", "b2"]}}
    request = ask("echo", messages=turns, tools=[tool], user="u", top_k=5, provider_options=options)
    await parts_of(make("anthropic"), request)
    (call,) = fake.calls
    assert call.request["system"] == [{"type": "text", "text": "be kind", **mark}]
    assert call.request["tools"][0]["cache_control"] == mark["cache_control"]
    texts = [block["text"] for block in call.request["messages"][0]["content"]]
    assert texts == ["Result of an earlier tool call:", "an old result"]
    assert call.request["messages"][1]["content"][0]["cache_control"] == mark["cache_control"]
    assert (call.request["metadata"], call.request["top_k"]) == ({"user_id": "u"}, 5)
    assert (call.request["service_tier"], call.headers["anthropic-beta"]) == ("auto", "b1,b2")
