"""Upper bounds for the cost of validating a value against a schema.

References make a small schema large: each may stand for two others, which again stand for two others, and all are
tried on the same value. The bounds are computed once for each node of the graph, from the nodes that it leads to.
A schema that refers to itself multiplies with the depth of the value instead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from shared.schemas.request_budget import RequestBudget
from shared.schemas.schema_graph import Members, Node, SchemaGraph

#: Most schemas and comparisons that may be tried on one value.
MAX_CHECKS_OF_VALUE: Final = 10_000
#: Longest chain of schemas that are tried on the same value, each within the one before or referred to by it.
MAX_CHAIN: Final = 64
_ENDLESS: Final = MAX_CHECKS_OF_VALUE + 1
Edges = Callable[[Node], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Checks:
    """Bounds for one value: schemas and comparisons tried on it, errors until its violation is found, matches of
    patterns, sums for these patterns, and nanoseconds for each of its characters."""

    tried: int
    errors: int
    matches: int
    atoms: int
    lookarounds: int
    repeated_lookarounds: int
    reads: int


class SchemaCost:
    """Cost of one schema. Raises ValueError for a schema that refers to itself without going deeper into the value,
    or in too many branches.

    ``branches``: schemas that are tried on a member for each one that is tried on the value, if the schema is
    recursive; else 1.
    """

    def __init__(self, schema: dict[str, Any], budget: RequestBudget) -> None:
        self._graph = SchemaGraph(schema, budget)
        self._budget = budget
        self._nodes = self._graph.nodes
        self._inner_first, cyclic = self._order(lambda node: node.in_place)
        if cyclic:
            raise ValueError("refers to itself in a circle without going deeper into the value; remove a reference")
        self._limit_chains()
        self._members_first, self.is_recursive = self._order(lambda node: [*node.in_place, *node.below])
        self.branches = self._branches() if self.is_recursive else 1
        if max(self._most_for_one_value(lambda node: node.own), self.branches) > MAX_CHECKS_OF_VALUE:
            raise ValueError(
                f"has more than {MAX_CHECKS_OF_VALUE} schemas for one value, with its references written out; "
                "remove some references, or some of allOf, anyOf and oneOf"
            )

    def _branches(self) -> int:
        """Count schemas with members, for objects and for arrays: no value is both."""
        kinds: tuple[Callable[[Node], int], ...] = (
            lambda node: node.objects is not None,
            lambda node: node.arrays is not None,
        )
        return max(max(self._in_place(kind).values()) for kind in kinds) or 1

    def checks(self) -> Checks:
        own_of: tuple[Callable[[Node], int], ...] = (
            lambda node: node.own,
            # Only alternatives collect errors; without them the first one ends the search.
            lambda node: node.own + node.own_errors if self._graph.has_alternatives else 0,
            lambda node: node.patterns,
            lambda node: node.atoms,
            lambda node: node.lookarounds,
            lambda node: node.repeated_lookarounds,
            lambda node: node.reads,
        )
        return Checks(*map(self._most_for_one_value, own_of))

    def _order(self, edges: Edges) -> tuple[list[int], bool]:
        """Return the nodes, each after those that it leads to, and the presence of a circle."""
        ordered: list[int] = []
        under_way: set[int] = set()
        done: set[int] = set()
        cyclic = False
        for start in self._nodes:
            stack = [(start, False)]
            while stack:
                node, left = stack.pop()
                self._budget.steps += 1
                if left:
                    under_way.discard(node)
                    done.add(node)
                    ordered.append(node)
                elif node in under_way:
                    cyclic = True
                elif node not in done:
                    under_way.add(node)
                    stack.append((node, True))
                    stack += [(inner, False) for inner in edges(self._nodes[node]) if inner not in done]
        return ordered, cyclic

    def _limit_chains(self) -> None:
        lengths: dict[int, int] = {}
        for at in self._inner_first:
            lengths[at] = 1 + max((lengths[inner] for inner in self._nodes[at].in_place), default=0)
            if lengths[at] > MAX_CHAIN:
                raise ValueError(f"more than {MAX_CHAIN} schemas in a chain of references; shorten it")

    def _in_place(self, own: Callable[[Node], int]) -> dict[int, int]:
        """Sum ``own`` over all schemas that are tried on the value of a node."""
        sums: dict[int, int] = {}
        for at in self._inner_first:
            node = self._nodes[at]
            total = own(node) + sum([sums[inner] for inner in node.in_place]) if node.in_place else own(node)
            sums[at] = _capped(node.factor * total)
        return sums

    def _most_for_one_value(self, own: Callable[[Node], int]) -> int:
        """Return the largest sum for any value. For a recursive schema: for each schema that reaches the value."""
        sums = self._in_place(own)
        if self.is_recursive:
            return max(sums.values())
        most = dict(sums)
        for_member = dict.fromkeys(sums, 0)
        for at in self._members_first:
            node = self._nodes[at]
            if node.in_place or node.below:
                member = max(_for_member(node.objects, most), _for_member(node.arrays, most))
                member += sum([for_member[inner] for inner in node.in_place])
                for_member[at] = _capped(node.factor * member)
                most[at] = max(sums[at], for_member[at])
        return most[self._graph.root]


def _for_member(schemas: Members | None, most: dict[int, int]) -> int:
    if schemas is None:
        return 0
    return max([most[at] for at in schemas.one_of], default=0) + sum([most[at] for at in schemas.all_of])


def _capped(number: int) -> int:
    """Return the number, or one over every limit: a product of branches may have thousands of digits."""
    return min(number, _ENDLESS * 100)
