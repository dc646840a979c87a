"""Ollama gets what it has no field for in another way: forced tools, single calls, images and files of tools."""

import base64
import json
from typing import Any

import pytest

from shared.protocol import events
from tests.fakes import Answer, FakeProvider
from tests.fakes.answer import ToolCall
from tests.provider_client import Make, ask, collect, parts_of
from workers.providers.base import Finished, IgnoredFields, ToolCallDelta

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
PIXEL = "iVBORw0KGgo="


def called(answer: list[Any]) -> list[tuple[str, str]]:
    whole = [part for part in answer if isinstance(part, events.ToolCall)]
    return [(str(call.name), call.arguments) for call in whole]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_forced_tool_is_called(fake: FakeProvider, make: Make, choice: object) -> None:
    fake.play("forced", Answer(deltas=['{"city": ', '"Oslo"}']))
    tools = [WEATHER] if choice == "required" else [WEATHER, TIME]
    answer = await collect(make("ollama"), ask("forced", tools=tools, tool_choice=choice))
    request = fake.calls[0].request
    assert request["format"] == SCHEMA
    assert "tools" not in request
    assert called(answer) == [("weather", '{"city": "Oslo"}')]
    fragments = [part.text for part in answer if isinstance(part, ToolCallDelta)]
    assert "".join(fragments) == '{"city": "Oslo"}'
    assert len(fragments) > 1
    assert isinstance(answer[-1], Finished)
    assert answer[-1].reason == "tool_calls"


async def test_one_of_several_tools_is_forced(fake: FakeProvider, make: Make) -> None:
    fake.play("forced", Answer(deltas=['{"tool": "time", ', '"arguments": {}}']))
    answer = await collect(make("ollama"), ask("forced", tools=[WEATHER, TIME], tool_choice="required"))
    choices = fake.calls[0].request["format"]["anyOf"]
    assert [choice["properties"]["tool"] for choice in choices] == [{"const": "weather"}, {"const": "time"}]
    assert called(answer) == [("time", "{}")]


async def test_parallel_calls_are_cut_after_the_first(fake: FakeProvider, make: Make) -> None:
    calls = [ToolCall("1", "weather", ('{"city": "Oslo"}',)), ToolCall("2", "weather", ('{"city": "Rome"}',))]
    fake.play("several", Answer(tools=calls))
    answer = await collect(make("ollama"), ask("several", tools=[WEATHER], parallel_tool_calls=False))
    assert called(answer) == [("weather", '{"city": "Oslo"}')]
    assert isinstance(answer[-1], Finished)
    assert answer[-1].reason == "tool_calls"


async def test_images_of_results_follow_and_orphans_pass(fake: FakeProvider, make: Make) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "tool", "tool_call_id": "gone", "content": "late"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "seen"}, image]},
    ]
    await collect(make("ollama"), ask("echo", messages=messages))
    assert fake.calls[0].request["messages"] == [
        {"role": "tool", "content": "late"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]},
        {"role": "tool", "content": "seen", "tool_name": "weather"},
        {"role": "user", "content": "Images of the tool results:", "images": [PIXEL]},
    ]


async def test_a_text_file_is_inserted_and_another_is_named(fake: FakeProvider, make: Make) -> None:
    def file(name: str, kind: str) -> dict[str, Any]:
        data = base64.b64encode(b"content").decode()
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{kind};base64,{data}"}}

    content = [file("a.txt", "text/plain"), file("b.pdf", "application/pdf")]
    parts = await parts_of(make("ollama"), ask("echo", messages=[{"role": "user", "content": content}]))
    (message,) = fake.calls[0].request["messages"]
    assert message["content"] == "File a.txt:\ncontent\n\n[File b.pdf: its content is not available.]"
    assert parts[0] == IgnoredFields(("messages.content.file",))


async def test_own_options_are_merged(fake: FakeProvider, make: Make) -> None:
    own = {"min_p": 0.1, "options": {"num_ctx": 8192}, "keep_alive": "5m", "stream": False}
    request = ask("echo", top_k=5, seed=7, reasoning_tokens=8000, provider_options={"ollama": own})
    parts = await parts_of(make("ollama"), request)
    sent = fake.calls[0].request
    assert sent["options"] == {"top_k": 5, "seed": 7, "min_p": 0.1, "num_ctx": 8192}
    assert (sent["keep_alive"], sent["stream"], sent["think"]) == ("5m", True, "medium")
    assert parts[0] == IgnoredFields(("provider_options.ollama.stream",))
    assert json.dumps(sent).count("keep_alive") == 1
