"""The chat page shows JSON, tool calls, reasoning and refusals while they arrive, and the same after a reload."""

import asyncio
import json
from typing import Any

import pytest

from tests.fakes.answer import Answer, Call, ToolCall
from tests.page.chat_page import ENDED, HALF_CALL, Page, holds
from tests.system import System


async def test_a_second_message_carries_the_conversation(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["One."]))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    await page.ask("Second", model="openai/brief")

    def last() -> Call:
        return [call for call in system.fake.calls if call.model == "brief"][-1]

    await page.until(lambda: holds(lambda: last().prompt == "Second"))
    sent = [(m["role"], m["content"]) for m in last().request["messages"]]
    assert sent == [("user", "First"), ("assistant", "One."), ("user", "Second")]


SCENES = {"title": "The mill", "scenes": [{"place": "lake", "id": 12345678901234567890}, {"place": "gate"}]}
AS_TEXT = json.dumps(SCENES)
FIRST_SCENE = AS_TEXT.index(', {"place": "gate"')
HALF = {"title": SCENES["title"], "scenes": SCENES["scenes"][:1]}


async def test_json_is_shown_value_by_value_also_after_a_reload(page: Page, system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("scenes", Answer(deltas=[AS_TEXT[:FIRST_SCENE], AS_TEXT[FIRST_SCENE:]], gate=gate, gate_after=1))
    await page.answer_as("JSON by schema", '{"title": "Scenes of a story", "type": "object"}')
    await page.ask("Scenes, please", model="openai/scenes")
    for _ in range(2):
        await page.until_shown(lambda shown: (shown.value, shown.raw) == (HALF, AS_TEXT[:FIRST_SCENE]))
        await page.reload()
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    whole = await page.shown()
    assert whole.value == SCENES
    assert "12345678901234567890" in whole.tree
    assert whole.raw == await page.raw_text() == AS_TEXT
    format_ = {"name": "Scenes_of_a_story", "schema": {"title": "Scenes of a story", "type": "object"}}
    (call,) = [call for call in system.fake.calls if call.model == "scenes"]
    assert call.request["response_format"] == {"type": "json_schema", "json_schema": format_}

    await page.reload()  # an answer that has ended is not read as a stream
    assert await page.until_state(*ENDED) == "done"
    assert (await page.shown()).value == SCENES
    assert "12345678901234567890" in (await page.shown()).tree


_WATCH_TREE = """
window.trees = new Set();
new MutationObserver(() => {
  const tree = document.querySelector(".tree");
  if (tree?.textContent) window.trees.add(tree.textContent);
}).observe(document.getElementById("messages"), { childList: true, subtree: true, characterData: true });
"""


@pytest.mark.parametrize("form", ["JSON", "JSON by schema"])
async def test_the_demo_answers_with_json(page: Page, form: str) -> None:
    await page.script(_WATCH_TREE)
    await page.answer_as(form)
    await page.ask("Think, then tell me a story", model="demo/demo")
    assert await page.until_state(*ENDED) == "done"
    shown = await page.shown()
    status = await page.status()
    assert shown.value == status["json"] == json.loads(status["text"])
    assert shown.reasoning == status["reasoning"] != ""
    trees = [json.loads(tree) for tree in await page.script("return [...window.trees]")]
    assert {tree["title"] for tree in trees} == {shown.value["title"]}
    assert trees[-1] == shown.value


@pytest.mark.parametrize("schema", ["{oops", "[1]"])
async def test_an_invalid_schema_is_not_sent(page: Page, system: System, schema: str) -> None:
    system.fake.play("never", Answer())
    await page.answer_as("JSON by schema", schema)
    await page.ask("Hello", model="openai/never")
    await page.until(lambda: _has_text(page, "schema-problem"))
    assert await page.script("return document.querySelectorAll('.message').length") == 0
    assert await page.script("return document.getElementById('prompt').value") == "Hello"
    await page.answer_as("text")
    assert not await page.text_of("schema-problem")


async def _has_text(page: Page, test_id: str) -> bool:
    return bool(await page.text_of(test_id))


async def test_an_answer_that_breaks_its_schema_can_be_read(page: Page, system: System) -> None:
    system.fake.play("chatty", Answer(deltas=["I would rather ", "not."]))
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/chatty")
    assert await page.until_state(*ENDED) == "error"
    assert "schema_violation" in await page.text_of("problem")
    assert "I would rather not." in await page.text_of("answer")  # unfolded
    assert (await page.shown()).raw == "I would rather not."
    await page.script("document.querySelector('.problem button').click()")  # sends the same request again

    def formats() -> list[Any]:
        return [call.request["response_format"] for call in system.fake.calls if call.model == "chatty"]

    await page.until(lambda: holds(lambda: formats() == [{"type": "json_object"}] * 2))
    assert await page.until_state(*ENDED) == "error"


async def test_text_around_the_json_is_counted(page: Page, system: System) -> None:
    system.fake.play("fenced", Answer(deltas=["Sure!\n```json\n", '{"a": 1}', "\n```"]))
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/fenced")
    assert await page.until_state(*ENDED) == "done"
    assert (await page.shown()).value == {"a": 1}
    assert "Ignored 15 characters" in await page.text_of("answer")


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("a", "b")]


async def test_a_tool_call_is_shown_while_it_arrives(page: Page, system: System) -> None:
    system.fake.play("calling", Answer(deltas=["One moment."], tools=(HALF_CALL,), end="hang"))
    await page.ask("Weather?", model="openai/calling")
    shown = await page.until_shown(lambda shown: shown.calls == [["get_weather", '{"city": "Bé']])
    assert "One moment." in await page.text_of("answer")
    await page.click("stop")
    assert await page.until_state(*ENDED) == "cancelled"
    assert (await page.shown()).calls == shown.calls


async def test_complete_tool_calls_are_shown_separately(page: Page, system: System) -> None:
    calls = (
        ToolCall("c1", "get_weather", ('{"city":', '"Bérn", "id": 12345678901234567890}')),
        ToolCall("c2", "now", ("{}",)),
    )
    system.fake.play("calls", Answer(deltas=(), tools=calls))
    await page.open_stream(await system.post("calls", tools=TOOLS))
    arguments = '{\n  "city": "Bérn",\n  "id": 12345678901234567890\n}'
    assert (await page.shown()).calls == [["get_weather", arguments], ["now", "{}"]]
    assert "requested a tool call" in (await page.shown()).footer


async def test_the_demo_calls_a_tool(page: Page, system: System) -> None:
    function = {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}}
    tools = [{"type": "function", "function": function}]
    await page.open_stream(await system.post("demo", "Think of it", provider="demo", tools=tools))
    shown = await page.shown()
    assert shown.calls == [["get_weather", '{\n  "city": "lake"\n}']]
    assert shown.reasoning


async def test_a_refusal_is_marked(page: Page, system: System) -> None:
    system.fake.play("prim", Answer(deltas=(), refusal=("I cannot ", "do that.")))
    await page.ask("Hello", model="openai/prim")
    assert await page.until_state(*ENDED) == "done"
    shown = await page.shown()
    assert shown.refusal == "The model refusesI cannot do that."
    assert "the model refused" in shown.footer


async def test_the_footer_names_the_model_that_answered(page: Page, system: System) -> None:
    system.fake.play("gone", Answer(status=404))
    system.fake.play("there", Answer(deltas=["Here."]))
    await page.open_stream(await system.post("gone", fallbacks=["ollama/there"]))
    assert (await page.shown()).footer.startswith("ollama/there · ")
