"""Each value of a JSON answer is sent once, as soon as it is whole, however the answer is cut."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.errors import GenerationError
from shared.protocol.events import Json
from shared.schemas.json_schema import JsonSchema, Violation, violation
from tests.json_pieces import pieces_of
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
    """Return the values that are sent, and the end: the whole answer or the problem."""
    answer = JsonAnswer(schema, depth=depth)
    sent: list[Json] = []
    at = 0
    for cut in [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]:
        sent += answer.take([TextDelta(text[at:cut])])
        at = cut
    try:
        return sent, answer.finish()
    except GenerationError as error:
        return sent, f"{error.code}: {error.message}"


@repeatable
@given(WHOLE, CHATTER, CHATTER, st.lists(st.integers(0, 10_000)), st.integers(1, 4), st.booleans())
def test_every_value_is_sent_once_when_it_is_whole(
    value: dict[str, Any], before: str, after: str, cuts: list[int], depth: int, ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    sent, whole = read(f"{before}{text}\n{after}", cuts, depth=depth)
    assert [(piece.path, piece.value) for piece in sent] == pieces_of(value, depth)
    assert isinstance(whole, Json)
    assert (whole.path, whole.value, whole.complete) == ([], value, True)
    assert whole.outside == sum(map(len, (before + after).split()))


def test_long_names_are_not_repeated_for_every_value_below() -> None:
    """Each value has its path: 2,000 members under a name of 50 kB would be 100 MB."""
    whole = {"k" * 50_000: {f"a{at}": at for at in range(2_000)}}
    sent, end = read(json.dumps(whole), [1_000, 40_000, 60_000])
    assert isinstance(end, Json)
    assert end.value == whole
    assert 1 <= len(sent) <= 25
    assert all(value.path[0] == "k" * 50_000 for value in sent)


def test_only_the_first_of_very_many_values_are_sent() -> None:
    sent, whole = read(json.dumps({"rows": [0] * 30_000}), [])
    assert len(sent) == 20_000
    assert isinstance(whole, Json)
    assert whole.value == {"rows": [0] * 30_000}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [({"type": "string"}, ' "abc" ', "abc"), ({"type": "integer"}, "42", 42), ({"type": "null"}, "null\n", None)],
)
def test_an_answer_may_be_a_scalar(schema: dict[str, Any], text: str, value: object) -> None:
    sent, whole = read(text, [1, 2], schema)
    assert sent == []
    assert isinstance(whole, Json)
    assert whole.value == value
    assert isinstance(read("chatter", [], schema)[1], str)


def chain(links: int) -> dict[str, Any]:
    """A schema in which each definition refers twice to the next."""
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
        (chain(20), "has more than 10000 schemas for one value, with its references written out"),
        ({"$ref": "#"}, "refers to itself in a circle"),
        ({"enum": list(range(20_000))}, "has more than 10000 values"),
    ],
)
def test_an_expensive_schema_is_refused(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TypeAdapter(JsonSchema).validate_python(schema)


def test_a_recursive_schema_is_accepted_if_it_is_cheap() -> None:
    deep: Any = {"left": None}
    for _ in range(40):
        deep = {"left": deep}
    for schema in (chain(8), FORK, TREE):
        TypeAdapter(JsonSchema).validate_python(schema)
    assert violation(TREE, deep) is None
    assert violation(TREE, {"rest": [{"left": 3}]}) == Violation('$.rest[0].left fails "anyOf"', 'it fails "anyOf"')
    assert violation(FORK, [[[]]]) is None
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested]
    assert "nested too deeply" in str(violation(FORK, nested))


@repeatable
@given(MESS, st.lists(st.integers(0, 10_000)))
@example(["{", *["x" * 1100], "{}"], [5, 1020])
def test_splitting_changes_nothing_even_in_invalid_text(parts: list[str], cuts: list[int]) -> None:
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
def test_a_problem_is_named_by_its_path_and_not_by_its_value(text: str, schema: dict[str, Any], problem: str) -> None:
    _, message = read(text, [], schema)
    assert message == f"schema_violation: the answer does not follow its schema: {problem}"


def test_a_value_is_sent_before_the_rest_has_arrived() -> None:
    answer = JsonAnswer(OBJECT, depth=1)
    assert answer.take([TextDelta('{"a": [1, 2'), ReasoningDelta("}]"), TextDelta("], ")]) == [Json(["a"], [1, 2])]
    assert answer.take([TextDelta('"b": "x')]) == []
    assert answer.take([TextDelta('"')]) == [Json(["b"], "x")]
    assert answer.take([TextDelta(', "c": 12')]) == []  # more digits may come
    assert answer.take([TextDelta("}")]) == [Json(["c"], 12)]
