"""The demo provider needs no key and always gives the same answer: a story, JSON by a schema, or a tool call."""

import itertools
import json
import time
from typing import Any

import pytest

from shared.protocol import events
from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.schemas.json_schema import violation
from shared.settings import Settings
from tests.fakes import FakeProvider
from tests.provider_client import ask, collect, provider_named, settings_for, text_in
from workers.providers.base import Delta, Finished, ModelList, Provider, ReasoningDelta, ToolCallDelta
from workers.providers.demo import STORY, THOUGHT, demo_text
from workers.providers.demo_json import instance_of

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
NOW = {"type": "function", "function": {"name": "now"}}


def by_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


async def answer(request: ChatRequest) -> list[Delta | Finished]:
    return await collect(provider_named("demo", Settings(demo_tokens_per_s=1e6)), request)


def ending(deltas: list[Delta | Finished]) -> Finished:
    assert isinstance(deltas[-1], Finished)
    return deltas[-1]


# --- values that follow a schema


def value_for(schema: dict[str, Any]) -> Any:
    return instance_of(schema, itertools.cycle(["lake", "gate"]))


def test_keywords_beside_references_are_copied_up_to_a_limit() -> None:
    """Each reference copied them, in a chain of 30 references for each of 999 values. The rest gets any value."""
    chain: dict[str, Any] = {f"a{at}": {"$ref": f"#/$defs/a{at + 1}", "x": 1} for at in range(30)}
    chain["a0"] |= {f"k{at}": 1 for at in range(9_000)}
    chain["a30"] = {"type": "integer"}
    made = value_for({"$defs": chain, "type": "array", "minItems": 999, "items": {"$ref": "#/$defs/a0", "y": 1}})
    assert made[0] == 1
    assert len(made) == 999
    assert made[-1] in {"lake", "gate"}


RECURSIVE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["name", "children", "parent"],
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 5},
        {"type": "array", "items": True, "maxItems": 1, "minItems": 1},
        {"type": "array", "items": {"enum": ["x", "y"]}},
        {"type": "integer", "minimum": 7.5},
        {"type": "integer", "exclusiveMinimum": 7, "maximum": 8},
        {"type": "integer", "exclusiveMaximum": 0},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "maximum": -3},
        {"type": "string", "minLength": 12},
        {"type": "string", "maxLength": 2},
        {"type": ["string", "null"]},
        {"type": "boolean"},
        {"type": "null"},
        {"const": {"deep": [1]}},
        {"enum": [3, "three"]},
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"oneOf": [{"$ref": "#/definitions/a~1b"}], "definitions": {"a/b": {"type": "boolean"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]},
        {"properties": {"a": {"items": {"type": "number"}}}},
        RECURSIVE,
    ],
)
def test_values_follow_their_schema_and_are_always_the_same(schema: dict[str, Any]) -> None:
    assert violation(schema, value_for(schema)) is None
    assert json.dumps(value_for(schema)) == json.dumps(value_for(schema))


def test_optional_members_and_items_are_generated() -> None:
    schema = {"type": "array", "items": CITY}
    assert value_for(schema) == [
        {"city": "lake", "days": 1},
        {"city": "gate", "days": 2},
        {"city": "lake", "days": 3},
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"enum": []},
        {"$ref": "#/$defs/nowhere"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "items": {"type": "array", "minItems": 10**9}, "minItems": 10**9},
        {"type": "object", "properties": {str(n): {"$ref": "#"} for n in range(50)}},
        {"type": "object", "required": [str(n) for n in range(50)], "properties": {"0": {"$ref": "#"}}},
        {"type": "string", "minLength": 10**12},
        {"type": "array", "items": {"type": "string", "minLength": 10**9}},
    ],
)
def test_a_value_is_finite_whatever_its_schema(schema: dict[str, Any]) -> None:
    assert len(json.dumps(value_for(schema))) < 200_000


# --- JSON answers


async def test_a_json_answer_follows_its_schema_token_by_token() -> None:
    schema = {"type": "object", "properties": {"cities": {"type": "array", "items": CITY}}, "required": ["cities"]}
    deltas = await answer(ask("demo", response_format=by_schema(schema)))
    value = json.loads(text_in(deltas))
    assert violation(schema, value) is None
    assert len(value["cities"]) > 1
    assert ending(deltas).reason == "stop"
    assert len(deltas) > 20


async def test_a_json_object_without_a_schema_is_the_story() -> None:
    value = json.loads(text_in(await answer(ask("demo", response_format={"type": "json_object"}))))
    assert value["title"] == "The miller's gate"
    assert len(value["paragraphs"]) > 3
    assert value["paragraphs"][0].startswith("Above the village stood a mill")


async def test_text_stays_the_story() -> None:
    assert text_in(await answer(ask("demo", response_format={"type": "text"}))) == STORY


# --- tool calls


