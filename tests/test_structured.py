"""JSON answers: each value as it becomes whole, whatever stands around it and however it is cut."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.errors import GenerationError
from shared.protocol.events import Json
from shared.schemas.json_schema import JsonSchema, violation
from tests.provider_client import network
from tests.fakes import Answer
from tests.sse_client import Frame, text_of
from tests.system import System
from workers.providers.base import ReasoningDelta, TextDelta
from workers.writing.structured_output import JsonAnswer

OBJECT: dict[str, Any] = {"type": "object"}
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WHOLE = st.dictionaries(st.text(), VALUE, max_size=5)
CHATTER = st.sampled_from(["", "Sure! ", "Here {it} is: [see]\n", "```json\n", '{"x" and {"y", I say:\n```\n'])
MESS = st.lists(st.sampled_from([*'{}[]",:1x\\ ', "tru", "true", '"a":', '{"a":1}', "1e9", "\ud83e", "\udd4a"]))

repeatable = settings(derandomize=True, deadline=None, max_examples=300)


def read(
    text: str, cuts: list[int], schema: dict[str, Any] = OBJECT, depth: int = 2
) -> tuple[list[Json], Json | str]:
    """All that is told, and the end: the whole or what is wrong."""
    answer = JsonAnswer(schema, depth=depth)
    told: list[Json] = []
    at = 0
    for cut in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        told += answer.take([TextDelta(text[at:cut])])
        at = cut
    try:
        return told, answer.finish()
    except GenerationError as error:
        return told, f"{error.code}: {error.message}"


def pieces_of(value: Any, depth: int, path: tuple[str | int, ...] = ()) -> list[tuple[list[str | int], Any]]:
    """What is to be told of ``value``, in the order in which it becomes whole."""
    if len(path) > depth:
        return []
    inner: list[tuple[list[str | int], Any]] = []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        inner += pieces_of(member, depth, (*path, key))
    return inner + ([(list(path), value)] if path else [])


@repeatable
@given(WHOLE, CHATTER, CHATTER, st.lists(st.integers(0, 10_000)), st.integers(1, 4), st.booleans())
def test_every_value_is_told_once_when_it_is_whole(
    value: dict[str, Any], before: str, after: str, cuts: list[int], depth: int, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    told, whole = read(f"{before}{text}\n{after}", cuts, depth=depth)
    assert [(piece.path, piece.value) for piece in told] == pieces_of(value, depth)
    assert isinstance(whole, Json)
    assert (whole.path, whole.value, whole.complete) == ([], value, True)
    assert whole.outside == sum(map(len, (before + after).split()))


def test_of_very_many_values_only_the_first_are_told() -> None:
    told, whole = read(json.dumps({"rows": [0] * 30_000}), [])
    assert len(told) == 20_000
    assert isinstance(whole, Json)
    assert whole.value == {"rows": [0] * 30_000}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [({"type": "string"}, ' "abc" ', "abc"), ({"type": "integer"}, "42", 42), ({"type": "null"}, "null\n", None)],
)
def test_a_scalar_may_be_asked_for(schema: dict[str, Any], text: str, value: object) -> None:
    told, whole = read(text, [1, 2], schema)
    assert told == []
    assert isinstance(whole, Json)
    assert whole.value == value
    assert isinstance(read("chatter", [], schema)[1], str)


# --- schemas that would cost too much


def chain(links: int) -> dict[str, Any]:
    """Each definition stands for two of the next."""
    defs: dict[str, Any] = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(links)
    }
    return {"$defs": defs | {f"d{links}": {"type": "string"}}, "$ref": "#/$defs/d0"}


FORK = {"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}, "minItems": 9}]}
TREE = {
    "type": "object",
    "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "rest": {"items": {"$ref": "#"}}},
}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (chain(20), "has more than 10000 values, with its references written out"),
        ({"$ref": "#"}, "refers to itself in a circle"),
        ({"enum": list(range(20_000))}, "has more than 10000 values"),
    ],
)
def test_a_schema_that_would_cost_too_much_is_refused(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TypeAdapter(JsonSchema).validate_python(schema)


def test_a_schema_that_refers_to_itself_is_taken_as_far_as_that_is_cheap() -> None:
    deep: Any = {"left": None}
    for _ in range(40):
        deep = {"left": deep}
    for schema in (chain(8), FORK, TREE):
        TypeAdapter(JsonSchema).validate_python(schema)
    assert violation(TREE, deep) is None
    assert violation(TREE, {"rest": [{"left": 3}]}) == '$.rest[0].left fails "anyOf"'
    assert violation(FORK, [[[]]]) is None
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested]
    assert "nested too deeply" in str(violation(FORK, nested))


@repeatable
@given(MESS, st.lists(st.integers(0, 10_000)))
@example(["{", *["x" * 1100], "{}"], [5, 1020])
def test_cuts_change_nothing_even_in_a_mess(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    assert read(text, cuts) == read(text, []) == read(text, list(range(len(text))))


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ("I cannot do that.", OBJECT, "$ is an incomplete JSON value"),
        ('{"a": 1', OBJECT, "$ is an incomplete JSON value"),
        ('{"a": 1, b}', OBJECT, "$ is not JSON"),
        ('{"a": 1, "b": ' + "9" * 5000 + "}", OBJECT, "$ is not JSON"),
        ('{"a": 1, "b": 1e999}', OBJECT, "$ is not JSON"),
        ("[1]", OBJECT, "$ is an incomplete JSON value"),
        ("{" * 100_000, OBJECT, "$ is not JSON"),
        ("[" * 100_000, {"type": "array"}, "$ is not JSON"),
        ('{"a":1}', {"type": "object", "required": ["b"]}, '$ fails "required"'),
        (
            '{"a":[{"b":"secret"}]}',
            {"properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}},
            '$.a[0].b fails "type"',
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path_and_not_by_its_value(
    text: str, schema: dict[str, Any], problem: str
) -> None:
    _, message = read(text, [], schema)
    assert message == f"schema_violation: the answer does not follow its schema: {problem}"


def test_what_was_told_is_whole_while_more_is_awaited() -> None:
    answer = JsonAnswer(OBJECT, depth=1)
    assert answer.take([TextDelta('{"a": [1, 2'), ReasoningDelta("}]"), TextDelta("], ")]) == [Json(["a"], [1, 2])]
    assert answer.take([TextDelta('"b": "x')]) == []
    assert answer.take([TextDelta('"')]) == [Json(["b"], "x")]
    assert answer.take([TextDelta(', "c": 12')]) == []  # more digits may come
    assert answer.take([TextDelta("}")]) == [Json(["c"], 12)]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"rows": [{"id": i, "name": f"naïve {i}", "price": i * 1.5} for i in range(n)]},
        lambda n: {"text": "x" * 40 * n},
        lambda n: {"text": 'a "quote"\n}' * 5 * n},
        lambda n: {"rows": [1] * 20 * n},
    ],
)
def test_the_cost_is_linear(make: Callable[[int], dict[str, Any]]) -> None:
    """Four times the answer, in 3-character deltas, costs about four times the CPU time; a re-parse for each delta
    would cost 16 times. The limit lies in between, so that a busy machine does not matter."""

    def cost_s(text: str) -> float:
        begun = time.process_time()
        answer = JsonAnswer(OBJECT, depth=2)
        for at in range(0, len(text), 3):
            answer.take([TextDelta(text[at : at + 3])])
        answer.finish()
        return time.process_time() - begun

    quarter, whole = json.dumps(make(2000)), json.dumps(make(8000))
    ratios = sorted(cost_s(whole) / cost_s(quarter) for _ in range(5))
    assert ratios[0] < 8


# --- through the whole system

RECIPE = {
    "name": "Rösti",
    "steps": [{"do": "grate\n", "minutes": 5}, {"do": 'fry "well"', "minutes": 20}],
    "serves": 2,
    "note": None,
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "steps": {"type": "array"}, "serves": {"type": "integer"}},
    "required": ["name", "steps"],
}
FORMATS = [
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "recipe", "schema": SCHEMA}},
]


def json_events(frames: list[Frame]) -> list[tuple[list[str | int], Any]]:
    return [(frame.data["path"], frame.data["value"]) for frame in frames if frame.event == "json"]


def cut(text: str, seed: int) -> list[str]:
    """Also in the middle of escapes."""
    rng = random.Random(seed)
    pieces = []
    while text:
        size = rng.randint(1, 9)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


@network
@pytest.mark.parametrize("format_", FORMATS)
async def test_pieces_stream_through(system: System, name: str, format_: dict[str, Any]) -> None:
    text = json.dumps(RECIPE)
    model = f"json-{name}-{format_['type']}"
    system.fake.play(model, Answer(deltas=cut(f"```json\n{text}\n```", 1), delay_s=0.002))
    async with await system.stream(model, provider=name, response_format=format_) as connection:
        frames = await connection.rest()
    assert json_events(frames) == [*pieces_of(RECIPE, 2), ([], RECIPE)]
    assert [f.data["outside"] for f in frames if f.event == "json" and not f.data["path"]] == [10]
    assert text_of(frames) == f"```json\n{text}\n```"
    # No piece comes before the text that it is made of.
    seen = ""
    for frame in frames:
        seen += frame.data["token"] if frame.event == "token" else ""
        if frame.event == "json" and isinstance(frame.data["value"], str):
            assert json.dumps(frame.data["value"]) in seen
    assert frames[-1].data["finish_reason"] == "stop"
    assert frames[-1].data["usage"]["estimated"] is False
    status = await system.status(connection.stream_id)
    assert status["json"] == RECIPE


@network
async def test_a_violation_is_an_error_and_the_text_stays(system: System, name: str) -> None:
    text = '{"name": "x", "steps": "none"}'
    system.fake.play(f"wrong-{name}", Answer(deltas=cut(text, 2), usage=(3, 9)))
    async with await system.stream(f"wrong-{name}", provider=name, response_format=FORMATS[1]) as connection:
        frames = await connection.rest()
    assert [f.event for f in frames[-2:]] == ["error", "done"]
    assert frames[-2].data["code"] == "schema_violation"
    assert '$.steps fails "type"' in frames[-2].data["message"]
    assert json_events(frames) == pieces_of(json.loads(text), 2)
    status = await system.status(connection.stream_id)
    assert (status["text"], status["json"], status["status"]) == (text, None, "failed")
    assert frames[-1].data["usage"] == {"input_tokens": 3, "output_tokens": 9, "estimated": False}


@network
async def test_an_answer_that_is_cut_off_is_no_violation(system: System, name: str) -> None:
    system.fake.play(f"short-{name}", Answer(deltas=['{"name": "x", "st'], finish_reason="length"))
    async with await system.stream(f"short-{name}", provider=name, response_format=FORMATS[1]) as connection:
        frames = await connection.rest()
    assert json_events(frames) == [(["name"], "x")]
    assert frames[-1].data["finish_reason"] == "length"
    assert [f.event for f in frames].count("error") == 0


async def test_a_reader_that_comes_late_or_back_gets_the_same_pieces(system: System) -> None:
    system.fake.play("json-late", Answer(deltas=cut(json.dumps(RECIPE), 3)))
    async with await system.stream("json-late", response_format=FORMATS[0]) as connection:
        whole = await connection.rest()
    for i, frame in enumerate(whole[:-1]):
        if frame.id is not None:
            async with await system.read(connection.stream_id, frame.id, gateway=1) as again:
                assert [f.data for f in await again.rest()] == [f.data for f in whole[i + 1 :]]


async def test_a_large_value_comes_whole(system: System) -> None:
    """Larger than an event of tokens may be, and than one write to a client."""
    rows = [{"n": n, "text": "x" * 90} for n in range(5000)]
    system.fake.play("json-large", Answer(deltas=cut(json.dumps({"rows": rows}), 4)))
    async with await system.stream("json-large", response_format=FORMATS[0]) as connection:
        frames = await connection.rest()
    assert json_events(frames)[-2:] == [(["rows"], rows), ([], {"rows": rows})]
    assert frames[-1].data["finish_reason"] == "stop"
