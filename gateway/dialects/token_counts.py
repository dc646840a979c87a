"""Token counts that a provider may not report."""

from msgspec import UnsetType


def counted(**counts: int | UnsetType) -> dict[str, int]:
    """Return the counts that were measured. The SDKs' types allow the others to be missing."""
    return {name: count for name, count in counts.items() if not isinstance(count, UnsetType)}
