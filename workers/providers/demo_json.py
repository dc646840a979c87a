"""Values that follow a JSON schema, for the demo: the same schema, the same value.

What a schema may ask of a value is followed as far as real schemas go: type, properties, items, enum, const,
bounds, the first of anyOf or oneOf, references within the schema. Not pattern, allOf and the like: such an answer ends
as ``schema_violation``, as a model's would.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Final

_Schema = dict[str, Any]

#: A schema may ask for more than there is memory, or for itself without an end.
_MOST_VALUES: Final = 1000
_DEEPEST: Final = 32
_LONGEST_TEXT: Final = 10_000
#: From here on only what the schema insists on: so what may contain itself comes to an end.
_SPARING_FROM: Final = 4
_ITEMS: Final = 3
_CONTAINERS: Final = {"object", "array"}


def instance_of(schema: _Schema, texts: Iterator[str]) -> Any:
    """``texts``: an endless supply for its strings, in the order in which they are met."""
    return _Maker(schema, texts).make(schema, 0)


class _Maker:
    def __init__(self, root: _Schema, texts: Iterator[str]) -> None:
        self._root = root
        self._texts = texts
        self._numbers = itertools.count(1)
        self._left = _MOST_VALUES

    def make(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        schema = self._resolved(schema, depth)
        if self._left < 0 or depth > _DEEPEST:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        match _kind_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number" as kind:
                return _within_bounds(next(self._numbers), schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._text(schema)

    def _resolved(self, schema: Any, depth: int) -> _Schema:
        """Without references and choices."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, dict):  # true: anything will do
                return {}
            choices = schema.get("anyOf") or schema.get("oneOf")
            if "$ref" in schema:
                schema = self._target(schema["$ref"])
            elif choices:
                schema = _simplest(choices) if depth >= _SPARING_FROM else choices[0]
            else:
                return schema
        return {}

    def _target(self, reference: str) -> Any:
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        return target

    def _object(self, schema: _Schema, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = required if depth >= _SPARING_FROM else dict.fromkeys([*properties, *required])
        return {name: self.make(properties.get(name), depth + 1) for name in names if self._left > 0}

    def _array(self, schema: _Schema, depth: int) -> list[Any]:
        wanted = 0 if depth >= _SPARING_FROM else min(_ITEMS, schema.get("maxItems", _ITEMS))
        count = max(wanted, schema.get("minItems", 0))
        items = itertools.takewhile(lambda _: self._left > 0, itertools.repeat(schema.get("items"), count))
        return [self.make(item, depth + 1) for item in items]

    def _text(self, schema: _Schema) -> str:
        text = next(self._texts)
        least = min(schema.get("minLength", 0), _LONGEST_TEXT)
        text += " " * bool(least) + "." * (least - len(text) - 1)
        return text[: schema.get("maxLength")]


def _kind_of(schema: _Schema) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return str(kinds[0])
    if kinds is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kinds)


def _simplest(choices: list[Any]) -> Any:
    """The first that contains nothing."""
    plain = (c for c in choices if isinstance(c, dict) and "$ref" not in c and _kind_of(c) not in _CONTAINERS)
    return next(plain, choices[0])


def _within_bounds(number: float, schema: _Schema, *, whole: bool) -> float:
    step = 1 if whole else 0.5
    least = schema.get("minimum", -math.inf)
    most = schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        least = max(least, schema["exclusiveMinimum"] + step)
    if "exclusiveMaximum" in schema:
        most = min(most, schema["exclusiveMaximum"] - step)
    if whole:
        least, most = _rounded(least, math.ceil), _rounded(most, math.floor)
    return min(max(number, least), most)
