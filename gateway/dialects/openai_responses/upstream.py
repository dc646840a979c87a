"""Data of an upstream that speaks Responses too, for the renderer of the same API.

Its texts and calls are canonical events. Events of the family ``responses`` say which items and parts they are in,
and carry the items of the provider's own tools (:class:`shared.protocol.events.Extra`).
"""

import re
from typing import Any, Final

from shared.response_items import item_id

Body = dict[str, Any]
_PREFIX: Final = re.compile(r"[a-z]{1,16}(?=_)")


class UpstreamData:
    """Data that the next frames need. ``opening``: members of the item that begins next; None if the open one goes
    on. ``part``: kind of the part that begins next. ``joint``: text that the next reasoning begins with, although the
    provider has not sent it. ``logprobs``: of the next text. ``calls``: members of calls, by index. ``items``: those
    of the provider's tools, by the provider's number. ``response`` and ``usage``: further members."""

    def __init__(self) -> None:
        self.opening: Body | None = None
        self.part: str | None = None
        self.joint = ""
        self.logprobs: list[Any] = []
        self.calls: dict[int, Body] = {}
        self.items: dict[int, Body] = {}
        self.response: Body = {}
        self.usage: Body = {}

    def begin(self, data: Body) -> None:
        """Take the data of an item or of a part that begins."""
        if "open" in data:
            self.opening = dict(_members(data, "item"))
        part = data.get("part")
        self.part = part if isinstance(part, str) else None
        self.joint = str(data.get("joint", ""))

    def take_opening(self) -> Body:
        """Return the members of the item that begins now."""
        opening, self.opening = self.opening, None
        return opening or {}

    def take_part(self) -> str | None:
        part, self.part = self.part, None
        return part

    def take_joint(self, text: str) -> str:
        """Return a reasoning text without the joint before it."""
        joint, self.joint = self.joint, ""
        return text.removeprefix(joint)

    def take_logprobs(self) -> list[Any]:
        logprobs, self.logprobs = self.logprobs, []
        return logprobs

    def merged(self, usage: Body) -> Body:
        """Return a usage with the provider's further counts."""
        for name, value in self.usage.items():
            before = usage.get(name)
            usage[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
        return usage


def own_item(item: Body, stream_id: str, number: int) -> Body:
    """Return an item of the provider's tools with the gateway's id of it."""
    given = item.get("id")
    found = _PREFIX.match(given) if isinstance(given, str) else None
    return {**item, "id": item_id(found[0] if found else "item", stream_id, number, given)}


def _members(data: Body, name: str) -> Body:
    members = data.get(name)
    return members if isinstance(members, dict) else {}
