"""What it may cost to hold a value against a schema, found out beforehand.

References make a small schema large: each may stand for two others that stand for two others again, all of them tried
on the same value. A schema is therefore measured with its references written out. One that refers to itself is as
large as its value is deep: where several of its branches go on into the same member, the depth is bounded instead.
"""

import math
from collections.abc import Collection, Iterator
from typing import Any, Final

#: Subschemas, with all references written out.
MOST_VALUES: Final = 10_000
_MOST_CHECKS: Final = 20_000

_CONTAINERS: Final = frozenset(
    {
        "properties",
        "patternProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
    }
)
_LISTS_IN_PLACE: Final = ("allOf", "anyOf", "oneOf")
_IN_PLACE: Final = ("not", "if", "then", "else")


class SchemaCost:
    """``size`` is infinite for a schema that refers to itself without going into the value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._sizes: dict[int, float] = {}
        self._under_way: set[int] = set()
        self.is_recursive = False
        self.size = self._size(schema)

    @property
    def deepest_value(self) -> float:
        """How deeply a value may be nested."""
        if not self.is_recursive:
            return math.inf
        branches = max((self._branches(node, set()) for node in self._nodes(self._schema)), default=1)
        return math.inf if branches < 2 else math.log(_MOST_CHECKS) // math.log(branches)

    def _size(self, node: object) -> float:
        if id(node) in self._under_way:
            self.is_recursive = True
            return 1
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._under_way.add(id(node))
        size = 1 + sum(map(self._size, _members(node)))
        if isinstance(node, dict) and (target := self._target(node)) is not None:
            size += self._size(target)
        self._under_way.discard(id(node))
        self._sizes[id(node)] = size
        return size

    def _branches(self, node: object, seen: set[int]) -> float:
        """How many subschemas that are tried on the same value look into its members."""
        if not isinstance(node, dict):
            return 0
        if id(node) in seen:
            return math.inf  # it refers to itself in place
        seen = seen | {id(node)}
        inner = [member for name in _LISTS_IN_PLACE for member in _members(node.get(name))]
        inner += [node[name] for name in _IN_PLACE if name in node]
        inner += [target] if (target := self._target(node)) is not None else []
        return sum(self._branches(member, seen) for member in inner) + (not node.keys().isdisjoint(_CONTAINERS))

    def _nodes(self, node: object) -> Iterator[object]:
        yield node
        for member in _members(node):
            yield from self._nodes(member)

    def _target(self, node: dict[str, Any]) -> Any:
        """What a reference within the schema points at; None for what has no such, or by a name."""
        pointer = node.get("$ref", node.get("$dynamicRef"))
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            return None
        found: Any = self._schema
        for part in pointer[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return None
        return found


def depth_of(value: object) -> int:
    """0 for what holds nothing."""
    return max((1 + depth_of(member) for member in _members(value)), default=0)


def _members(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
