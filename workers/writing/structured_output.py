"""A JSON answer, read while it comes: each value as soon as it is whole, and all of it at the end.

The parser is pushed what comes and never looks back, so the cost is linear however small the deltas are. Around the
JSON a model may chatter or put a fence: what stands before the first brace, and after the last, is passed over.
"""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import ijson
import msgspec

from shared.errors import GenerationError
from shared.protocol.events import Json
from shared.schemas.json_schema import violation
from workers.providers.base import Delta, TextDelta
from workers.writing.surrogates import ends_in_half, well_formed

#: Braces in chatter look like JSON at first. What goes wrong within so many characters was chatter, and what follows
#: its first brace is searched for another; what goes wrong later, or too often, is broken JSON.
_CHATTER: Final = 1024
_MOST_BEGINNINGS: Final = 64
_DEEPEST: Final = 128
#: An event for each of a million numbers would take many times their own size; after so many only the whole is told.
_MOST_TOLD: Final = 20_000
_OPENING: Final = {"object": "{", "array": "["}
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})
#: Where text may be cut for the parser: it does not say where the whole ended, and reads an unfinished string from
#: its beginning at every piece.
_CUT: Final = re.compile(r'["}\]]')
_IN_STRING: Final = re.compile(r'\\.|"', re.DOTALL)
#: What the parser raises: for bad JSON, for a number with thousands of digits, for an exponent beyond all bounds.
_FAULTS: Final = (ijson.JSONError, SystemError, ArithmeticError, ValueError)


class JsonAnswer:
    """One answer that is to follow ``schema``. Values are told down to ``depth``: 1 for the members of the whole."""

    def __init__(self, schema: dict[str, Any], *, depth: int) -> None:
        self._schema = schema
        self._depth = depth
        kind = schema.get("type")
        self._scalar: list[str] | None = [] if isinstance(kind, str) and kind in _SCALARS else None
        self._opening = re.compile(f"[{re.escape(_OPENING.get(str(kind), '{['))}]")
        self._parser: _Parser | None = None
        self._beginnings = 0
        self._candidate = ""  # what the parser was given, as long as it may have been chatter
        self._broken = False
        self._outside = 0
        self._half = ""  # of a character

    def take(self, deltas: Sequence[Delta]) -> list[Json]:
        """The values that ``deltas`` completed."""
        text = self._half + "".join([delta.text for delta in deltas if isinstance(delta, TextDelta)])
        self._half = text[-1] if ends_in_half(text) else ""
        text = well_formed(text.removesuffix(self._half))
        told: list[Json] = []
        if self._scalar is not None:
            self._scalar.append(text)
            return told
        while text and not self._broken:
            if self._parser is None:
                text = self._find_beginning(text)
            elif self._parser.is_whole:
                self._outside += _visible(text)
                break
            else:
                text = self._parse(self._parser, text, told)
        return told

    def finish(self) -> Json:
        """All of it. Raises :class:`GenerationError`, ``schema_violation``, which names the path."""
        value = self._whole()
        problem = violation(self._schema, value)
        if problem is not None:
            raise _violation(problem)
        return Json([], value, outside=self._outside)

    def _whole(self) -> Any:
        if self._scalar is not None:
            try:
                return msgspec.json.decode("".join(self._scalar).strip())
            except msgspec.DecodeError:
                raise _violation("$ is not JSON") from None
        if self._parser is None or not self._parser.is_whole:
            raise _violation("$ is not JSON" if self._broken else "$ is no whole JSON value")
        return self._parser.value

    def _find_beginning(self, text: str) -> str:
        """The text from where JSON may begin; all before it is passed over."""
        found = self._opening.search(text)
        before = text if found is None else text[: found.start()]
        self._outside += _visible(before)
        if found is None:
            return ""
        self._beginnings += 1
        self._broken = self._beginnings > _MOST_BEGINNINGS
        self._candidate = ""
        self._parser = _Parser(self._depth)
        return text[found.start() :]

    def _parse(self, parser: "_Parser", text: str, told: list[Json]) -> str:
        """What is left of the text: what follows the JSON, or what has to be looked at anew."""
        at = 0
        while at < len(text) and not parser.is_whole:
            end = parser.next_cut(text, at)
            room = _CHATTER - len(self._candidate)
            if room > 0:  # to the very character, so that what is chatter does not depend on how the text was cut
                end = min(end, at + room)
                self._candidate += text[at:end]
            try:
                parser.feed(text[at:end], told, at_once=room > 0)
            except _FAULTS:
                if parser.has_told or room <= 0:
                    self._broken = True
                    return ""
                self._parser = None
                self._outside += 1
                return self._candidate[1:] + text[end:]
            at = end
        return text[at:]


