"""The expected `json` events of an answer."""

from typing import Any


def pieces_of(value: Any, depth: int, path: tuple[str | int, ...] = ()) -> list[tuple[list[str | int], Any]]:
    """Return path and value of each member down to ``depth``, in the order in which they become whole."""
    if len(path) > depth:
        return []
    inner: list[tuple[list[str | int], Any]] = []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        inner += pieces_of(member, depth, (*path, key))
    return inner + ([(list(path), value)] if path else [])
