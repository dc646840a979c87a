"""Parser of Server-Sent Events that follows the EventSource section of the HTML standard.

It reports more than an ``EventSource`` does: comments, blocks without data, bytes that are not UTF-8.
"""

import codecs
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One block. ``id`` is that of the block itself, None without one; ``last_event_id`` is the cursor of an
    ``EventSource`` after it. A block without data moves the cursor and is not dispatched."""

    type: str
    data: str
    id: str | None
    last_event_id: str
    is_dispatched: bool
    #: Offset of the body behind the block.
    end: int = 0

    @property
    def json(self) -> Any:
        """The data as JSON, None if it is no JSON."""
        try:
            return json.loads(self.data)
        except ValueError:
            return None

    def member(self, name: str) -> Any:
        """Return a member of the data, None if the data is no object or lacks it."""
        data = self.json
        return data.get(name) if isinstance(data, dict) else None


@dataclass(slots=True)
class Parser:
    """Parses the bytes of one connection. What follows the last blank line is never an event."""

    #: Moves at the blank line, not at the ``id:`` before it.
    last_event_id: str = ""
    #: The last valid ``retry:`` in milliseconds.
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    #: What the standard makes a client ignore, although the server meant something: an id with NUL, invalid UTF-8.
    oddities: list[str] = field(default_factory=list)
    _pending: bytearray = field(default_factory=bytearray)
    _offset: int = 0
    _is_first: bool = True
    _after_cr: bool = False
    _data: list[str] = field(default_factory=list)
    _type: str = ""
    _id: str | None = None
    _id_buffer: str = ""
    _has_fields: bool = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        self._pending += data
        events = []
        while (line := self._next_line()) is not None:
            if line:
                self._take(line)
            elif self._has_fields:
                events.append(self._complete())
        return events

    def _next_line(self) -> str | None:
        """Take one line: it ends with LF, CR or CRLF."""
        if self._after_cr and self._pending:
            if self._pending[0] == 0x0A:
                self._drop(1)
            self._after_cr = False
        ends = [at for at in (self._pending.find(b"\n"), self._pending.find(b"\r")) if at >= 0]
        if not ends:
            return None
        end = min(ends)
        raw = bytes(self._pending[:end])
        self._after_cr = self._pending[end] == 0x0D
        self._drop(end + 1)
        if self._is_first:
            self._is_first = False
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.oddities.append(f"invalid UTF-8 before byte {self._offset}")
            return raw.decode(errors="replace")

    def _drop(self, count: int) -> None:
        del self._pending[:count]
        self._offset += count

    def _take(self, line: str) -> None:
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name and colon:
            self.comments.append(value)
            return
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id":
                self._take_id(value)
            case "retry":
                self._take_retry(value)
        self._has_fields = True

    def _take_id(self, value: str) -> None:
        if "\0" in value:
            self.oddities.append(f"id with NUL before byte {self._offset}")
            return
        self._id = self._id_buffer = value

    def _take_retry(self, value: str) -> None:
        if value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        else:
            self.oddities.append(f"retry that is no number before byte {self._offset}")

    @property
    def has_rest(self) -> bool:
        """Return whether data came after the last block. Comments and ``retry:`` need no blank line."""
        return bool(self._pending or self._data)

    def _complete(self) -> Event:
        self.last_event_id = self._id_buffer
        event = Event(
            self._type or "message",
            "\n".join(self._data),
            self._id,
            self.last_event_id,
            is_dispatched=bool(self._data),
            end=self._offset,
        )
        self._data, self._type, self._id, self._has_fields = [], "", None, False
        return event