class _Parser:
    """Puts the parser's events together again. ``value`` is complete once ``is_whole``."""

    def __init__(self, depth: int) -> None:
        self.value: Any = None
        self.is_whole = False
        self.told = 0
        self._depth = depth
        self._events = ijson.sendable_list()
        self._source = ijson.basic_parse_coro(self._events)
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []  # of each open container, the key that is being filled
        self._held: list[str] = []  # of a string that is not finished
        self._in_string = False
        self._escaping = False  # its last character was half of an escape

    @property
    def has_told(self) -> bool:
        return self.told > 0

    def next_cut(self, text: str, at: int) -> int:
        """How far the next piece goes: to the end of a string; outside of one up to a quote, the quote itself, or a
        closing bracket."""
        if not self._in_string:
            found = _CUT.search(text, at)
            if found is None:
                return len(text)
            return found.start() if found.group() == '"' and found.start() > at else found.end()
        at += self._escaping
        while (found := _IN_STRING.search(text, at)) is not None:
            at = found.end()
            if found.group() == '"':
                return at
        return len(text)

    def feed(self, text: str, told: list[Json], *, at_once: bool) -> None:
        """A piece, no longer than :meth:`next_cut` says. Raises one of ``_FAULTS``."""
        self._note_string(text)
        if self._in_string and not at_once:
            self._held.append(text)
            return
        text, self._held = "".join([*self._held, text]), []
        try:
            self._source.send(text.encode())
        except SystemError:
            # A number of more digits than Python takes; ijson 3.6 then leaves an event that crashes who looks at it.
            self._events.pop()
            raise
        finally:
            self._take_events(told)

    def _note_string(self, text: str) -> None:
        """Whether we are within a string after this piece."""
        if not self._in_string:
            self._in_string = text == '"'
            return
        at = int(self._escaping)
        self._escaping = False
        while (found := _IN_STRING.search(text, at)) is not None:
            at = found.end()
            self._in_string = found.group() != '"'
        self._escaping = self._in_string and text.endswith("\\") and at < len(text)

    def _take_events(self, told: list[Json]) -> None:
        events, self._events[:] = list(self._events), []
        for kind, value in events:
            match kind:
                case "map_key":
                    self._keys[-1] = value
                case "start_map" | "start_array":
                    if len(self._open) >= _DEEPEST:
                        raise ValueError("nested too deeply")
                    self._open.append({} if kind == "start_map" else [])
                    self._keys.append("")
                case "end_map" | "end_array":
                    self._keys.pop()
                    self._place(self._open.pop(), told)
                case "number" if not isinstance(value, int):
                    self._place(_finite(value), told)
                case _:
                    self._place(value, told)

    def _place(self, value: Any, told: list[Json]) -> None:
        if not self._open:
            self.value, self.is_whole = value, True
            return
        if len(self._open) <= self._depth and self.told < _MOST_TOLD:
            self.told += 1
            told.append(Json(self._path(), value))
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        else:
            parent[self._keys[-1]] = value

    def _path(self) -> list[str | int]:
        """Of the value that is about to be placed."""
        pairs = zip(self._open, self._keys, strict=True)
        return [len(container) if isinstance(container, list) else key for container, key in pairs]


def _visible(text: str) -> int:
    """Characters that are no white space."""
    return sum(map(len, text.split()))


def _finite(number: Decimal) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("a number beyond all bounds")
    return value


def _violation(problem: str) -> GenerationError:
    return GenerationError("schema_violation", f"the answer does not follow its schema: {problem}", retryable=True)
