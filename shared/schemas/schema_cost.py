"""Upper bound for the cost of validating a value against a schema.

References make a small schema large: each may stand for two others, which again stand for two others, and all are
tried on the same value. A schema is therefore measured with its references written out. A schema that refers to
itself grows with the depth of the value. If several of its branches continue into the same member, the depth of the
value is limited instead.
"""

import math
from collections.abc import Collection, Iterator
from typing import Any, Final

#: Largest number of subschemas, with all references written out.
MAX_VALUES: Final = 10_000
_MAX_CHECKS: Final = 20_000

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
    """Cost of one schema. ``size`` counts subschemas, with references written out."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._sizes: dict[int, float] = {}
        self._under_way: set[int] = set()
        self.is_recursive = False
        self.size = self._size(schema)

    @property
    def deepest_value(self) -> float:
        """Largest allowed depth of a value."""
        if not self.is_recursive:
            return math.inf
        branches = max((self._branches(node, set()) for node in self._nodes(self._schema)), default=1)
        return math.inf if branches < 2 else math.log(_MAX_CHECKS) // math.log(branches)

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
        """Count the subschemas that are tried on the same value and continue into its members."""
        if not isinstance(node, dict):
            return 0
        if id(node) in seen:
            return math.inf  # it refers to itself without descending into the value
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
        """Return the target of a reference within the schema; None without one, or for a reference by name."""
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
    """Return the nesting depth; 0 for a value without members."""
    return max((1 + depth_of(member) for member in _members(value)), default=0)


def _members(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
