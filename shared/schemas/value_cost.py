"""Upper bounds for the cost of validating one value, from its shape and the cost of its schema."""

from collections.abc import Iterable
from typing import Any, Final

from shared.schemas.schema_cost import SchemaCost
from shared.schemas.schema_graph import members, weight

#: Schemas and comparisons that may be tried on all values together. A million of them take up to 0.45 s.
_MAX_CHECKS: Final = 5_000_000
#: Schemas that may be tried on one value because its schema refers to itself.
_MAX_BRANCHES: Final = 20_000
#: Deepest value. With the longest chain of schemas for each level, the validator needs an eighth of its stack.
_MAX_DEPTH: Final = 128
#: Characters times atoms of patterns. A hundred million take up to a second.
_MAX_MATCHED: Final = 100_000_000
#: Nanoseconds that keywords may take to read all characters.
_MAX_READ: Final = 500_000_000
#: Bytes of the values that errors copy.
_MAX_COPIED: Final = 30_000_000
#: Bytes of a value besides its characters.
_VALUE: Final = 32
#: Steps back of all matches together. A million take up to 30 ms.
_MAX_BACKTRACKS: Final = 20_000_000


class ValueCost:
    """Cost of validating ``value`` against the schema that ``schema_cost`` is of."""

    def __init__(self, value: Any, schema_cost: SchemaCost) -> None:
        self._levels: list[int] = []  # number of values at each depth
        self._strings = 0
        self._characters = 0
        self._squares = 0  # sum of the squares of the strings' lengths
        self._measure(value)
        checks = schema_cost.checks()
        self.is_too_deep = self._depth > _MAX_DEPTH or schema_cost.branches**self._depth > _MAX_BRANCHES
        reached = 0 if self.is_too_deep else self._reached(schema_cost.branches)
        most = 0 if self.is_too_deep else schema_cost.branches**self._depth
        self.errors = reached * checks.errors
        self._reread = most * (checks.lookarounds * self._characters + checks.repeated_lookarounds * self._squares)
        self.is_too_large = (
            reached * checks.tried > _MAX_CHECKS
            or max(most * self._characters * checks.atoms, self._reread) > _MAX_MATCHED
            or most * self._characters * checks.reads > _MAX_READ
        )
        self._matches = most * self._strings * checks.matches
        # Each error has a copy of its value, which counts once for each value around it.
        size = self._characters + _VALUE * sum(self._levels)
        self.errors_are_too_large = most * checks.errors * size * len(self._levels) > _MAX_COPIED

    @property
    def backtracks_for_each_match(self) -> int:
        steps, rereads = _MAX_BACKTRACKS // max(1, self._matches), _MAX_MATCHED // max(1, self._reread)
        return int(min(steps, rereads)) or 1

    @property
    def _depth(self) -> int:
        return len(self._levels) - 1

    def _reached(self, branches: int) -> int:
        """Count each value as often as a recursive schema reaches it."""
        return sum(count * branches**depth for depth, count in enumerate(self._levels))

    def _measure(self, value: Any) -> None:
        level: list[Any] = [value]
        while level and self._depth <= _MAX_DEPTH:
            self._levels.append(sum(map(weight, level)))
            self._note_strings(node for node in level if isinstance(node, str))
            for node in level:
                if isinstance(node, dict):
                    self._note_strings(node)
            level = [member for node in level for member in members(node)]

    def _note_strings(self, strings: Iterable[str]) -> None:
        for text in strings:
            self._strings += 1
            self._characters += len(text)
            self._squares += len(text) ** 2
