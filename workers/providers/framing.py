"""Splits response bodies into server-sent events or lines, read by read.

The SDKs do the same one event at a time, for 15 µs each; a read often brings several events (bench/NOTES.md).
"""

import json
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from workers.providers.errors import TooLargeError

_PREFIX: Final = b"data:"
_BOM: Final = b"\xef\xbb\xbf"
#: Limit of one event or line. The largest that a model sends is a tool call with a file in it.
MAX_PIECE_BYTES: Final = 8 * 1024 * 1024
#: Limit of the lines of one event, and of the lines of a body that is JSON: each is an object in memory.
_MOST_LINES: Final = 65_536
#: Members that contain the model's own JSON.
_PAYLOAD: Final = frozenset({"arguments", "input"})

T = TypeVar("T")


class ErrorEvent(bytes):
    """Data of an event named ``error``. The data itself does not always repeat that."""


class CutOffError(ValueError):
    """The end of the body cut off a piece."""


class CutOff(bytes):
    """A piece that the end of the body cut off, or that merely lacks its line break."""


class Cutter(Protocol):
    """Cuts one body into pieces, whatever its reads are."""

    def feed(self, read: bytes) -> Sequence[bytes]:
        """Return the pieces that a read completes. Raises ValueError."""
        ...

    def end(self) -> Sequence[bytes]:
        """Return the pieces that the end of the body completes. Raises ValueError."""
        ...


class LineCutter:
    """Cutter of lines without blank ones. Text after the last line break is a line too, as :class:`CutOff`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._has_begun = False

    def feed(self, read: bytes) -> Sequence[bytes]:
        rest = self._rest
        _check_size(rest)
        rest += read
        if not self._has_begun:
            if len(rest) < len(_BOM) and _BOM.startswith(rest):
                return ()
            self._has_begun = True
            if rest.startswith(_BOM):
                del rest[: len(_BOM)]
        if b"\n" not in read:
            _check_size(rest)
            return ()
        *lines, last = bytes(rest).split(b"\n")
        rest[:] = last
        return [line for line in lines if line.strip()]

    def end(self) -> Sequence[bytes]:
        return [CutOff(self._rest)] if self._rest.strip() else ()


class EventCutter:
    """Cutter of the ``data`` of server-sent events, as the WHATWG standard splits them: a byte order mark is removed,
    lines end with LF, CRLF or CR, comments and other fields are dropped.

    Two deviations from the standard. An event that the end of the body cuts off counts too, as :class:`CutOff`,
    because some servers omit the last blank line. A body that begins with a brace is JSON instead of events: it is
    one piece at its end, or one a line if it is one object a line. The cost is linear, even for one event in many
    reads.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._is_json: bool | None = None  # unknown until the first character

    def feed(self, read: bytes) -> Sequence[bytes]:
        rest = self._rest
        if self._after_cr or b"\r" in read:
            read = self._with_lf(read)
        if rest or self._is_json is None:
            _check_size(rest)
            searched = max(0, len(rest) - 1)
            rest += read
            if self._is_json is None:
                self._is_json = _begins_json(rest)
            if self._is_json is not False or rest.find(b"\n\n", searched) < 0:
                _check_size(rest)
                return ()
            read = bytes(rest)
            rest.clear()
        if read.find(b"\n\n") == len(read) - 2 >= 0:  # one whole event
            data = _data(read[:-2])
            return (data,) if data else ()
        *blocks, last = read.split(b"\n\n")
        rest += last
        if not blocks:
            _check_size(rest)
        return [data for block in blocks if (data := _data(block))]

    def end(self) -> Sequence[bytes]:
        if self._is_json:
            return _json_pieces(bytes(self._rest.strip()))
        data = _data(bytes(self._rest))
        if not data:
            return ()
        return [data if isinstance(data, ErrorEvent) else CutOff(data)]

    def _with_lf(self, read: bytes) -> bytes:
        """Return a read with LF for each end of a line. CRLF may be in two reads."""
        if not read:
            return read
        text = read.removeprefix(b"\n") if self._after_cr else read
        self._after_cr = read.endswith(b"\r")
        return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _begins_json(text: bytearray) -> bool | None:
    """Remove a byte order mark; None while the first character has not come."""
    if len(text) < len(_BOM) and _BOM.startswith(text):
        return None
    if text.startswith(_BOM):
        del text[: len(_BOM)]
    first = text.lstrip()[:1]
    return bytes(first) in {b"{", b"["} if first else None


def _json_pieces(body: bytes) -> list[bytes]:
    """Return the pieces of a body that is JSON. Raises ValueError for too many: each is an object in memory."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        if body.count(b"\n") > _MOST_LINES:
            raise ValueError("too many lines") from None
        lines = [line for line in body.split(b"\n") if line.strip()]
        return [*lines[:-1], CutOff(lines[-1])]
    return [body]


def _check_size(rest: bytearray) -> None:
    """Raises ValueError, and frees the memory: the error's traceback would keep it."""
    if len(rest) > MAX_PIECE_BYTES:
        rest.clear()
        raise TooLargeError("an event", MAX_PIECE_BYTES)


def _data(block: bytes) -> bytes:
    if b"\n" not in block and block.startswith(_PREFIX):
        return block[len(_PREFIX) :].strip()
    data: list[bytes] = []
    is_error = False
    if block.count(b"\n") > _MOST_LINES:
        raise ValueError("too many lines")
    for line in block.split(b"\n"):
        if line.startswith(_PREFIX):
            data.append(line[len(_PREFIX) :].strip())
        elif line.startswith(b"event:"):
            is_error = line[len(b"event:") :].strip() == b"error"
        elif line.startswith(b"error:"):  # llama.cpp until late 2025: a field of its own instead of `data`
            is_error = True
            data.append(line[len(b"error:") :].strip())
    joined = b"\n".join(data)
    return ErrorEvent(joined or b"null") if is_error else joined


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode one piece. Raises ValueError, and :class:`CutOffError` for a piece that the end of the body cut off.

    Some things are let through that strict JSON or the decoder's type do not have: invalid UTF-8, replaced as in the
    WHATWG standard; half of a surrogate pair (``workers/writing/surrogates.py`` joins the halves); and members of any
    type that contain nothing, such as ``"tool_calls": false``.
    """
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError):
        pass
    try:
        loose = json.loads(data.decode(errors="replace"))
    except ValueError:
        if isinstance(data, CutOff):
            raise CutOffError from None
        raise ValueError("not JSON") from None  # the decoder's own error would hold the data
    try:
        return msgspec.convert(loose, decoder.type)
    except msgspec.ValidationError:
        return msgspec.convert(_without_nothing(loose), decoder.type)


def _without_nothing(value: Any) -> Any:
    """Remove members that contain nothing, except from the model's own JSON."""
    if isinstance(value, list):
        return [_without_nothing(each) for each in value if each is not None]
    if not isinstance(value, dict):
        return value
    return {
        name: member if name in _PAYLOAD else _without_nothing(member)
        for name, member in value.items()
        if member or (isinstance(member, int) and member is not False)
    }


def as_text(value: object) -> str:
    """Return the text of a member that carries the answer. Raises ValueError for anything else but nothing: passing
    it over would lose text."""
    if isinstance(value, str):
        return value
    if value:
        raise ValueError("not a text")
    return ""


def loose_json(data: bytes) -> object:
    """The value of a JSON text, or the text itself if it is not JSON."""
    text = data.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text
