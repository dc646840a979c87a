"""Requests that would cost far more than they cost to send are refused before the work."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.errors import RequestError
from shared.schemas import RequestBudget, parse_chat_request
from shared.schemas.json_schema import violation
from shared.schemas.request_budget import STEPS_PER_BYTE
from tests.system import System, ask

Schema = dict[str, Any]


def format_of(schema: Any) -> Schema:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def tool_of(schema: Any, name: str = "f") -> Schema:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def body_of(schema: Any, tools: list[Any] | None = None) -> bytes:
    return json.dumps(
        ask("echo")
        | {"response_format": format_of(schema)}
        | ({"tools": [tool_of(tool, f"f{at}") for at, tool in enumerate(tools)]} if tools else {})
    ).encode()


def refusal(body: bytes) -> tuple[str, int]:
    """Return the message of the refusal, empty if there is none, and the steps of the checks."""
    budget = RequestBudget()
    try:
        parse_chat_request(body, budget)
    except RequestError as error:
        return error.message, budget.steps
    return "", budget.steps


def pattern_pile(count: int) -> Schema:
    return {"properties": {f"p{at}": {"pattern": f"(?=a)\\w{{200}}{at}"} for at in range(count)}}


def reference_lattice(count: int) -> Schema:
    """Return schemas that each refer to the next one and to all before."""
    definitions: Schema = {f"a{count}": {}}
    for at in range(count):
        others = [{"$ref": f"#/$defs/a{to}"} for to in (at + 1, *range(at))]
        definitions[f"a{at}"] = {"allOf": others}
    return {"$defs": definitions, "$ref": "#/$defs/a0"}


def chain(count: int, **around: str) -> Schema:
    """Return schemas that each refer to the next one, in place or for the items."""
    definitions: Schema = {f"a{count}": {"type": "integer"}}
    for at in range(count):
        following: Schema = {"$ref": f"#/$defs/a{at + 1}"}
        definitions[f"a{at}"] = {around["by"]: following} if around else following
    return {"$defs": definitions, "$ref": "#/$defs/a0"}


def nested_in_place(depth: int, leaf: Schema, **beside: Any) -> Schema:
    for _ in range(depth):
        leaf = {"allOf": [leaf], **beside}
    return leaf


#: Each of them took seconds, minutes or the process before, here or when an answer was checked.
EXPENSIVE: Final[dict[str, tuple[Schema, str]]] = {
    "patterns with large classes": (pattern_pile(45), "pattern: too many repetitions"),
    "one repetition in another": ({"pattern": "(?:a{1000}){1000}"}, "pattern: too many repetitions"),
    "repetitions in lookarounds": ({"pattern": "(?=(?:[^a]{99}){99})x"}, "pattern: too many repetitions"),
    "classes that need a translation": ({"pattern": "\\S|" * 600}, "pattern: too large once compiled"),
    "a long pattern": ({"pattern": "a" * 5_000}, "pattern: may have 2000 characters"),
    "a flag that hides a repetition": ({"pattern": "(?x)\\w {1000}"}, "pattern: the flag x"),
    "the flag x behind another": ({"pattern": "(?i)(?x)\\w {300}"}, "pattern: the flag x"),
    "the flag x beside another": ({"pattern": "(?xi)\\w {300}"}, "pattern: the flag x"),
    "characters in either case, by number": (
        {"pattern": "(?i)" + "[\\x{61}-\\x{10FFFF}]" * 8},
        "pattern: too large once compiled",
    ),
    "characters in either case": ({"pattern": "[a-\U0010ffff]" * 8 + "(?i:x)"}, "pattern: too large once compiled"),
    "opposites in either case": ({"pattern": "(?i)" + "[\\Wb]" * 8}, "pattern: too large once compiled"),
    "properties in either case": ({"pattern": "(?mi)" + "\\p{Any}" * 8}, "pattern: too large once compiled"),
    "a repetition behind a bracket in a class": (
        {"pattern": "[[a](?:\\w{300}){300}"},
        "pattern: too many repetitions",
    ),
    "names as patterns": ({"patternProperties": {"\\S|" * 600: {}}}, "pattern: too large once compiled"),
    "patterns of names": ({"propertyNames": {"pattern": "(\\w{199}){199}"}}, "pattern: too many repetitions"),
    "thousands of small patterns": (
        {"allOf": [{"pattern": f"(a|b)?{at}"} for at in range(1_000)]},
        "patterns of a request are too large together",
    ),
    "patterns that may match anywhere": (
        {"allOf": [{"pattern": f"a?\\d\\d{'a' * 20}{at}"} for at in range(100)]},
        "patterns of a request are too large together",
    ),
    "a short property, repeated": ({"pattern": "\\pN{500}"}, "pattern: too many repetitions"),
    "a lattice of references": (reference_lattice(25), "in a circle"),
    "a chain of references": (chain(1_000), "more than 64 schemas in a chain"),
    "a circle by name": ({"$anchor": "a", "allOf": [{"$ref": "#a"}]}, "in a circle"),
    "a circle by a dynamic name": ({"$dynamicAnchor": "a", "anyOf": [{"$dynamicRef": "#a"}]}, "in a circle"),
    "a circle by an encoded path": ({"$defs": {"a": {"not": {"$ref": "#/$defs/%61"}}}}, "in a circle"),
    "a circle by the schema's address": ({"$id": "http://x/y", "allOf": [{"$ref": "y"}]}, "leads out of the schema"),
    "an address below": ({"items": {"$id": "http://x/y"}}, "$id: only allowed at the top"),
    "members evaluated twice at each level": (
        nested_in_place(12, {}, unevaluatedProperties=False),
        "more than 10000 schemas for one value",
    ),
    "a path without end": ({"$ref": "#" + "/a" * 5_000}, "leads nowhere"),
    "many references": ({"anyOf": [{"$ref": "#/$defs/a"}] * 2_100, "$defs": {"a": {}}}, "2000 references"),
    "a large constant": ({"const": [[]] * 20_000}, "more than 10000 values"),
    "a number of thousands of digits": (
        {"items": {"not": {"enum": [10**3999, "a"]}}},
        "more than 10000 schemas for one value",
    ),
    "depth": (nested_in_place(70, {}), "nested more than 64 levels"),
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_an_expensive_schema_is_refused_before_the_work(name: str) -> None:
    schema, problem = EXPENSIVE[name]
    body = body_of(schema)
    message, steps = refusal(body)
    assert f"response_format.json_schema.schema: {problem}" in message or problem in message
    assert steps <= STEPS_PER_BYTE * len(body)


def test_limits_hold_for_all_schemas_of_a_request_together() -> None:
    one: Schema = {"properties": {f"p{at}": {"type": "string"} for at in range(400)}}
    assert refusal(body_of(one, [one] * 19))[0] == ""
    assert "25000 values" in refusal(body_of(one, [one] * 40))[0]
    patterns: Schema = {"allOf": [{"pattern": f"^x{at}$"} for at in range(900)]}
    assert "patterns of a request" in refusal(body_of(patterns))[0]


def test_schemas_of_tools_are_neither_compiled_nor_followed() -> None:
    """Nothing is validated against them here, so what a provider accepts is passed on."""
    bundled: Schema = {"$id": "http://x/y", "$defs": {"a": {"$id": "a"}}, "$ref": "http://x/y#/$defs/a"}
    elsewhere: Schema = {"$schema": "http://127.0.0.1:9/unknown", "type": "object"}
    times: Schema = {"properties": {f"p{at}": {"pattern": f"{DATE_TIME}|{at}"} for at in range(100)}}
    odd: Schema = {"$schema": [], "type": "object"}
    for schema in (bundled, elsewhere, odd, pattern_pile(400), reference_lattice(25), chain(1_000), times):
        message, steps = refusal(body_of({}, [schema] * 2))
        assert message == ""
        assert steps <= STEPS_PER_BYTE * len(body_of({}, [schema] * 2))
    assert (
        "not a JSON schema at /properties/a/type" in refusal(body_of({}, [{"properties": {"a": {"type": "x"}}}]))[0]
    )
    assert "nested more than 64 levels" in refusal(body_of({}, [nested_in_place(70, {})]))[0]


def test_after_a_refused_schema_no_other_is_checked() -> None:
    patterns: Schema = {"pattern": "(?=a)[^a]{300}"}
    alone = refusal(body_of({}, [{"type": "x"}]))[1]
    message, steps = refusal(body_of({}, [{"type": "x"}, *[patterns] * 100]))
    assert message.count(";") == 1
    assert steps == alone


def test_parts_and_images_are_limited() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": ""}] * 256}
    assert refusal(json.dumps(ask("echo") | {"messages": [message] * 64}).encode())[0] == ""
    assert "16384 parts" in refusal(json.dumps(ask("echo") | {"messages": [message] * 65}).encode())[0]


ORDINARY: Final = [
    "^[A-Z]{2}\\d{4}-(?!x)\\w+",
    "^\\d{4}-\\d{2}-\\d{2}(?=T)",
    "^.{1,100}$",
    "^[^/]{1,255}$",
    "^[\\w.+-]+@[\\w-]+\\.[\\w.-]+$",
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    "^(?=.*[A-Z])(?=.*\\d).{8,64}$",
    "^(https?://)?[^\\s/$.?#].[^\\s]*$",
    "^\\p{L}+$",
    "^[A-Za-z0-9_-]{1,1000}$",
    "(?i)^[a-z0-9._-]+@[a-z]+$",
    "(?i)^[\\w.+-]+@[\\w-]+\\.[\\w.-]+$",
    "(?i)^[^\\s@]+@[^\\s@]+\\.[a-z]{2,}$",
    "(?i)^[a-z\u00e0-\u00ff' -]{1,50}$",
]


#: Patterns that real schemas have, though they are large once compiled; one in a request is within the budget.
LARGE: Final = [
    "^[\\p{L} .'-]{1,50}$",
    "^[\\p{L}\\p{N}_-]{1,64}$",
    "^.{1,1000}$",
    "^[^\\x00]{1,1000}$",
    "(?i)\\p{L}{1,20}",
]


#: A pattern that a generator of schemas writes for every date.
DATE_TIME: Final = (
    "^((?:(?:\\d\\d[2468][048]|\\d\\d[13579][26]|\\d\\d0[48]|[02468][048]00|[13579][26]00)-02-29|"
    "\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|"
    "(?:02)-(?:0[1-9]|1\\d|2[0-8])))T(?:(?:[01]\\d|2[0-3]):[0-5]\\d(?::[0-5]\\d(?:\\.\\d+)?)?(?:Z)))$"
)


def test_ordinary_schemas_are_accepted() -> None:
    for pattern in LARGE:
        assert refusal(body_of({"properties": {"name": {"pattern": pattern}}}))[0] == "", pattern
    patterns: Schema = {"properties": {f"p{at}": {"pattern": pattern} for at, pattern in enumerate(ORDINARY)}}
    dates: Schema = {f"p{at}": {"type": "string", "pattern": DATE_TIME} for at in range(100)}
    assert refusal(body_of({"properties": dates}))[0] == ""
    node: Schema = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    named = {"$anchor": "top", "properties": {"$id": {"type": "string"}, "next": {"$ref": "#top"}}}
    generated: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://x/y",
        "$ref": "#/definitions/a",
    }
    generated["definitions"] = {"a": {"properties": {"b": {"$ref": "#/definitions/a"}}}}
    chained = chain(1_000, by="items")
    for schema in (patterns, node, named, generated, chained, chain(50)):
        assert refusal(body_of(schema))[0] == ""


# --- generated schemas

_NAMES: Final = st.sampled_from(["a", "b", "c", "d", "%61", "n"])
_PATTERNS: Final = st.sampled_from(
    [*ORDINARY, "\\w{9}", "(?=a)\\w{9}", "(\\w|a)*", "((a*)*)*\\1", "[^a]{9}", "(?i)\\p{Lu}", "(?<=\\s)x", "a{9}{9}"]
) | st.text("a(){}[]|\\wds*+?{9,", max_size=12)
_REFERENCES: Final = (
    _NAMES.map(lambda name: f"#/$defs/{name}")
    | st.sampled_from(["#", "#n", "#a", "#/$defs", "#/$defs/a/allOf/0", "#/items", "x", "#/$defs/zz"])
    | st.text("#/$defs%0a~1", max_size=12)
)


def _with_schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    several = st.lists(inner, max_size=5)
    named = st.dictionaries(_NAMES, inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(["allOf", "anyOf", "oneOf", "prefixItems"], several),
            **dict.fromkeys(["not", "if", "then", "else", "items", "contains", "additionalProperties"], inner),
            **dict.fromkeys(["propertyNames", "unevaluatedProperties", "unevaluatedItems", "contentSchema"], inner),
            **dict.fromkeys(["properties", "dependentSchemas", "$defs"], named),
            "patternProperties": st.dictionaries(_PATTERNS, inner, max_size=2),
            **dict.fromkeys(["$ref", "$dynamicRef", "$recursiveRef"], _REFERENCES),
            **dict.fromkeys(["$anchor", "$dynamicAnchor"], st.sampled_from(["a", "n"])),
            "pattern": _PATTERNS,
            "enum": st.lists(st.integers() | st.text(max_size=2) | st.lists(st.integers(), max_size=3), max_size=6),
            "multipleOf": st.sampled_from([3, 0.01, 1e-300]),
            "minLength": st.sampled_from([0, 10**30]),
            "type": st.sampled_from(["object", "array", "string"]),
        },
    ) | st.booleans().map(lambda value: {"const": value})


SCHEMAS: Final = st.recursive(_REFERENCES.map(lambda to: {"$ref": to}), _with_schemas, max_leaves=12)
GRAPHS: Final = st.tuples(SCHEMAS, st.dictionaries(_NAMES, SCHEMAS, max_size=5)).map(
    lambda both: {**both[0], "$defs": both[1]}
)
VALUES: Final = st.recursive(
    st.integers() | st.text("ab1", max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=20,
)


@settings(derandomize=True, deadline=None, max_examples=100, database=None, suppress_health_check=list(HealthCheck))
@given(GRAPHS, st.lists(GRAPHS, max_size=3), VALUES, st.integers(1, 40))
@example(reference_lattice(20), [], [], 1)
@example(nested_in_place(7, {"$ref": "#/$defs/a"}, unevaluatedProperties={}), [], {"a": {"a": 1}}, 9)
def test_the_steps_of_any_schema_are_bounded_by_its_bytes(
    schema: Schema, tools: list[Schema], value: Any, times: int
) -> None:
    wide = {"anyOf": [schema] * times, **{name: schema[name] for name in ("$defs",) if name in schema}}
    body = body_of(wide, tools)
    message, steps = refusal(body)
    assert steps <= STEPS_PER_BYTE * len(body)
    assert len(message) < 2_000
    if not message:
        violation(wide, value)  # returns, in bounded time


# --- answers


def deep(depth: int, leaf: Any = 1) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


FAR: Final[Schema] = {"$defs": {**chain(60)["$defs"], "a60": {"items": {"$ref": "#"}}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"items": {"required": [f"p{at}" for at in range(2_000)]}}, [{}] * 5_000, '$[0] fails "required"'),
        ({"anyOf": [{"items": {"type": "string"}}, False]}, [1] * 100_000, "too large to find the place"),
        ({"items": {"enum": [[at] for at in range(2_000)]}}, [[1_999]] * 5_000, "too large to be checked"),
        ({"items": {"pattern": "^[01]*1[01]{300}x"}}, ["01" * 200_000], "too large to be checked"),
        ({"items": {"anyOf": [{"minimum": at} for at in range(2_000)]}}, [-1] * 5_000, "too large to be checked"),
        ({"allOf": [{"uniqueItems": True}] * 2_000}, list(range(5_000)), "too large to be checked"),
        (FAR, deep(500), "nested too deeply"),
        ({"items": {"pattern": "^((0|1)*)*\\1x$"}}, ["01" * 20] * 5_000, 'fails "pattern"'),
        ({"pattern": "(?=a)\\w{200}"}, "a", "its schema is too expensive"),
        ({"anyOf": [{"enum": ["a", "b"]}] * 200}, "a" * 500_000, "too large to find the place"),
        ({"anyOf": [{"required": ["z"]}] * 200}, {"a": ["x" * 100] * 5_000}, "too large to find the place"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"}
            | {"allOf": [{"contentMediaType": "application/json"}] * 1_000},
            f"[{'1,' * 50_000}1]",
            "too large to be checked",
        ),
        ({"allOf": [{"const": "a"}] * 2_000}, "a" * 500_000, "too large to be checked"),
        ({"pattern": "(?=.*b)a"}, "a" * 100_000, 'fails "pattern"'),
        ({"pattern": "^(?:(?=.*b)a)*c"}, "a" * 100_000 + "b", "too large to be checked"),
        ({"items": {"allOf": [{"multipleOf": 0.01}] * 20}}, [10**4_200] * 100, "too large to be checked"),
        ({"items": {"minimum": 0}}, [10**4_200] * 1_000, "too large to be checked"),
        ({"items": {"allOf": [{"minimum": -(10**300)}] * 200}}, [10**300] * 5_000, "too large to be checked"),
        ({"items": {"allOf": [{"multipleOf": 1e-300}] * 20}}, [1e300] * 100, "too large to be checked"),
    ],
)
def test_checking_an_answer_is_bounded(schema: Schema, value: Any, problem: str) -> None:
    """Each of these took seconds, gigabytes or the process, in native code that nothing can interrupt."""
    found = violation(schema, value)
    assert found is not None
    assert problem in found.problem


def test_the_format_of_an_answer_is_not_checked() -> None:
    """One format compiles the answer as a pattern."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "items": {"format": "regex"}}
    assert violation(schema, ["(", "\\w{1000}"]) is None


