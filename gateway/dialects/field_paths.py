"""Names of the client's own fields in errors about the canonical request.

A parser marks the parts of the canonical request with their place in the client's; :func:`client_path` then
translates the path that a failed validation names.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

_NONE: Final[Mapping[str, str]] = {}


class Placed(dict[str, Any]):
    """Part of a canonical request. ``path``: its place in the client's. ``names``: the client's names of its members,
    by canonical path below it."""

    def __init__(self, path: str, members: Mapping[str, Any], names: Mapping[str, str] = _NONE) -> None:
        super().__init__(members)
        self.path = path
        self.names = names


def client_path(fields: dict[str, Any], names: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function from a path in the canonical ``fields`` to the client's. ``names``: the client's names of the
    fields themselves."""

    def translate(path: str) -> str:
        node: Any = Placed("", fields, names)
        place, below = node, []
        for step in path.split("."):
            node = _member(node, step)
            below.append(step)
            if isinstance(node, Placed):
                place, below = node, []
        return ".".join(each for each in (place.path, _renamed(below, place.names)) if each)

    return translate


def _member(node: Any, step: str) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    if isinstance(node, list) and step.isdecimal() and int(step) < len(node):
        return node[int(step)]
    return None


def _renamed(steps: list[str], names: Mapping[str, str]) -> str:
    """Replace the longest beginning that has another name."""
    for length in range(len(steps), 0, -1):
        if (name := names.get(".".join(steps[:length]))) is not None:
            return ".".join(each for each in (name, *steps[length:]) if each)
    return ".".join(steps)
