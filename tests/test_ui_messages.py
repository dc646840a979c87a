"""The route ``/api/chat`` serves the AI SDK beyond the cells of the compatibility matrix. The client in Node is the
SDK's own."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from gateway.dialects.ai_sdk import request as ui_message_request
from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Outcome
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Counts, ToolCall
from tests.system import System

WORDS = ("Hello", ", ", "wor", "ld", ".")
TEXT = "".join(WORDS)
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
PDF = {"type": "file", "mediaType": "application/pdf", "filename": "a.pdf", "url": "data:application/pdf;base64,AAAA"}
PNG = "data:image/png;base64,AAAA"


@pytest.fixture(scope="session")
async def node() -> AsyncIterator[Node]:
    async with Node() as node:
        yield node


def user(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}], **more}


def looked(output: Any, **more: Any) -> dict[str, Any]:
    """Return an assistant's message with a call of `look` and its output."""
    call = {"type": "tool-look", "toolCallId": "c1", "state": "output-available", "input": {}, "output": output}
    return {"id": "a1", "role": "assistant", "parts": [call | more]}


def body(chat: str, model: str, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": chat, "model": model, "messages": messages or [user()], "trigger": "submit-message", **more}


def chunks_of(answer: httpx2.Response) -> list[Any]:
    """Return all chunks but the last, which must be `[DONE]`."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(chunk) for chunk in data]


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")


async def test_a_reconnect_gets_204_only_after_the_client_received_everything(system: System) -> None:
    url = f"{system.url}/api/chat"
    assert (await system.http.get(f"{url}/u-none/stream")).status_code == 204
    gate = asyncio.Event()
    system.fake.play("u-heard", Answer(deltas=WORDS, gate=gate, gate_after=2))
    async with system.http.stream("POST", url, json=body("u/heard ?", "openai/u-heard")) as answer:
        async for line in answer.aiter_lines():
            if "text-delta" in line:
                break  # and disconnects
    gate.set()
    stream_id = answer.headers["x-stream-id"]
    await system.ended(stream_id)
    here = f"{url}/u%2Fheard%20%3F/stream"
    chunks = chunks_of(await system.http.get(here))  # it has ended meanwhile, without a reader
    assert chunks[0] == {"type": "start", "messageId": f"msg_{stream_id}"}
    assert text_of(chunks) == TEXT
    assert chunks[-1] == {"type": "finish", "finishReason": "stop"}
    assert (await system.http.get(here)).status_code == 204
    assert chunks_of(await system.http.get(f"{here}?ended=true")) == chunks
    await system.http.delete(f"{system.url}/chat/{stream_id}")
    assert (await system.http.get(f"{here}?ended=true")).status_code == 204


async def test_usage_has_the_form_of_the_sdks_type(system: System) -> None:
    """Counts that the provider did not report are left out."""
    url = f"{system.url}/api/chat"
    details = {
        "inputTokenDetails": {"cacheReadTokens": 20, "cacheWriteTokens": 4, "noCacheTokens": 6},
        "outputTokenDetails": {"reasoningTokens": 5, "textTokens": 4},
    }
    system.fake.play("u-usage", Answer(deltas=WORDS, usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    system.fake.play("u-plain", Answer(deltas=WORDS, usage=(30, 9)))
    for model, expected in (("u-usage", details), ("u-plain", {"inputTokenDetails": {}, "outputTokenDetails": {}})):
        chunks = chunks_of(await system.http.post(url, json=body(model, f"anthropic/{model}")))
        (usage,) = [chunk["data"] for chunk in chunks if chunk["type"] == "data-usage"]
        assert usage == {"inputTokens": 30, "outputTokens": 9, "totalTokens": 39, **expected}


async def test_an_unknown_finish_reason_is_a_stop(system: System) -> None:
    system.fake.play("u-odd", Answer(deltas=WORDS, finish_reason="out_of_ideas"))
    chunks = chunks_of(await system.http.post(f"{system.url}/api/chat", json=body("u-odd", "openai/u-odd")))
    assert (text_of(chunks), chunks[-1]) == (TEXT, {"type": "finish", "finishReason": "stop"})


async def test_several_pages_read_the_same_answer(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("u-pages", Answer(deltas=WORDS, gate=gate, gate_after=2))
    url = f"{system.url}/api/chat"
    places = [f"{gateway.url}/api/chat/u-pages/stream" for gateway in system.gateways]
    async with AsyncExitStack() as pages:
        request = body("u-pages", "openai/u-pages")
        answers = [await pages.enter_async_context(system.http.stream("POST", url, json=request))]
        answers += [await pages.enter_async_context(system.http.stream("GET", place)) for place in places]
        gate.set()
        for answer in answers:
            await answer.aread()
            assert text_of(chunks_of(answer)) == TEXT


async def test_a_tool_result_continues_the_message_and_a_replay_has_all_steps(system: System) -> None:
    url = f"{system.url}/api/chat"
    system.fake.play("u-tool", Answer(deltas=("Let me look.",), tools=[ToolCall("c1", "look", ('{"x": 1}',))]))
    system.fake.play("u-found", Answer(deltas=WORDS))
    first = chunks_of(await system.http.post(url, json=body("u-tool", "anthropic/u-tool", tools=[TOOL])))
    (call,) = [chunk for chunk in first if chunk["type"] == "tool-input-available"]
    assert (call["toolName"], call["input"]) == ("look", {"x": 1})
    answered = {
        "id": first[0]["messageId"],
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool-look", "toolCallId": call["toolCallId"], "state": "output-available", "input": {"x": 1}}
            | {"output": {"found": True}},
        ],
    }
    request = body("u-tool", "openai/u-found", user(), answered, tools=[TOOL])
    second = chunks_of(await system.http.post(url, json=request))
    assert second[0]["messageId"] == answered["id"]
    assert text_of(second) == TEXT
    (found,) = [call for call in system.fake.calls if call.model == "u-found"]
    sent = found.request["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert json.loads(sent[2]["content"]) == {"found": True}

    replay = chunks_of(await system.http.get(f"{url}/u-tool/stream?ended=true"))
    assert replay[0]["messageId"] == answered["id"]
    assert text_of(replay) == "Let me look." + TEXT
    kinds = [chunk["type"] for chunk in replay]
    assert kinds.count("start-step") == kinds.count("finish-step") == 2
    (replayed_call,) = [chunk for chunk in replay if chunk["type"] == "tool-input-available"]
    assert replayed_call["providerExecuted"], "or the page would call the tool again"
    assert [c["output"] for c in replay if c["type"] == "tool-output-available"] == [{"found": True}]


async def test_after_a_lost_worker_the_client_shows_the_answer_once(start_system: StartSystem, node: Node) -> None:
    """The request names no model, so the operator's default model is used."""
    system = await start_system(gateways=1, workers=1, lease_s=3, default_model="openai/u-lost")
    gate = asyncio.Event()
    system.fake.play("u-lost", Answer(deltas=WORDS, gate=gate, gate_after=3), Answer(deltas=WORDS))
    outcome, has_output = Outcome(), asyncio.Event()
    ask = Ask(base=system.url, model="", key="u-lost")
    running = asyncio.create_task(node.run("ai-chat", ask, outcome, has_output.set))
    await has_output.wait()
    system.workers[0].signal(signal.SIGKILL)
    await system.workers[0].wait()
    system.workers[0].start()
    await running
    assert (outcome.error, outcome.text) == (None, TEXT)
    assert len(system.fake.calls) == 2


async def test_a_late_stop_does_not_cancel_the_next_answer(system: System) -> None:
    url = f"{system.url}/api/chat"
    system.fake.play("u-stop", Answer(deltas=WORDS, gate=asyncio.Event(), gate_after=2))
    async with system.http.stream("POST", url, json=body("u-stop", "openai/u-stop")) as answer:
        stream_id = answer.headers["x-stream-id"]
        others: list[Any] = [{"activeStreamId": "0" * 34}, {"activeStreamId": []}, {"assistantMessage": {"id": "m"}}]
        for stale in others:
            response = await system.http.post(f"{url}/u-stop/stop", json=stale)
            assert response.json() == {"success": True, "stream_id": None}
        assert (await system.status(stream_id))["ended_at"] is None
        current = {"activeStreamId": stream_id, "assistantMessage": {"id": f"msg_{stream_id}"}}
        response = await system.http.post(f"{url}/u-stop/stop", json=current)
        assert response.json() == {"success": True, "stream_id": stream_id}
        rest = (await answer.aread()).decode()
    assert '{"type":"finish","finishReason":"interrupted"}' in rest
    assert (await system.http.get(f"{url}/u-stop/stream")).status_code == 204
    assert (await system.ended(stream_id))["finish_reason"] == "cancelled"
    assert (await system.http.post(f"{url}/u-none/stop")).json() == {"success": True, "stream_id": None}


async def test_images_denied_calls_and_open_calls_are_converted(system: System) -> None:
    system.fake.play("u-parts", Answer(deltas=WORDS))
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"}
    denied = {"type": "dynamic-tool", "toolName": "look", "toolCallId": "c1", "state": "output-denied", "input": {}}
    open_ = {"type": "tool-look", "toolCallId": "c2", "state": "input-available", "input": {}}
    messages = [
        {"role": "system", "parts": [{"type": "text", "text": "Be brief."}]},
        user(parts=[{"type": "text", "text": "see"}, image, {"type": "data-mine", "data": 1}]),
        {"id": "a1", "role": "assistant", "parts": [{"type": "step-start"}, denied, open_]},
        user("go on"),
    ]
    url = f"{system.url}/api/chat"
    chunks_of(await system.http.post(url, json=body("u-parts", "openai/u-parts", *messages, tools=[TOOL])))
    (call,) = [call for call in system.fake.calls if call.model == "u-parts"]
    sent = call.request["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "user"]
    assert [part["type"] for part in sent[1]["content"]] == ["text", "image_url"]
    assert [call["id"] for call in sent[2]["tool_calls"]] == ["c1"]
    assert "denied" in sent[3]["content"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": ""}, "id: must be a string"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "tool", "parts": []}]}, "messages.0.role: must be"),
        ({"messages": [{"role": ["user"], "parts": []}]}, "messages.0.role: must be"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages.0.parts: must be a list"),
        ({"messages": [user(parts=[{"type": "audio"}])]}, "messages.0.parts.0.type: not supported"),
        ({"messages": [user(parts=[{"type": "file", "url": "https://a/b"}])]}, "parts.0.mediaType: must be"),
        ({"messages": [user(parts=[{"type": "file", "mediaType": "a/b"}])]}, "messages.0.parts.0.url: not"),
        ({"messages": [user(parts=[PDF | {"url": "blob:x"}])]}, "messages.0.parts.0.url: not supported"),
        (
            {"messages": [user(), looked({"type": "content", "value": [{"type": "media"}]})]},
            "parts.0.output.value.0: ",
        ),
        ({"model": None}, "model: missing; add it"),
        ({"temperature": "hot"}, "temperature: "),
        ({"wheels": 4, "unsupported_fields": "refuse"}, "wheels: not supported"),
    ],
)
async def test_invalid_input_is_named(system: System, change: dict[str, Any], expected: str) -> None:
    answer = await system.http.post(f"{system.url}/api/chat", json=body("u-bad", "openai/any") | change)
    assert answer.status_code == 422
    assert expected in answer.json()["error"]["message"]


async def test_keys_of_the_application_are_ignored_and_named(system: System) -> None:
    system.fake.play("u-keys", Answer(deltas=WORDS))
    own = {"selectedVisibilityType": "private", "webSearch": {"on": True}, "a\r\nX-Evil: é": 1}
    answer = await system.http.post(f"{system.url}/api/chat", json=body("u-keys", "openai/u-keys", **own))
    assert text_of(chunks_of(answer)) == TEXT
    ignored = answer.headers["x-headrace-ignored"].split(", ")
    assert ignored == ["selectedVisibilityType", "webSearch", "a%0D%0AX-Evil%3A%20%C3%A9"]
    (call,) = [call for call in system.fake.calls if call.model == "u-keys"]
    assert not set(own) & set(call.request)


async def test_files_and_images_in_tool_results_reach_the_provider(system: System) -> None:
    system.fake.play("u-files", Answer(deltas=WORDS))
    cached = {
        "type": "text",
        "text": "see",
        "providerMetadata": {"anthropic": {"cacheControl": {"type": "ephemeral"}}},
    }
    media = [{"type": "text", "text": "a cat"}, {"type": "media", "mediaType": "image/png", "data": "AAAA"}]
    messages = [user(parts=[cached, PDF]), looked({"type": "content", "value": media}), user("and?")]
    request = body("u-files", "anthropic/u-files", *messages, tools=[TOOL])
    chunks_of(await system.http.post(f"{system.url}/api/chat", json=request))
    (call,) = [call for call in system.fake.calls if call.model == "u-files"]
    (text, document), *_ = [message["content"] for message in call.request["messages"]]
    assert text["cache_control"] == {"type": "ephemeral"}
    assert (document["type"], document["source"]["data"], document["title"]) == ("document", "AAAA", "a.pdf")


@pytest.mark.parametrize(
    "output",
    [
        {"type": "content", "value": [{"type": "media", "mediaType": "image/png", "data": "AAAA"}]},
        {"type": "content", "value": [{"type": "image-data", "mediaType": "image/png", "data": "AAAA"}]},
        {"type": "content", "value": [{"type": "image-url", "url": PNG}]},
        {
            "type": "content",
            "value": [{"type": "file", "mediaType": "image/png", "data": {"type": "data", "data": "AAAA"}}],
        },
        {"content": [{"type": "image", "mimeType": "image/png", "data": "AAAA"}]},
    ],
)
def test_every_form_of_an_image_in_a_tool_result_is_an_image(output: Any) -> None:
    request, _ = ui_message_request.parse(json.dumps(body("c", "m", user(), looked(output))).encode(), None)
    assert request.messages[-1].model_dump(exclude_none=True)["content"] == [
        {"type": "image_url", "image_url": {"url": PNG}}
    ]
