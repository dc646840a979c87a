"""Batches: calls of a script that takes many streams, as one command for each route."""

from collections.abc import Sequence
from typing import Any, Final

from shared.broker.declarations import Argument, Call, Script
from shared.broker.pipeline_connection import Command

#: Limit of one command, so that it does not hold up Redis for long. Each event is an argument.
_MOST_ARGUMENTS: Final = 4096


class Batch:
    """Calls of one script, by their places among all calls."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._places: list[int] = []
        self._keys: list[str] = []
        self._arguments: list[Argument] = []

    def add(self, place: int, call: Call[Any]) -> bool:
        """Add a call. Return False if there is no room for another."""
        self._places.append(place)
        self._keys += call.keys
        self._arguments += call.arguments
        return len(self._places) < self._script.most_streams and len(self._arguments) < _MOST_ARGUMENTS

    def command(self) -> Command:
        return "EVALSHA", self._script.sha, len(self._keys), *self._keys, *self._arguments

    def put_replies(self, reply: Any, raw: list[Any]) -> None:
        """Put the reply to each call into its place. An error of the whole command is the reply to each."""
        is_of_all = isinstance(reply, Exception) or not self._script.takes_many
        each = [reply] * len(self._places) if is_of_all else reply
        for place, one in zip(self._places, each, strict=True):
            raw[place] = one


def batches_of(calls: Sequence[Call[Any]]) -> list[Batch]:
    """Return the calls in batches, in order of their first calls."""
    batches: list[Batch] = []
    open_batches: dict[tuple[str, str], Batch] = {}
    for place, call in enumerate(calls):
        key = call.script.name, call.route
        batch = open_batches.get(key)
        if batch is None:
            batch = open_batches[key] = Batch(call.script)
            batches.append(batch)
        if not batch.add(place, call):
            del open_batches[key]
    return batches
