"""Chunks of Chat Completions that differ from an earlier one only in one text.

Nearly all chunks of an answer do. Their other bytes are compared instead of decoded, so that nothing in them can be
lost: a chunk with a new member, or with another value, is no such chunk.
"""

import re
from functools import partial
from typing import Any, Final

import msgspec

from workers.providers.openai_chunks import Choice, Chunk, Delta, Function, ToolCall

#: Members of a chunk whose value is random, against readers of an encrypted connection: OpenAI's and Mistral's name.
PADDING: Final = frozenset({"obfuscation", "p"})
_PADDING_AT_END: Final = re.compile(rb',\s*"(?:obfuscation|p)"\s*:\s*"(?=[A-Za-z0-9]+"}\Z)')
_STRING: Final = rb'\s*:\s*("(?:[^"\\]|\\.)*")'
#: Members that carry the answer, with the value of each.
_PLACES: Final = {
    name: re.compile(rb'(?<!\\)"%b"' % name.encode() + _STRING)
    for name in ("content", "reasoning_content", "reasoning", "arguments")
}
#: Members of a choice beside its delta that are read.
_FURTHER: Final = ("message", "finish_reason", "usage", "error", "logprobs")
_text_decoder: Final = msgspec.json.Decoder(str)


class Template:
    """A chunk without its text. ``choice``: the decoded chunk's, which gets the text of each further chunk."""

    def __init__(self, head: bytes, tail: bytes, padding: bytes, choice: Choice, owner: Any, name: str) -> None:
        self.choice = choice
        self.is_content = name == "content"
        self.is_used = False
        self._head = head  # with the quotation mark before the text
        self._tail = tail  # from the one after it
        self._begin, self._end = len(head) - 1, 1 - len(tail)  # of the text with its quotation marks
        self._padding = padding
        self._owner = owner
        self._name = name

    def text_of(self, piece: bytes) -> str | None:
        """Return the text of a chunk that differs in nothing else; None for any other chunk."""
        if not piece.startswith(self._head):
            return None
        if self._padding:
            piece, _, value = piece.rpartition(self._padding)
            if not value.endswith(b'"}') or not value[:-2].isalnum():
                return None
        if not piece.endswith(self._tail):
            return None
        try:
            text = _text_decoder.decode(piece[self._begin : self._end])
        except (msgspec.DecodeError, UnicodeError):  # more than one string: the chunk has another form
            return None
        self.is_used = True
        return text

    def choice_with(self, text: str) -> Choice:
        setattr(self._owner, self._name, text)
        return self.choice


def template_of(chunk: Chunk, piece: bytes) -> Template | None:
    """Return the template of a chunk that has one text and nothing else to read; None for any other chunk."""
    choices = chunk.choices or ()
    if len(choices) != 1 or chunk.usage or chunk.timings or chunk.error:
        return None
    (choice,) = choices
    if choice.delta is None or any(map(partial(getattr, choice), _FURTHER)):
        return None
    if (place := _only_text(choice.delta)) is None:
        return None
    owner, name = place
    padding = found.group() if (found := _PADDING_AT_END.search(piece)) else b""
    core = piece.rpartition(padding)[0] if padding else piece
    matches = list(_PLACES[name].finditer(core))
    if len(matches) != 1 or core.count(b'"%b"' % name.encode()) != 1:
        return None
    start, end = matches[0].span(1)
    template = Template(core[: start + 1], core[end - 1 :], padding, choice, owner, name)
    if template.text_of(piece) != getattr(owner, name):
        return None
    template.is_used = False
    return template


def _only_text(delta: Delta) -> tuple[Any, str] | None:
    """Return the object and the member with the only text of a delta; None if there is none, or more than it."""
    given = {name: value for name in delta.__struct_fields__ if (value := getattr(delta, name))}
    if len(given) != 1:
        return None
    ((name, value),) = given.items()
    if name == "tool_calls" and len(value) == 1:
        call: ToolCall = value[0]
        function = call.function
        is_plain = function is not None and call == ToolCall(call.index, call.id, function, call.type)
        return (function, "arguments") if is_plain and isinstance(_arguments(function), str) else None
    return (delta, name) if name in _PLACES and isinstance(value, str) else None


def _arguments(function: Function | None) -> object:
    return function.arguments if function is not None and function.arguments else None
