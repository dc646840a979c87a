"""Token counts of Responses."""

from collections.abc import Mapping
from typing import Any, Final

from workers.providers.usage_counts import UsageCounts, member

_COUNTS: Final = frozenset({"input_tokens", "output_tokens", "total_tokens"})
_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    "input_tokens_details": frozenset({"cached_tokens", "cache_write_tokens"}),
    "output_tokens_details": frozenset({"reasoning_tokens"}),
}


def count(counts: UsageCounts, usage: object) -> None:
    """Add a usage to the counts of an answer."""
    counts.note(
        input=member(usage, "input_tokens"),
        output=member(usage, "output_tokens"),
        cached=member(usage, "input_tokens_details", "cached_tokens"),
        cache_write=member(usage, "input_tokens_details", "cache_write_tokens"),
        reasoning=member(usage, "output_tokens_details", "reasoning_tokens"),
    )


def further_usage(usage: object) -> dict[str, Any]:
    """Return the members of a usage that are no canonical counts."""
    if not isinstance(usage, Mapping):
        return {}
    made = {name: value for name, value in usage.items() if name not in _COUNTS and name not in _DETAILS}
    for name, known in _DETAILS.items():
        if isinstance(details := usage.get(name), Mapping):
            made[name] = {inner: number for inner, number in details.items() if inner not in known}
    return {name: value for name, value in made.items() if value not in (None, {})}
