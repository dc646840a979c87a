"""Deterministic values for a JSON schema, for the demo provider.

Supported keywords: type, properties, required, items, enum, const, bounds, references within the schema, and the
first of several choices. Other keywords (pattern, allOf, dependencies) are ignored: the value may violate them.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

_Schema = dict[str, Any]

#: A schema may require more values than fit into memory, or may contain itself.
_MAX_VALUES: Final = 1000
_MAX_DEPTH: Final = 32
_MAX_TEXT: Final = 10_000
#: Characters of the whole value: a schema may repeat a large constant or a long name.
_MAX_CHARACTERS: Final = 1_000_000
#: Alternatives that are searched for a plain one.
_MAX_CHOICES: Final = 100
#: Keywords that references and choices with others beside them may copy.
_MAX_COPIES: Final = 1_000_000
#: From this depth on only required values are made, so that a recursive schema comes to an end.
_SPARING_FROM: Final = 4
_ITEMS: Final = 3
_INDIRECT: Final = ("$ref", "anyOf", "oneOf")


def instance_of(schema: _Schema, texts: Iterator[str]) -> Any:
    """Return a value for ``schema``. ``texts``: an endless supply of strings, used in order."""
    return _Maker(schema, texts).make(schema, 0)


class _Maker:
    """Builds one value, with limits on its size and depth."""

    def __init__(self, root: _Schema, texts: Iterator[str]) -> None:
        self._root = root
        self._texts = texts
        self._numbers = itertools.count(1)
        self._left = _MAX_VALUES
        self._copies = _MAX_COPIES
        self._characters = _MAX_CHARACTERS  # that are left
        self._sizes: dict[int, int] = {}  # characters of a constant, by its identity
        self._by_kind: dict[str, Callable[[_Schema, int], Any]] = {
            "object": self._object,
            "array": self._array,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda schema, depth: True,
            "null": lambda schema, depth: None,
        }

    def make(self, raw: Any, depth: int) -> Any:
        self._left -= 1
        schema = self._resolve(raw, depth)
        if self._left < 0 or depth > _MAX_DEPTH:
            return None
        if "const" in schema:
            return self._constant(schema["const"])
        if schema.get("enum"):
            return self._constant(schema["enum"][0])
        return self._by_kind.get(_kind_of(schema), self._text)(schema, depth)

    def _constant(self, value: Any) -> Any:
        size = self._sizes.get(id(value))
        if size is None:
            size = self._sizes[id(value)] = len(json.dumps(value))
        return value if self._has_room(size) else None

    def _has_room(self, characters: int) -> bool:
        self._characters -= characters
        return self._characters >= 0

    def _resolve(self, raw: Any, depth: int) -> _Schema:
        """Follow $ref, anyOf and oneOf until a plain schema."""
        schema = _as_schema(raw)
        for _ in range(_MAX_DEPTH):
            key = next((key for key in _INDIRECT if key in schema), None)
            if key is None:
                return schema
            chosen = self._target(schema[key]) if key == "$ref" else _choice(schema[key], sparing=_is_sparing(depth))
            schema = self._merge(schema, key, _as_schema(chosen))
        return {}

    def _merge(self, schema: _Schema, key: str, chosen: _Schema) -> _Schema:
        """Return ``schema`` without ``key``, and with the keywords of ``chosen``."""
        if len(schema) == 1:
            return chosen
        self._copies -= len(schema) + len(chosen)
        if self._copies < 0:
            return {}
        return {name: value for name, value in schema.items() if name != key} | chosen

    def _target(self, reference: str) -> Any:
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
        return target

    def _object(self, schema: _Schema, depth: int) -> dict[str, Any]:
        properties, names = schema.get("properties", {}), schema.get("required", [])
        if not _is_sparing(depth):
            names = dict.fromkeys([*properties, *names])
        return {
            name: self.make(properties.get(name), depth + 1)
            for name in names
            if self._left > 0 and self._has_room(len(name))
        }

    def _array(self, schema: _Schema, depth: int) -> list[Any]:
        wanted = 0 if _is_sparing(depth) else min(_ITEMS, schema.get("maxItems", _ITEMS))
        made: list[Any] = []
        while len(made) < max(wanted, schema.get("minItems", 0)) and self._left > 0:
            made.append(self.make(schema.get("items"), depth + 1))
        return made

    def _integer(self, schema: _Schema, depth: int) -> float:
        least, most = _bounds(schema, step=1)
        return min(max(next(self._numbers), _whole(least, math.ceil)), _whole(most, math.floor))

    def _number(self, schema: _Schema, depth: int) -> float:
        least, most = _bounds(schema, step=0.5)
        return min(max(next(self._numbers), least), most)

    def _text(self, schema: _Schema, depth: int) -> str:
        least = min(int(schema.get("minLength", 0)), _MAX_TEXT)
        most = int(schema.get("maxLength", _MAX_TEXT))
        text = next(self._texts).ljust(least, ".")[:most]
        return text if self._has_room(len(text)) else ""


def _as_schema(raw: Any) -> _Schema:
    """Return ``raw`` if it is a schema. ``true`` and a missing schema allow any value."""
    return raw if isinstance(raw, dict) else {}


def _is_sparing(depth: int) -> bool:
    return depth >= _SPARING_FROM


def _choice(choices: list[Any], *, sparing: bool) -> Any:
    if not sparing:
        return choices[0]
    few = choices[:_MAX_CHOICES]
    plain = (c for c in few if "$ref" not in _as_schema(c) and _kind_of(_as_schema(c)) not in {"object", "array"})
    return next(plain, choices[0])


def _kind_of(schema: _Schema) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return str(kinds[0])
    if kinds is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kinds)


def _bounds(schema: _Schema, *, step: float) -> tuple[float, float]:
    """Return the bounds. ``step``: the distance from an exclusive bound."""
    least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + step)
    most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - step)
    return least, most


def _whole(bound: float, rounded: Callable[[float], int]) -> float:
    return rounded(bound) if math.isfinite(bound) else bound
