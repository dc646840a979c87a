"""Token counts of one answer, merged from all the chunks that carry some."""

import math
from collections.abc import Mapping
from typing import Final

from msgspec import UNSET, UnsetType

from shared.protocol.events import PartialUsage, Usage
from workers.providers.base import Delta

_MOST_DIGITS: Final = 15
_LIMIT: Final = 10**_MOST_DIGITS
_NOTHING: Final = PartialUsage()


class UsageCounts:
    """Counts never fall: each keeps the greatest value seen. A value that is no count (null, negative, text) changes
    nothing. ``input`` and ``output`` are as the provider counts them; :meth:`usage` adds the parts that it counts
    apart."""

    def __init__(self) -> None:
        self.input: int | None = None
        self.output: int | None = None
        self.cached: int | None = None
        self.cache_write: int | None = None
        self.reasoning: int | None = None

    def note(
        self,
        *,
        input: object = None,
        output: object = None,
        cached: object = None,
        cache_write: object = None,
        reasoning: object = None,
    ) -> None:
        """Merge the counts of one chunk."""
        self.input = _greater(self.input, input)
        self.output = _greater(self.output, output)
        self.cached = _greater(self.cached, cached)
        self.cache_write = _greater(self.cache_write, cache_write)
        self.reasoning = _greater(self.reasoning, reasoning)

    def usage(self, *, cached_apart: bool = False) -> Usage | PartialUsage | None:
        """Return the counts so far; None if there are none. ``cached_apart``: the provider's input does not include
        cached tokens; ours always does. More cached tokens than input mean the same, and so do more reasoning tokens
        than output."""
        whole_input, whole_output = self._whole_input(cached_apart=cached_apart), self._whole_output()
        parts = _or_unset(self.cached), _or_unset(self.cache_write), _or_unset(self.reasoning)
        if whole_input is None or whole_output is None:
            partial = PartialUsage(_or_unset(whole_input), _or_unset(whole_output), *parts)
            return None if partial == _NOTHING else partial
        cached, cache_write, reasoning = parts
        return Usage(
            whole_input,
            whole_output,
            cached_tokens=cached,
            cache_write_tokens=cache_write,
            reasoning_tokens=reasoning,
        )

    def input_so_far(self, *, cached_apart: bool = False) -> PartialUsage | None:
        """Return the counts of the input before the first output; None if there are none. Some servers send 0 until
        the end."""
        if not (whole_input := self._whole_input(cached_apart=cached_apart)):
            return None
        cached, cache_write = _or_unset(self.cached), _or_unset(self.cache_write)
        return PartialUsage(whole_input, cached_tokens=cached, cache_write_tokens=cache_write)

    def _whole_input(self, *, cached_apart: bool) -> int | None:
        if self.input is None:
            return None
        cached = (self.cached or 0) + (self.cache_write or 0)
        return self.input + cached if cached_apart or cached > self.input else self.input

    def _whole_output(self) -> int | None:
        reasoning = self.reasoning or 0
        return self.output + reasoning if self.output is not None and reasoning > self.output else self.output


class FirstDeltas(list[Delta]):
    """The first deltas of an answer. ``input_counts``: as far as the provider reported them before."""

    def __init__(self, deltas: list[Delta], input_counts: PartialUsage | None) -> None:
        super().__init__(deltas)
        self.input_counts = input_counts


def member(of: object, *path: str) -> object:
    """The value at ``path`` within nested objects; None if a step of it is missing or is no object."""
    for name in path:
        if not isinstance(of, Mapping):
            return None
        of = of.get(name)
    return of


def whole_number(value: object) -> int | None:
    """The number, also from text or with a fraction of zero; None for anything else."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value)


def _greater(known: int | None, value: object) -> int | None:
    if value is None:
        return known
    number = whole_number(value)
    return known if number is None or not 0 <= number < _LIMIT else max(known or 0, number)


def _or_unset(count: int | None) -> int | UnsetType:
    return UNSET if count is None else count