def test_a_deep_answer_to_a_long_chain_is_checked_within_the_stack() -> None:
    assert violation(FAR, deep(128)) is None


def test_ordinary_answers_are_checked() -> None:
    kinds = [
        {"type": "object", "properties": {"kind": {"const": at}, "price": {"multipleOf": 0.01}}} for at in range(30)
    ]
    records: Schema = {"type": "array", "items": {"oneOf": kinds, "properties": {"id": {"pattern": "^[a-z]{1,9}$"}}}}
    value = [{"kind": at % 30, "id": "abc", "price": 9.99} for at in range(500)]
    assert violation(records, [{"kind": 31}]) is not None
    records["items"]["oneOf"] = [{**kind, "required": ["kind"]} for kind in kinds]
    assert violation(records, value) is None


def test_a_recursive_answer_may_be_deep() -> None:
    """An object has no items and an array no properties, so a generic value has one branch only."""
    anything: Schema = {
        "$defs": {
            "value": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"$ref": "#/$defs/value"}},
                    {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
                ]
            }
        },
        "$ref": "#/$defs/value",
    }
    value: Any = "x"
    for _ in range(40):
        value = {"a": [value]}
    assert violation(anything, value) is None


# --- on a running system

_LATTICE: Final = reference_lattice(25)
_PATTERNS_OF_LATER: Final = pattern_pile(1_000)
_MESSAGES: Final = [{"role": "user", "content": "x"}]
_UI: Final = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]
ROUTES: Final[dict[str, Callable[[Schema], Schema]]] = {
    "/chat": lambda schema: ask("echo") | {"response_format": format_of(schema)},
    "/chat/stream": lambda schema: ask("echo") | {"tools": [tool_of(schema)]},
    "/v1/chat/completions": lambda schema: {
        "model": "openai/echo",
        "messages": _MESSAGES,
        "tools": [tool_of(schema)],
    },
    "/v1/responses": lambda schema: {
        "model": "openai/echo",
        "input": "x",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}},
    },
    "/v1/messages": lambda schema: {
        "model": "anthropic/echo",
        "max_tokens": 9,
        "messages": _MESSAGES,
        "tools": [{"name": "f", "input_schema": schema}],
    },
    "/v1/messages/count_tokens": lambda schema: {
        "model": "anthropic/echo",
        "messages": _MESSAGES,
        "tools": [{"name": "f", "input_schema": schema}],
    },
    "/api/chat": lambda schema: {
        "id": "c",
        "model": "openai/echo",
        "messages": _UI,
        "response_format": format_of(schema),
    },
}


#: Routes of which the schema is one of a tool.
_OF_TOOLS: Final = ("/chat/stream", "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens")


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_refuses_an_expensive_schema(system: System, route: str) -> None:
    large: Schema = {"const": [[]] * 20_000}
    followed = ((_LATTICE, "in a circle"), (_PATTERNS_OF_LATER, "pattern"), (chain(1_000), "a chain"))
    for schema, problem in ((large, "10000 values"), *(() if route in _OF_TOOLS else followed)):
        answer = await system.http.post(system.url + route, json=ROUTES[route](schema))
        assert answer.status_code in {400, 422}, answer.text
        assert problem in answer.text
