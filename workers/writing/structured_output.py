"""Incremental parser of JSON answers: emits each value as soon as it is complete, and the whole at the end.

The parser reads each character once, so the cost is linear however small the deltas are. A model may write chatter
or a code fence around the JSON: text before the first brace and after the last is skipped.
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

#: Braces in chatter look like JSON at first. A parse error within so many characters means chatter: the search for a
#: brace goes on behind the first one. A later error, or too many of them, means broken JSON.
_CHATTER_CHARACTERS: Final = 1024
_MAX_BEGINNINGS: Final = 64
_MAX_DEPTH: Final = 128
#: An event for each of a million numbers would take many times their size; after so many only the whole is emitted.
_MAX_VALUES: Final = 20_000
#: Every value is sent with its path, so a long name is repeated for each member below it. After so many characters of
#: names only the whole is emitted.
_MAX_NAMES: Final = 1_000_000
_OPENING: Final = {"object": "{", "array": "["}
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})
#: Positions at which text may be cut for the parser: it does not report where the JSON ended, and it re-reads an
#: unfinished string from its beginning with every piece.
_CUT: Final = re.compile(r'["}\]]')
_IN_STRING: Final = re.compile(r'\\.|"', re.DOTALL)
#: Errors of the parser: bad JSON, a number with thousands of digits, an exponent out of range.
_FAULTS: Final = (ijson.JSONError, SystemError, ArithmeticError, ValueError)


class JsonAnswer:
    """One answer that must follow ``schema``. Values are emitted down to ``depth``; 1 means the top-level members."""

    def __init__(self, schema: dict[str, Any], *, depth: int) -> None:
        self._schema = schema
        self._depth = depth
        kind = schema.get("type")
        self._scalar: list[str] | None = [] if isinstance(kind, str) and kind in _SCALARS else None
        self._opening = re.compile(f"[{re.escape(_OPENING.get(str(kind), '{['))}]")
        self._parser: _Parser | None = None
        self._beginnings = 0
        self._candidate = ""  # text passed to the parser, while it may still be chatter
        self._broken = False
        self._outside = 0
        self._half = ""  # the first half of a surrogate pair

    def take(self, deltas: Sequence[Delta]) -> list[Json]:
        """Return the values that ``deltas`` completed."""
        text = self._half + "".join([delta.text for delta in deltas if isinstance(delta, TextDelta)])
        self._half = text[-1] if ends_in_half(text) else ""
        text = well_formed(text.removesuffix(self._half))
        values: list[Json] = []
        if self._scalar is not None:
            self._scalar.append(text)
            return values
        while text and not self._broken:
            if self._parser is None:
                text = self._find_beginning(text)
            elif self._parser.is_whole:
                self._outside += _visible(text)
                break
            else:
                text = self._parse(self._parser, text, values)
        return values

    def finish(self) -> Json:
        """Return the whole value. Raises :class:`GenerationError` ``schema_violation``, which names the path."""
        value = self._whole()
        found = violation(self._schema, value)
        if found is not None:
            raise _violation(found.problem, found.summary)
        return Json([], value, outside=self._outside)

    def _whole(self) -> Any:
        if self._scalar is not None:
            try:
                return msgspec.json.decode("".join(self._scalar).strip())
            except (msgspec.DecodeError, RecursionError):
                raise _violation("$ is not JSON") from None
        if self._parser is None or not self._parser.is_whole:
            raise _violation("$ is not JSON" if self._broken else "$ is an incomplete JSON value")
        return self._parser.value

    def _find_beginning(self, text: str) -> str:
        """Return the text from the possible beginning of the JSON on; the text before it is skipped."""
        found = self._opening.search(text)
        before = text if found is None else text[: found.start()]
        self._outside += _visible(before)
        if found is None:
            return ""
        self._beginnings += 1
        self._broken = self._beginnings > _MAX_BEGINNINGS
        self._candidate = ""
        self._parser = _Parser(self._depth)
        return text[found.start() :]

    def _parse(self, parser: "_Parser", text: str, values: list[Json]) -> str:
        """Parse ``text``. Returns the rest: the text behind the JSON, or text to search again after chatter."""
        at = 0
        while at < len(text) and not parser.is_whole:
            end = parser.next_cut(text, at)
            room = _CHATTER_CHARACTERS - len(self._candidate)
            if room > 0:  # an exact limit, so that the result does not depend on how the text was cut
                end = min(end, at + room)
                self._candidate += text[at:end]
            try:
                parser.feed(text[at:end], values, at_once=room > 0)
            except _FAULTS:
                if parser.has_emitted or room <= 0:
                    self._broken = True
                    return ""
                self._parser = None
                self._outside += 1
                return self._candidate[1:] + text[end:]
            at = end
        return text[at:]


class _Parser:
    """Builds the value from the parser's events. ``value`` is complete once ``is_whole``."""

    def __init__(self, depth: int) -> None:
        self.value: Any = None
        self.is_whole = False
        self.emitted = 0
        self._names = 0  # characters of the paths emitted
        self._depth = depth
        self._events = ijson.sendable_list()
        self._source = ijson.basic_parse_coro(self._events)
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []  # the key being filled, for each open container
        self._unfinished: list[str] = []  # pieces of an unfinished string
        self._in_string = False
        self._escaping = False  # the last character was a backslash

    @property
    def has_emitted(self) -> bool:
        return self.emitted > 0

    def next_cut(self, text: str, at: int) -> int:
        """Return the end of the next piece: the end of a string; outside a string a position before a quote, the
        quote itself, or a closing bracket."""
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

    def feed(self, text: str, values: list[Json], *, at_once: bool) -> None:
        """Parse a piece that ends at or before :meth:`next_cut`. Raises one of ``_FAULTS``."""
        self._note_string(text)
        if self._in_string and not at_once:
            self._unfinished.append(text)
            return
        text, self._unfinished = "".join([*self._unfinished, text]), []
        try:
            self._source.send(text.encode())
        except SystemError:
            # A number with more digits than Python accepts; ijson 3.6 then leaves an event that crashes its reader.
            self._events.pop()
            raise
        finally:
            self._take_events(values)

    def _note_string(self, text: str) -> None:
        """Update ``_in_string`` and ``_escaping`` for this piece."""
        if not self._in_string:
            self._in_string = text == '"'
            return
        at = int(self._escaping)
        self._escaping = False
        while (found := _IN_STRING.search(text, at)) is not None:
            at = found.end()
            self._in_string = found.group() != '"'
        self._escaping = self._in_string and text.endswith("\\") and at < len(text)

    def _take_events(self, values: list[Json]) -> None:
        events, self._events[:] = list(self._events), []
        for kind, value in events:
            match kind:
                case "map_key":
                    self._keys[-1] = value
                case "start_map" | "start_array":
                    if len(self._open) >= _MAX_DEPTH:
                        raise ValueError("nested too deeply")
                    self._open.append({} if kind == "start_map" else [])
                    self._keys.append("")
                case "end_map" | "end_array":
                    self._keys.pop()
                    self._place(self._open.pop(), values)
                case "number" if not isinstance(value, int):
                    self._place(_finite(value), values)
                case _:
                    self._place(value, values)

    def _place(self, value: Any, values: list[Json]) -> None:
        if not self._open:
            self.value, self.is_whole = value, True
            return
        if len(self._open) <= self._depth and self.emitted < _MAX_VALUES:
            path = self._path()
            self._names += sum(len(name) for name in path if isinstance(name, str))
            if self._names > _MAX_NAMES:
                self.emitted = _MAX_VALUES
            else:
                self.emitted += 1
                values.append(Json(path, value))
        parent = self._open[-1]
        if isinstance(parent, list):
            parent.append(value)
        else:
            parent[self._keys[-1]] = value

    def _path(self) -> list[str | int]:
        """Return the path of the value that is about to be placed."""
        pairs = zip(self._open, self._keys, strict=True)
        return [len(container) if isinstance(container, list) else key for container, key in pairs]


def _visible(text: str) -> int:
    """Return the number of characters that are not white space."""
    return sum(map(len, text.split()))


def _finite(number: Decimal) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def _violation(problem: str, summary: str | None = None) -> GenerationError:
    """Build the error. ``summary``: the problem without names from the answer, if ``problem`` has some."""
    text = "the answer does not follow its schema: {}"
    return GenerationError(
        "schema_violation", text.format(problem), retryable=True, summary=text.format(summary or problem)
    )
