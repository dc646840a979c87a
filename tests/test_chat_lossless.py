"""Chat Completions from a client to a server of the same API: nothing is lost on the way there or back."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.fakes.answer import Answer, Call
from tests.openai_client import openai_client
from tests.system import System

USER: list[Any] = [{"role": "user", "content": "hi"}]
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
async def client(system: System) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(system) as client:
        yield client


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


async def sent_upstream(system: System, model: str, **body: Any) -> dict[str, Any]:
    """Post a request, and return what the provider received."""
    system.fake.play(model, Answer())
    whole = {"model": f"openai/{model}", "messages": USER, **body}
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=whole)
    assert answer.status_code == 200, answer.text
    return last_call(system, model).request


def frames(*chunks: dict[str, Any]) -> bytes:
    """Return a stream of chunks, each with its further members."""
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    made = [b"data: %b\n\n" % json.dumps(envelope | chunk).encode() for chunk in chunks]
    return b"".join([*made, b"data: [DONE]\n\n"])


def choice(delta: dict[str, Any], finish_reason: str | None = None, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason, **members}]}


async def test_a_request_reaches_the_server_equal_and_in_its_order(system: System) -> None:
    body: dict[str, Any] = {
        "messages": [
            {
                "content": [{"text": "Be brief.", "type": "text", "cache_control": {"type": "ephemeral"}}],
                "role": "system",
            },
            {"role": "developer", "name": "d", "content": "x"},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "wav", "data": "AAAA"}}]},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [CALL | {"extra_content": {"a": 1}}],
            },
            {"role": "tool", "content": "seen", "tool_call_id": "call_1", "cache_control": {"type": "ephemeral"}},
            {"role": "assistant", "content": [{"type": "text", "text": "y", "annotations": []}], "audio": None},
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
        ],
        "tools": [
            {"function": {"parameters": {"type": "object"}, "name": "look"}, "type": "function", "future": 1},
            {"type": "custom", "custom": {"name": "free"}},
        ],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}},
        **{
            "logprobs": True,
            "top_logprobs": 2,
            "logit_bias": {"5": 1},
            "seed": 5,
            "user": "u",
            "service_tier": "flex",
        },
        **{"verbosity": "low", "top_k": -1, "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}},
        **{"provider": {"order": ["a"]}, "models": ["b"], "reasoning": {"effort": "low"}, "prediction": None},
        "metadata": {"nested": {"a": [1]}},
        "stream_options": {"include_obfuscation": False},
    }
    sent = await sent_upstream(system, "equal", **body, fallbacks=["openai/other"], grace_s=5)
    expected = body | {"model": "equal", "stream": True}
    expected["stream_options"] = {"include_obfuscation": False, "include_usage": True}
    assert sent == expected
    for name in ("messages", "tools"):
        assert json.dumps(sent[name]) == json.dumps(body[name])


async def test_files_of_a_result_follow_it_and_a_cut_history_stays_usable(system: System) -> None:
    calls = [CALL, CALL | {"id": "call_2"}, CALL | {"id": "call_3", "function": {"name": "a.b", "arguments": '{"x'}}]
    messages = [
        {"role": "tool", "tool_call_id": "gone", "content": "old"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "see"}, PNG]},
        {"role": "tool", "tool_call_id": "call_2", "content": [PNG]},
        {"role": "user", "content": "go on"},
    ]
    sent = (await sent_upstream(system, "repaired", messages=messages))["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "tool", "user", "user"]
    assert "old" in sent[0]["content"][0]["text"]
    assert json.loads(sent[1]["tool_calls"][2]["function"]["arguments"]) == {"arguments": '{"x'}
    assert sent[1]["tool_calls"][2]["function"]["name"] != "a.b"
    assert sent[2]["content"] == [{"type": "text", "text": "see"}]
    assert isinstance(sent[3]["content"], str)
    assert sent[4]["tool_call_id"] == "call_3"
    assert [part for part in sent[5]["content"] if part["type"] == "image_url"] == [PNG, PNG]


async def test_a_tool_keeps_its_name_that_the_server_would_refuse(system: System, client: AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "functions.exec", "parameters": {"type": "object"}}}
    await sent_upstream(system, "names", tools=[tool])
    name = last_call(system, "names").request["tools"][0]["function"]["name"]
    made = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}}
    system.fake.play("names", Answer(raw=frames(choice({"tool_calls": [made]}), choice({}, "tool_calls"))))
    answer = await client.chat.completions.create(model="openai/names", messages=USER, tools=[tool])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "functions.exec"


async def test_the_members_of_an_answer_come_back(system: System, client: AsyncOpenAI) -> None:
    logprobs: dict[str, Any] = {
        "content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": []}],
        "refusal": None,
    }
    cited = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5}
    raw = frames(
        {"system_fingerprint": "fp_1", "service_tier": "flex", **choice({"role": "assistant", "content": ""})},
        {"system_fingerprint": "fp_1", **choice({"content": "Hi"}, logprobs=logprobs)},
        {"system_fingerprint": "fp_1", **choice({"content": "!", "aura": {"a": 1}}, logprobs=logprobs)},
        {"system_fingerprint": "fp_1", **choice({"annotations": [cited]}), "weather": "fine"},
        {"system_fingerprint": "fp_1", **choice({}, "eos")},
        {"choices": [], "usage": usage},
    )
    system.fake.play("members", Answer(raw=raw))
    whole = await client.chat.completions.create(model="openai/members", messages=USER, logprobs=True)
    async with client.chat.completions.stream(
        model="openai/members", messages=USER, logprobs=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = [event.chunk async for event in stream if event.type == "chunk"]
        streamed = await stream.get_final_completion()
    for completion in (whole, streamed):
        made: dict[str, Any] = completion.model_dump()
        (only,) = made["choices"]
        assert only["message"]["content"] == "Hi!"
        assert only["message"]["annotations"] == [cited]
        assert only["message"]["aura"] == {"a": 1}
        assert [each["token"] for each in only["logprobs"]["content"]] == ["Hi", "Hi"]
        assert (made["system_fingerprint"], made["service_tier"]) == ("fp_1", "flex")
        assert made["usage"]["cost"] == 0.5
        assert only["finish_reason"] == "stop"
    assert whole.model_dump()["weather"] == "fine"
    assert whole.choices[0].model_dump()["native_finish_reason"] == "eos"
    text = next(chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].delta.content == "Hi")
    assert text.logprobs is not None


async def test_thought_signatures_and_reasoning_details_go_back(system: System, client: AsyncOpenAI) -> None:
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    signed = {"google": {"thought_signature": "sig"}}
    made = {"index": 0, **CALL, "extra_content": signed}
    raw = frames(
        choice({"reasoning": "let ", "reasoning_details": [{**detail, "text": "let "}]}),
        choice({"reasoning": "me", "reasoning_details": [{**detail, "text": "me"}]}),
        choice({"reasoning_details": [{**detail, "signature": "abc"}]}),
        choice({"tool_calls": [made]}),
        choice({}, "tool_calls"),
    )
    system.fake.play("signed", Answer(raw=raw), Answer(deltas=("done",)))
    first = await client.chat.completions.create(model="openai/signed", messages=USER)
    message = first.choices[0].message.model_dump(exclude_none=True)
    assert message["reasoning_content"] == "let me"
    assert message["reasoning_details"] == [{**detail, "text": "let me", "signature": "abc"}]
    assert message["tool_calls"][0]["extra_content"] == signed
    again: list[Any] = [*USER, message, {"role": "tool", "tool_call_id": "call_1", "content": "ok"}]
    await client.chat.completions.create(model="openai/signed", messages=again)
    assert last_call(system, "signed").request["messages"] == again


async def test_a_custom_tool_is_called_with_its_text(system: System, client: AsyncOpenAI) -> None:
    parts = [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "free", "input": "a"}}]
    more = [{"index": 0, "custom": {"input": "b"}}]
    raw = frames(choice({"tool_calls": parts}), choice({"tool_calls": more}), choice({}, "tool_calls"))
    system.fake.play("custom", Answer(raw=raw))
    tools: list[Any] = [{"type": "custom", "custom": {"name": "free"}}]
    answer = await client.chat.completions.create(model="openai/custom", messages=USER, tools=tools)
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert (call.custom.name, call.custom.input) == ("free", "ab")


async def test_a_field_that_the_server_refuses_is_left_out_alone(system: System) -> None:
    error = {"message": "Unknown parameter: 'top_k'.", "param": "top_k", "code": "unknown_parameter"}
    system.fake.play("refuses-top-k", Answer(status=400, error_body={"error": error}), Answer())
    body = {"model": "openai/refuses-top-k", "messages": USER, "top_k": 4, "seed": 1, "verbosity": "low"}
    answer = await system.http.post(f"{system.url}/v1/chat/completions", json=body)
    assert answer.status_code == 200
    first, second = [call.request for call in system.fake.calls if call.model == "refuses-top-k"]
    assert first.pop("top_k") == 4
    assert second == first
    assert second["seed"] == 1
