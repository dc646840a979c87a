"""A JSON schema as a graph: each schema is a node, and its keywords and references are edges.

An edge is *in place* if its target is tried on the same value, *below* if it is tried on a member of it.
Everything works without recursion and visits each edge a fixed number of times, because clients choose the shape.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from shared.schemas.pattern_cost import PatternCost, pattern_cost
from shared.schemas.request_budget import RequestBudget

MAX_DEPTH: Final = 64
#: Values of one schema.
MAX_VALUES: Final = 10_000

_SINGLE: Final = frozenset({"not", "if", "then", "else"})
_ALTERNATIVES: Final = frozenset({"anyOf", "oneOf"})
_IN_PLACE: Final = _SINGLE | _ALTERNATIVES | {"allOf", "dependentSchemas", "dependencies"}
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
#: Schemas that are tried only if a reference leads to them, or never.
_ASIDE: Final = frozenset({"$defs", "definitions"})
#: Keywords whose schemas may all apply to the same member.
_OF_OBJECTS: Final = frozenset({"additionalProperties", "unevaluatedProperties", "propertyNames"})
_OF_ARRAYS: Final = frozenset({"additionalItems", "unevaluatedItems", "contains", "items", "prefixItems"})
_BELOW: Final = _OF_OBJECTS | _OF_ARRAYS | {"patternProperties"}
#: The validator tries all schemas in place once more, to find out which members they evaluate.
_AGAIN: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
_UNEVALUATED_FACTOR: Final = 3
_OWN: Final = frozenset({"enum", "const", "required", "type", "dependentRequired", "multipleOf"})
#: Comparisons that take as long as a division by a fraction: the validator does it exactly.
_FRACTION: Final = 60
_TINY: Final = 1e-9
#: Keywords that read the characters of a string, with nanoseconds for each. ``contentMediaType`` parses it as JSON.
_READERS: Final = {
    "contentMediaType": 50,
    **dict.fromkeys(("contentEncoding", "enum", "const", "minLength", "maxLength", "propertyNames"), 1),
}
#: Bits of a number that take as long as a small number.
_BITS: Final = 64
_ANCHORS: Final = ("$anchor", "$dynamicAnchor")

Schema = dict[str, Any]


@dataclass(slots=True)
class Members:
    """Schemas for the members of an object or an array: at most one of ``one_of`` applies to a member, and each of
    ``all_of`` may."""

    one_of: list[int] = field(default_factory=list)
    all_of: list[int] = field(default_factory=list)


class Node:
    """One schema. ``own`` counts comparisons with the value itself, ``own_errors`` the errors they may cause,
    ``reads`` the nanoseconds for each character. The others are sums for the patterns, as in ``PatternCost``."""

    __slots__ = (
        *("arrays", "atoms", "below", "factor", "in_place", "objects", "own", "own_errors", "patterns", "reads"),
        *("lookarounds", "repeated_lookarounds"),
    )

    def __init__(self) -> None:
        self.in_place: list[int] = []
        self.below: list[int] = []
        self.objects: Members | None = None
        self.arrays: Members | None = None
        self.factor = self.own = self.own_errors = 1
        self.patterns = self.atoms = self.reads = self.lookarounds = self.repeated_lookarounds = 0

    def of_objects(self) -> Members:
        self.objects = self.objects or Members()
        return self.objects

    def of_arrays(self) -> Members:
        self.arrays = self.arrays or Members()
        return self.arrays


def count_values(schema: Schema, budget: RequestBudget) -> None:
    """Count the values of a schema. Raises ValueError if there are too many, or if they are nested too deeply."""
    for _ in _levels(schema, budget):
        pass


def _levels(schema: Schema, budget: RequestBudget) -> Iterator[list[Any]]:
    """Yield the values of each depth, counted."""
    level: list[Any] = [schema]
    values = 0
    for _ in range(MAX_DEPTH + 1):
        budget.add_values(len(level))
        values += len(level)
        if values > MAX_VALUES:
            raise ValueError(f"has more than {MAX_VALUES} values; shorten it")
        yield level
        level = [member for node in level for member in members(node)]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} levels deep; flatten it")


class SchemaGraph:
    """The nodes of one schema, by the identity of their dictionaries.

    Raises ValueError for a schema that is too large or too deep, and for references that leave it or lead nowhere.
    """

    def __init__(self, schema: Schema, budget: RequestBudget) -> None:
        self._schema = schema
        self._budget = budget
        self._anchors: dict[str, Schema | None] = {}
        self._patterns: dict[str, PatternCost] = {}
        self._id_keywords = {"$id"}
        self.nodes: dict[int, Node] = {}
        self.root = id(schema)
        self.has_alternatives = False
        self._survey()
        self._unread: list[Schema] = [schema]
        while self._unread:
            node = self._unread.pop()
            if id(node) not in self.nodes:
                self.nodes[id(node)] = self._read(node)

    def _survey(self) -> None:
        """Count the values, limit the depth and find the anchors, before anything is followed."""
        for level in _levels(self._schema, self._budget):
            for node in level:
                if isinstance(node, dict):
                    self._note_names(node)

    def _note_names(self, node: Schema) -> None:
        if "draft-04" in str(node.get("$schema"))[:100]:
            self._id_keywords = {"$id", "id"}
        for name in {name for keyword in _ANCHORS if isinstance(name := node.get(keyword), str)}:
            self._anchors[name] = None if name in self._anchors else node  # None: defined twice

    def _read(self, schema: Schema) -> Node:
        """Return the node of a schema, and note the schemas that it leads to."""
        if schema is not self._schema and any(isinstance(schema.get(name), str) for name in self._id_keywords):
            raise ValueError("$id: only allowed at the top of a schema; remove it, and refer by #/$defs/name")
        node = Node()
        for keyword, value in schema.items():
            self._budget.steps += 1
            node.reads += _READERS.get(keyword, 0)
            self._read_keyword(node, keyword, value)
        return node

    def _read_keyword(self, node: Node, keyword: str, value: Any) -> None:
        if keyword == "properties":
            self._go_below(node, node.of_objects().one_of, members(value))
        elif keyword in _IN_PLACE or keyword in _REFERENCES:
            self._read_in_place(node, keyword, value)
        elif keyword in _BELOW:
            self._read_below(node, keyword, value)
        elif keyword in _ASIDE:
            self._edges(members(value))
        elif keyword == "contentSchema":
            self._edges([value])
        elif keyword == "pattern" and isinstance(value, str):
            self._add_pattern(node, value)
        elif keyword in _OWN:
            _add_own(node, keyword, value)

    def _read_in_place(self, node: Node, keyword: str, value: Any) -> None:
        self.has_alternatives = self.has_alternatives or keyword in _ALTERNATIVES
        if keyword in _REFERENCES:
            targets = [self._target(keyword, value)] if isinstance(value, str) else []
        elif keyword in _SINGLE:
            targets = [value]
        else:
            targets = list(members(value))
        node.own += len(targets) - 1 if targets else 0
        node.in_place += self._edges(targets)

    def _read_below(self, node: Node, keyword: str, value: Any) -> None:
        if keyword in _AGAIN:
            node.factor = _UNEVALUATED_FACTOR
        if keyword == "patternProperties":
            for pattern in value if isinstance(value, dict) else ():
                self._add_pattern(node, pattern)
            self._go_below(node, node.of_objects().all_of, members(value))
        elif keyword in _OF_OBJECTS:
            self._go_below(node, node.of_objects().all_of, [value])
        elif isinstance(value, list):
            self._go_below(node, node.of_arrays().one_of, value)
        else:
            self._go_below(node, node.of_arrays().all_of, [value])

    def _go_below(self, node: Node, edges: list[int], schemas: Collection[Any]) -> None:
        found = self._edges(schemas)
        edges += found
        node.below += found

    def _add_pattern(self, node: Node, pattern: str) -> None:
        cost = self._patterns.get(pattern)
        if cost is None:  # the validator compiles equal patterns once
            cost = self._patterns[pattern] = pattern_cost(pattern)
            self._budget.add_pattern(cost.size)
        node.patterns += 1
        node.atoms += cost.atoms
        node.lookarounds += cost.lookarounds
        node.repeated_lookarounds += cost.repeated_lookarounds

    def _edges(self, schemas: Collection[Any]) -> list[int]:
        self._budget.steps += len(schemas)
        edges = [schema for schema in schemas if isinstance(schema, dict)]
        self._unread += edges
        return [id(schema) for schema in edges]

    def _target(self, keyword: str, reference: str) -> Any:
        """Return the target of a reference. It may be no schema; the validator then refuses it."""
        self._budget.add_reference()
        if not reference.startswith("#"):
            raise ValueError(f"{keyword}: leads out of the schema; use a reference that begins with #")
        fragment = reference[1:]
        if fragment == "" or fragment.startswith("/"):
            return self._at(keyword, fragment)
        found = self._anchors.get(unquote(fragment))
        if found is None:
            raise ValueError(f"{keyword}: no anchor, or two, with this name; use a path such as #/$defs/name")
        return found

    def _at(self, keyword: str, pointer: str) -> Any:
        found: Any = self._schema
        parts = pointer.split("/", MAX_DEPTH + 2)[1:]
        self._budget.steps += len(parts)
        if "%2f" in pointer.lower():  # readers differ on which comes first, the division or the decoding
            raise ValueError(f"{keyword}: has an encoded slash; rename its target")
        for part in parts:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and len(name) < 6 and int(name) < len(found):
                found = found[int(name)]
            else:
                raise ValueError(f"{keyword}: leads nowhere; define its target under $defs")
        return found


def _add_own(node: Node, keyword: str, value: Any) -> None:
    """Count the comparisons of a keyword without schemas."""
    if keyword in {"required", "type"}:
        node.own_errors += _size_of(value)
    elif keyword == "multipleOf":
        node.own += _FRACTION * (6 if value < _TINY else 1) if isinstance(value, float) else weight(value)
    elif keyword != "enum" or not all(isinstance(member, str) for member in members(value)):
        node.own += _size_of(value)  # strings alone are looked up in a table


def _size_of(value: Any) -> int:
    """Return the number of values in ``value``, itself included; large numbers count as many."""
    size, level = 0, [value]
    while level:
        size += sum(map(weight, level))
        level = [member for node in level for member in members(node)]
    return size


def members(value: Any) -> Collection[Any]:
    """Return the members of an object or an array."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def weight(value: Any) -> int:
    """Return the number of small values that take as long to compare or to divide. A whole number of more than 64
    bits is read from its digits, in the square of their number."""
    if isinstance(value, int):
        words = value.bit_length() // _BITS
        return 1 + words + words * words // 2
    return 1 + abs(math.frexp(value)[1]) // _BITS if isinstance(value, float) else 1
