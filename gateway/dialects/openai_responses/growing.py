"""Items of a response that still receive text."""

import json
import re
from typing import Any, Final, Protocol

from pydantic_core import from_json

from gateway.dialects.openai_responses.offered_tools import ClientTool
from shared.response_items import INPUT, TOOL_SEARCH

Body = dict[str, Any]


class Growing:
    """Item that still receives text. :meth:`join` stores the text at ``member`` of ``part``, which is the item itself
    or one of its parts."""

    def __init__(self, item: Body, part: Body, member: str) -> None:
        self.item = item
        self.part = part
        self._member = member
        self._pieces: list[str] = []  # joined rarely: adding each piece to a string would copy the string each time

    @property
    def kind(self) -> str:
        """Type of the part."""
        return str(self.part["type"])

    def grow(self, text: str) -> None:
        self._pieces.append(text)

    def join(self) -> str:
        """Store and return the text so far."""
        whole = self.part[self._member] = "".join(self._pieces)
        self._pieces = [whole]
        return whole


class GrowingCall(Protocol):
    """Item of a tool call. ``EVENT``: name of its events, ``MEMBER``: the member of the last one; empty for a kind
    that has no events of its own."""

    EVENT: str
    MEMBER: str
    item: Body

    def grow(self, fragment: str) -> str:
        """Take a fragment of the arguments; return the text of the delta."""
        ...

    def finish(self, arguments: str) -> str:
        """Take the whole arguments; return the text of a last delta."""
        ...

    def join(self) -> str:
        """Store the text so far in the item."""
        ...


class FunctionCall:
    """Call of a function. Its deltas are the fragments of its arguments."""

    EVENT = "function_call_arguments"
    MEMBER = "arguments"

    def __init__(self, item: Body) -> None:
        self.item = item
        self._growing = Growing(item, item, self.MEMBER)

    def grow(self, fragment: str) -> str:
        self._growing.grow(fragment)
        return fragment

    def finish(self, _arguments: str) -> str:
        self._growing.join()
        return ""

    def join(self) -> str:
        return self._growing.join()


class CustomCall:
    """Call of a custom tool. Its deltas are the text inside the arguments of the offered function."""

    EVENT = "custom_tool_call_input"
    MEMBER = "input"

    def __init__(self, item: Body) -> None:
        self.item = item
        self._growing = Growing(item, item, self.MEMBER)
        self._decoder = _InputDecoder()

    def grow(self, fragment: str) -> str:
        text = self._decoder.feed(fragment)
        self._growing.grow(text)
        return text

    def finish(self, arguments: str) -> str:
        """Take the input itself; a model may have chosen another argument than the one that it was offered."""
        text, sent = _input_of(arguments), self._growing.join()
        self.item[self.MEMBER] = text
        return text[len(sent) :] if text.startswith(sent) else ""

    def join(self) -> str:
        return self._growing.join()


class SearchCall:
    """Call of the client's search for tools. It has its arguments only when it is complete."""

    EVENT = ""
    MEMBER = "arguments"

    def __init__(self, item: Body) -> None:
        self.item = item

    def grow(self, _fragment: str) -> str:
        return ""

    def finish(self, arguments: str) -> str:
        self.item[self.MEMBER] = from_json(arguments, allow_inf_nan=False)
        return ""

    def join(self) -> str:
        return ""


def members_of(call_id: Any, name: Any, form: ClientTool | None) -> tuple[str, str, Body]:
    """Return the type, the prefix of the id and the further members of a new call's item."""
    if form is None:
        return "function_call", "fc", {"call_id": call_id, "name": name, "arguments": ""}
    named = {"call_id": call_id, "name": form.name}
    if form.namespace is not None:
        named["namespace"] = form.namespace
    match form.kind:
        case "custom":
            return "custom_tool_call", "ctc", {**named, "input": ""}
        case "tool_search":
            return "tool_search_call", "tsc", {"call_id": call_id, "execution": "client", "arguments": {}}
    return "function_call", "fc", {**named, "arguments": ""}


def growing_call(item: Body, form: ClientTool | None) -> GrowingCall:
    kind = form.kind if form is not None else "function"
    return CustomCall(item) if kind == "custom" else SearchCall(item) if kind == TOOL_SEARCH else FunctionCall(item)


#: Start of the arguments, up to the text of the input.
_HEAD: Final = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_LONGEST_HEAD: Final = 256
#: Characters of a JSON string that are complete: a surrogate pair is one.
_COMPLETE: Final = re.compile(
    r'(?:[^"\\]|\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*"
)
_LONGEST_ESCAPE: Final = 12


class _InputDecoder:
    """Decodes the text of the input while its JSON arrives. It stops at anything unexpected; the rest then comes with
    the complete call."""

    def __init__(self) -> None:
        self._held = ""
        self._is_inside = False
        self._is_over = False

    def feed(self, fragment: str) -> str:
        """Return the text that is complete with this fragment."""
        if self._is_over:
            return ""
        json_text = self._held + fragment
        if not self._is_inside:
            head = _HEAD.match(json_text)
            if head is None:
                self._hold(json_text, _LONGEST_HEAD)
                return ""
            self._is_inside, json_text = True, json_text[head.end() :]
        found = _COMPLETE.match(json_text)
        complete = found[0] if found else ""
        self._hold(json_text[len(complete) :], _LONGEST_ESCAPE)
        try:
            return str(json.loads(f'"{complete}"', strict=False))
        except ValueError:
            self._is_over = True
            return ""

    def _hold(self, rest: str, most: int) -> None:
        self._held = rest
        self._is_over = len(rest) > most or (self._is_inside and rest.startswith('"'))


def _input_of(arguments: str) -> str:
    """Return the input of a custom tool. Other arguments than the offered one are its input as they are."""
    match from_json(arguments, allow_inf_nan=False):
        case {"input": str(text)}:
            return text
        case dict(members) if len(members) == 1 and isinstance(text := next(iter(members.values())), str):
            return text
    return arguments
