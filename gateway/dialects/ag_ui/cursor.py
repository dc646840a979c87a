"""Cursors of AG-UI streams: the ``id:`` of every frame, and ``Last-Event-ID``.

``5-17.2`` is the second frame of the event ``5-17``, and ``5-18.end`` the ending of the run. A run may be restarted,
and a client with a cursor of the old answer has to take its text back. No log has that any more, so the cursor
says it: in ``5-17.2~5t``, the client shows a part of the answer that began in epoch 5, and its text is open.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from shared.errors import InvalidLastEventId
from shared.protocol.ids import START, EventId

_SHOWN: Final = r"~([0-9]{1,15})(R?)(t|[sr][1-9][0-9]{0,8})?((!(?:[A-Za-z0-9_.~-]|%[0-9A-F]{2})+)*)"
_FORM: Final = rf"([0-9]{{1,15}})-([0-9]{{1,15}})\.([0-9]{{1,9}}|end)({_SHOWN})?"
#: Pattern of a cursor for the API description.
PATTERN: Final = f"^(|0|-1|{_FORM})$"
_CURSOR: Final = re.compile(rf"{_FORM}\Z")
_FROM_THE_START: Final = frozenset({"", "0", "-1"})
_PROBLEM: Final = "Last-Event-ID: not an event id of an AG-UI stream; send the id of the last event received"


@dataclass(frozen=True, slots=True)
class Shown:
    """Parts of an answer that a client shows. ``base``: the first epoch of the answer. ``has_reasoned``: there is a
    reasoning message. ``part``: the open part: ``t`` for text, ``s1`` for the first span of reasoning, ``r1`` for
    that span and its message, or '' for none. ``calls``: ids of the open tool calls."""

    base: int
    has_reasoned: bool = False
    part: str = ""
    calls: tuple[str, ...] = ()

    def __str__(self) -> str:
        calls = "".join(f"!{quote(call_id, safe='')}" for call_id in self.calls)
        return f"~{self.base}{'R' if self.has_reasoned else ''}{self.part}{calls}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last frame that a client has: number ``frame`` of the event ``at``. ``is_end``: that frame ended the run.
    ``shown``: None if the client shows nothing of an answer."""

    at: EventId
    frame: int
    is_end: bool = False
    shown: Shown | None = None

    @property
    def submitted(self) -> EventId:
        """Event id for a search of the run: never the start, since a cursor starts no run."""
        return self.at if self.at != START else EventId(0, 1)

    def __str__(self) -> str:
        return f"{self.at}.{'end' if self.is_end else self.frame}{self.shown or ''}"


#: The client has RUN_STARTED, and a snapshot may follow.
STARTED: Final = Cursor(START, 1)
#: The client has everything that comes before the first event.
READY: Final = Cursor(START, 2)


def parse_cursor(text: str | None) -> Cursor | None:
    """Parse a client's cursor; None is the start. Raises :class:`InvalidLastEventId`."""
    if text is None or text in _FROM_THE_START:
        return None
    if (match := _CURSOR.match(text)) is None:
        raise InvalidLastEventId(_PROBLEM)
    epoch, seq, frame, tail, base, reasoned, part, calls, _ = match.groups()
    at, is_end = EventId(int(epoch), int(seq)), frame == "end"
    shown = Shown(int(base), bool(reasoned), part or "", _call_ids(calls)) if tail else None
    cursor = Cursor(at, 0 if is_end else int(frame), is_end, shown)
    if not _is_sent(cursor):
        raise InvalidLastEventId(_PROBLEM)
    return cursor


def _is_sent(cursor: Cursor) -> bool:
    """Return whether a gateway sends such a cursor: before the first event there are two frames, and one after an
    answer was taken back; every other frame has an event of the log."""
    if cursor.at.seq == 0:
        return 1 <= cursor.frame <= (1 if cursor.at.epoch else READY.frame)
    return cursor.at.epoch > 0 and (cursor.is_end or cursor.frame > 0)


def _call_ids(text: str) -> tuple[str, ...]:
    """Raises :class:`InvalidLastEventId`."""
    try:
        return tuple(unquote(each, errors="strict") for each in text.split("!")[1:])
    except UnicodeDecodeError:
        raise InvalidLastEventId(_PROBLEM) from None
