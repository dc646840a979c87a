"""Streams that have ended, as the archive keeps them, and the conditions of searches in it."""

from dataclasses import dataclass, field
from typing import Any, Final

from shared.protocol.ledger import LedgerEntry

#: The end of Python's calendar, in ms since 1970.
LATEST_MS: Final = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class ArchivedStream:
    """One stream, never sealed: the archive seals content itself. Times are ms since 1970.

    ``principal`` owns it. ``view`` is the body of ``GET /chat/{stream_id}`` (:func:`answer_view`), ``request`` the
    request as its state has it, ``fields`` further fields of the state that a dialect needs to render the answer
    (``response``, ``follow_up``, ``shown``), and ``lineage`` if ``has_cursors``. ``events`` is the log: as it was,
    with its cursors, if ``has_cursors``; else joined to as few events as give the same answer. ``end`` is the cursor
    of its last event. ``text`` is the answer's, for searches; the archive stores None if the server seals content.
    """

    stream_id: str
    principal: str
    chat_id: str | None
    status: str
    model: str
    provider: str
    created: int
    started: int | None
    ended: int
    view: dict[str, Any]
    request: bytes
    fields: dict[str, str]
    events: list[bytes]
    has_cursors: bool
    end: str
    text: str | None
    ledger: list[LedgerEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ListedStream:
    """An entry of a list of archived streams. Times are ms since 1970. ``title``: of its chat."""

    stream_id: str
    chat_id: str | None
    title: str
    status: str
    provider: str
    model: str
    finish_reason: str | None
    metadata: dict[str, Any]
    created: int
    ended: int


@dataclass(frozen=True, slots=True)
class ArchivedChat:
    """A chat of archived streams. ``last``: its newest stream, ``streams``: their number, ``created``: of the oldest,
    in ms since 1970."""

    last: ListedStream
    streams: int
    created: int


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions of a search; None: any. ``model`` is a model's name, or ``provider/model``. Times are ms since 1970;
    ``to`` is the first moment after. ``text``: a part of the answer, in any case."""

    text: str | None = None
    chat_id: str | None = None
    model: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


#: Position in a list, as ``next_page`` has it: time of creation and stream id.
Position = tuple[int, str]