async def test_a_tool_is_called_with_arguments_that_follow_its_parameters() -> None:
    deltas = await answer(ask("demo", "Weather, please", tools=[WEATHER, NOW]))
    *fragments, whole, finished = deltas
    assert isinstance(whole, events.ToolCall)
    assert (whole.name, whole.complete, whole.n) == ("get_weather", True, 0)
    assert json.loads(whole.arguments) == {"city": "lake", "days": 1}
    assert [type(fragment) for fragment in fragments] == [ToolCallDelta] * 4
    assert "".join(f.text for f in fragments if isinstance(f, ToolCallDelta)) == whole.arguments
    assert finished == Finished("tool_calls", Usage(input_tokens=2, output_tokens=4))


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("auto", ["get_weather"]),
        ("required", ["get_weather"]),
        ({"type": "function", "function": {"name": "now"}}, ["now"]),
        ("none", []),
    ],
)
async def test_the_choice_of_a_tool_is_followed(choice: object, called: list[str]) -> None:
    deltas = await answer(ask("demo", tools=[WEATHER, NOW], tool_choice=choice))
    assert [delta.name for delta in deltas if isinstance(delta, events.ToolCall)] == called
    assert text_in(deltas) == ("" if called else STORY)


async def test_a_call_can_be_answered_and_the_next_call_has_a_new_id() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Weather?"}]
    ids = set()
    for _ in range(2):
        deltas = await answer(ChatRequest.model_validate({"model": "demo", "tools": [WEATHER], "messages": messages}))
        (call,) = [delta for delta in deltas if isinstance(delta, events.ToolCall)]
        ids.add(call.id)
        function = {"name": call.name, "arguments": call.arguments}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": call.id, "content": "sun"},
        ]
        second = await answer(ChatRequest.model_validate({"model": "demo", "tools": [WEATHER], "messages": messages}))
        assert text_in(second) == STORY
        messages += [{"role": "assistant", "content": "Sun."}, {"role": "user", "content": "And tomorrow?"}]
    assert len(ids) == 2


async def test_a_call_that_the_limit_cuts_off_stays_incomplete() -> None:
    deltas = await answer(ask("demo", tools=[WEATHER], max_tokens=3))
    assert [type(delta) for delta in deltas] == [*[ToolCallDelta] * 3, Finished]
    assert ending(deltas).reason == "length"


# --- reasoning


@pytest.mark.parametrize("fields", [{}, {"tools": [NOW]}, {"response_format": {"type": "json_object"}}])
async def test_a_prompt_that_asks_to_think_gets_reasoning_first(fields: dict[str, Any]) -> None:
    deltas = await answer(ask("demo", "Think before you speak", **fields))
    kinds = [kind for kind, _ in itertools.groupby(deltas, type)]
    assert kinds[0] is ReasoningDelta
    assert ReasoningDelta not in kinds[1:]
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == THOUGHT
    without = await answer(ask("demo", "Do not", **fields))
    assert [d for d in deltas if not isinstance(d, ReasoningDelta)][:-1] == without[:-1]


def demo(fake: FakeProvider, tokens_per_s: float = 1e6) -> Provider:
    return provider_named("demo", settings_for(fake, demo_tokens_per_s=tokens_per_s))


async def test_every_prompt_gets_the_same_story(fake: FakeProvider) -> None:
    first = await collect(demo(fake), ask("demo", "Hello there"))
    second = await collect(demo(fake), ask("demo", "Something else"))
    assert first == second
    assert text_in(first) == STORY
    assert "not a language model" in STORY
    assert first[-1] == Finished("stop", Usage(input_tokens=2, output_tokens=len(first) - 1))
    assert await demo(fake).list_models() == ModelList(("demo",), closed=True)


@pytest.mark.parametrize("prompt", ["Give me 500 words.", "please count to 500"])
async def test_a_prompt_with_a_number_of_words_gets_that_many(fake: FakeProvider, prompt: str) -> None:
    text = text_in(await collect(demo(fake), ask("demo", prompt)))
    assert text == demo_text(ask("demo", prompt))
    words = text.partition("\n\n")[2].split()
    assert len(words) == 500
    assert (words[0], words[-1]) == ("lake-1", "wheel-500")


async def test_the_token_limit_and_stop_sequences_are_honoured(fake: FakeProvider) -> None:
    limited = await collect(demo(fake), ask("demo", max_tokens=3))
    assert len(limited) == 4
    assert limited[-1] == Finished("length", Usage(input_tokens=3, output_tokens=3))
    stopped = await collect(demo(fake), ask("demo", stop=["gate at its mouth", "daughter dug"]))
    assert text_in(stopped) == STORY[: STORY.index("daughter dug")]
    finished = stopped[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == "stop"


async def test_a_token_limit_of_exactly_the_length_is_not_reached(fake: FakeProvider) -> None:
    whole = await collect(demo(fake), ask("demo"))
    assert await collect(demo(fake), ask("demo", max_tokens=len(whole) - 1)) == whole


async def test_tokens_come_at_the_configured_rate(fake: FakeProvider) -> None:
    begun_at = time.monotonic()
    await collect(demo(fake, tokens_per_s=5000), ask("demo", "count to 2000", max_tokens=1001))
    took = time.monotonic() - begun_at
    assert 0.2 <= took < 30  # 33 s at the default rate


def test_a_value_repeats_no_large_constant_without_end() -> None:
    large = {"type": "array", "minItems": 900, "items": {"const": "x" * 900_000}}
    named = {"type": "array", "minItems": 900, "items": {"required": ["k" * 900_000]}}
    for schema in (large, named):
        assert len(json.dumps(instance_of(schema, itertools.cycle(["text"])))) < 1_100_000
