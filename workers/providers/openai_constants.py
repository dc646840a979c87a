"""Members that a server repeats in every chunk, such as the name of its own upstream.

They are passed on when they come to be constant and when they end, not with every chunk: deltas coalesce only if no
:class:`shared.protocol.events.Extra` is between them. The renderer adds them to each chunk in between.
"""

from collections.abc import Mapping
from typing import Any, Final

#: Object (`chunk`, `choice` or `delta`) and name of a member.
Place = tuple[str, str]
Members = dict[str, dict[str, Any]]
#: A member is constant after so many chunks in a row with the same value.
_CHUNKS: Final = 3


class Constants:
    """The constant members of one answer.

    A member of a choice or of a delta that has had two values is none: it may be about its own token. Neither is a
    list there, which clients join, nor a member of a delta without output, which may be the output.
    """

    def __init__(self) -> None:
        self._latest: dict[Place, tuple[Any, int]] = {}  # values of the latest chunk, and in how many they came
        self._varying: set[Place] = set()
        self._constant: dict[Place, Any] = {}

    def take(self, members: Mapping[Place, Any], *, has_output: bool) -> tuple[Members | None, Members]:
        """Take the members of one chunk. Return the constants if they are others than before, and the members that
        are none."""
        if not members and not self._latest:
            return None, {}
        latest: dict[Place, tuple[Any, int]] = {}
        for place, value in members.items():
            before, count = self._latest.get(place, (value, 0))
            if place[0] == "delta" and not has_output:
                continue
            if value == before:
                latest[place] = value, count + 1
            else:
                latest[place] = value, 1
                self._varying.add(place)
        self._latest = latest
        constant = {
            place: value
            for place, (value, count) in latest.items()
            if count >= _CHUNKS and (place[0] == "chunk" or not (place in self._varying or isinstance(value, list)))
        }
        own = _by_object({place: value for place, value in members.items() if place not in constant})
        if constant == self._constant:
            return None, own
        self._constant = constant
        return _by_object(constant), own


def _by_object(members: Mapping[Place, Any]) -> Members:
    made: Members = {}
    for (at, name), value in members.items():
        made.setdefault(at, {})[name] = value
    return made
