"""Paths of a request's fields without a canonical counterpart."""

import re
from collections.abc import Collection
from typing import Any, Final

from shared.schemas.original import MOST_PATHS

#: Longest name of a field in a path, since a client may send any name.
_LONGEST_NAME: Final = 64
#: Paths are sent in a header.
_UNPRINTABLE: Final = re.compile(r"[^A-Za-z0-9_-]")


class SpecificPaths(list[str]):
    """List of paths. Further ones than :data:`MOST_PATHS` are not added. ``forced``: path of the choice of a tool
    that has no canonical counterpart."""

    forced: str | None = None

    def note(self, path: str) -> None:
        if len(self) < MOST_PATHS:
            self.append(path)

    def note_others(self, path: str, members: dict[str, Any], known: Collection[str]) -> None:
        """Add the members of an object that are not ``known`` and not null. ``path``: that of the object, with a
        final dot if it has one."""
        for name, value in members.items():
            if name not in known and value is not None:
                self.note(f"{path}{_UNPRINTABLE.sub('?', name[:_LONGEST_NAME])}")
