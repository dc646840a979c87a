"""Paths of a request's fields without a canonical counterpart."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from shared.schemas.original import MOST_PATHS

_LONGEST_NAME: Final = 64


class Specific:
    """Collects the paths, up to the most that a request keeps. ``forced``: path of the choice of a tool that has no
    canonical counterpart."""

    def __init__(self) -> None:
        self.forced: str | None = None
        self.paths: list[str] = []

    def add(self, *path: str | int) -> None:
        """Add one field. ``path``: its keys and indices from the top of the request."""
        if len(self.paths) < MOST_PATHS:
            self.paths.append(".".join(str(part)[:_LONGEST_NAME] for part in path))

    def add_others(self, members: Mapping[str, Any], known: Collection[str], *path: str | int) -> None:
        """Add the members that are neither null nor ``known``. ``path``: of their object."""
        for name, value in members.items():
            if value is not None and name not in known:
                self.add(*path, name)
