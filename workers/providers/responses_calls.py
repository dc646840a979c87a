"""Calls of the client's tools in one answer of Responses, as canonical tool calls.

A custom tool has a text instead of arguments. It is the argument ``input`` of the canonical call, as the gateway
offers custom tools to providers of other families.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.response_items import INPUT, TOOL_SEARCH, function_name
from workers.providers.base import Delta
from workers.providers.framing import as_text
from workers.providers.responses_events import CALLS
from workers.providers.tool_calls import ToolCalls, arguments_text, text_or_none

_CARRIED: Final = frozenset({"type", "call_id", "name", "namespace", "arguments", "input", "status", "execution"})


def is_call(item: Mapping[str, Any]) -> bool:
    """Return True for a call that the client answers as a function's."""
    kind = item.get("type")
    return kind in CALLS or (kind == "tool_search_call" and item.get("execution") == "client")


class Calls:
    """Calls of one answer."""

    def __init__(self, calls: ToolCalls) -> None:
        self._calls = calls
        self._names = calls.names
        self._begun: set[int] = set()  # items whose arguments have begun
        self._members: dict[int, dict[str, Any]] = {}
        self._ended: set[int] = set()

    def add(self, key: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        """Take an item that begins."""
        self._begun.discard(key)
        self._ended.discard(key)
        self._members.pop(key, None)
        yield from self._fragment(key, item, "")

    def arguments(self, key: int, fragment: object) -> Iterator[Delta]:
        """Take a fragment of a function's arguments."""
        if text := arguments_text(fragment):
            self._begun.add(key)
            yield from self._calls.fragment(key, id=None, name=None, arguments=text)

    def input(self, key: int, fragment: object) -> Iterator[Delta]:
        """Take a fragment of a custom tool's text."""
        if text := as_text(fragment):
            opening = "" if key in self._begun else f'{{"{INPUT}": "'
            self._begun.add(key)
            inside = json.dumps(text, ensure_ascii=False)[1:-1]
            yield from self._calls.fragment(key, id=None, name=None, arguments=opening + inside)

    def finish(self, key: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        """Take the whole item."""
        if key in self._ended:
            return
        self._ended.add(key)
        yield from self._fragment(key, item, self._rest(key, item))
        yield from self._calls.end_block(key)

    def _rest(self, key: int, item: Mapping[str, Any]) -> str:
        """Return the arguments, or their end, as far as they have not come."""
        if item.get("type") == "custom_tool_call":
            return '"}' if key in self._begun else json.dumps({INPUT: as_text(item.get("input"))}, ensure_ascii=False)
        return "" if key in self._begun else arguments_text(item.get("arguments"))

    def _fragment(self, key: int, item: Mapping[str, Any], arguments: str) -> Iterator[Delta]:
        name, namespace = text_or_none(item.get("name")), text_or_none(item.get("namespace"))
        if item.get("type") == "tool_search_call":
            name = TOOL_SEARCH
        if name is not None:
            name = self._names.of(function_name(namespace, self._names.original(name)))
        further = {name: value for name, value in item.items() if name not in _CARRIED and value is not None}
        known = self._members.setdefault(key, {})
        members = {name: value for name, value in further.items() if known.get(name) != value}
        known |= members
        call_id = text_or_none(item.get("call_id")) or text_or_none(item.get("id"))
        yield from self._calls.fragment(key, id=call_id, name=name, arguments=arguments, members=members)
