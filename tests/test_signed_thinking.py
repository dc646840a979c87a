"""Thinking that Anthropic has signed goes back to it: after the loss of a worker, and by every dialect's client."""

import asyncio
import json
import signal
from typing import Any, Final

from tests.conftest import StartSystem
from tests.fakes.answer import Answer, Call
from tests.fakes.answer import ToolCall as Called
from tests.system import System
from tests.test_lost_processes import holder

SIGNED: Final = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
QUESTION: Final = {"role": "user", "content": "look"}
FUNCTION: Final = {"name": "look", "parameters": {"type": "object", "properties": {}}}


def thinking_and_a_call() -> Answer:
    return Answer(reasoning=("hm",), deltas=(), tools=(Called("c1", "look", ("{}",)),))


def last_call(system: System, model: str) -> Call:
    return [call for call in system.fake.calls if call.model == model][-1]


async def running_stream(system: System) -> str:
    """Return the id of the only stream."""
    async with system.broker.client() as client:
        (key,) = {key async for key in client.scan_iter(match="hr:*:state")}  # a scan may return one twice
    return str(key.decode().split(":")[2])


async def test_a_signature_survives_a_takeover_and_the_next_turn(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=2, lease_s=1, providers=("anthropic",))
    gate = asyncio.Event()
    system.fake.play("signed", Answer(reasoning=("hm",), deltas=("a", "b"), gate=gate, gate_after=1))
    body: dict[str, Any] = {"model": "anthropic/signed", "max_tokens": 9, "messages": [QUESTION]}
    asked = asyncio.create_task(system.http.post(f"{system.url}/v1/messages", json=body))
    await system.fake.wait_calls(1)
    stream_id = await running_stream(system)
    (await holder(system, stream_id)).signal(signal.SIGKILL)
    await system.fake.wait_calls(2)
    gate.set()
    turn = {"role": "assistant", "content": (await asked).json()["content"]}
    assert turn["content"] == [SIGNED, {"type": "text", "text": "ab"}]

    system.fake.play("signed", Answer())
    body["messages"] = [QUESTION, turn, QUESTION]
    assert (await system.http.post(f"{system.url}/v1/messages", json=body)).status_code == 200
    assert last_call(system, "signed").request["messages"][1] == turn


async def test_a_client_of_chat_completions_sends_it_back(system: System) -> None:
    system.fake.play("m-chat-signed", thinking_and_a_call())
    body: dict[str, Any] = {
        "model": "anthropic/m-chat-signed",
        "messages": [QUESTION],
        "reasoning_effort": "low",
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    url = f"{system.url}/v1/chat/completions"
    message = (await system.http.post(url, json=body)).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "a cat"}

    system.fake.play("m-chat-signed", Answer())
    body["messages"] = [QUESTION, message, result]
    assert (await system.http.post(url, json=body)).status_code == 200
    sent = last_call(system, "m-chat-signed").request
    assert sent["messages"][1]["content"][0] == SIGNED
    assert sent["thinking"]["type"] == "adaptive"


async def test_a_client_of_the_ai_sdk_sends_it_back(system: System) -> None:
    system.fake.play("m-ui-signed", Answer(reasoning=("hm",), deltas=("done",)))
    question = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "look"}]}
    body: dict[str, Any] = {"id": "signed", "model": "anthropic/m-ui-signed", "messages": [question]}
    url = f"{system.url}/api/chat"
    lines = (await system.http.post(url, json=body)).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    (metadata,) = [chunk["providerMetadata"] for chunk in chunks if chunk["type"] == "reasoning-end"]
    reasoning = {"type": "reasoning", "text": "hm", "providerMetadata": metadata}
    answer = {"id": "a1", "role": "assistant", "parts": [reasoning, {"type": "text", "text": "done"}]}

    system.fake.play("m-ui-signed", Answer())
    body["messages"] = [question, answer, {**question, "id": "u2"}]
    assert (await system.http.post(url, json=body)).status_code == 200
    assert last_call(system, "m-ui-signed").request["messages"][1]["content"][0] == SIGNED
