"""Reader of an answer that a server of Responses stores: it notes the place of each read, over all connections."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from shared.errors import ProviderError
from workers.providers.base import Delta, Sink, StoredDeltas
from workers.providers.framing import ErrorEvent, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.responses_events import numbered_decoder
from workers.providers.responses_places import LostPlace, Place
from workers.providers.responses_reader import ResponsesReader
from workers.providers.responses_spoken import Spoken

_RUNNING: Final = frozenset({"queued", "in_progress"})


class Interrupted(Exception):
    """The connection has ended before the answer. ``failure``: the error, if no other connection continues it."""

    def __init__(self, failure: ProviderError) -> None:
        super().__init__()
        self.failure = failure


class StillRunning(Exception):
    """The server has sent the response as far as it is, instead of its events."""


class StoredReader:
    """Reader of one stored answer (:class:`workers.providers.reading.AnswerReader`). ``inner``: of its events.
    ``until``: the number of the event after which it pauses, to replay the answer up to there."""

    def __init__(self, inner: ResponsesReader, call: ProviderCall, place: Place, until: int | None = None) -> None:
        self.place = place
        self._inner = inner
        self._call = call
        self._spoken = Spoken()
        self._until = until
        self._is_paused = False
        self._is_done = False  # this connection
        self._has_ended = False
        self._is_announced = until is not None

    @property
    def is_whole(self) -> bool:
        return self._is_paused or self._is_done or self._inner.is_whole

    @property
    def can_end(self) -> bool:
        return self._inner.can_end

    @property
    def can_be_whole(self) -> bool:
        """True if a whole response is as good as its events."""
        return self._until is None

    @property
    def has_ended(self) -> bool:
        return self._has_ended

    def reconnect(self) -> int | None:
        """Prepare for another connection, see :meth:`Place.reconnect`."""
        self._is_done = False
        if not self._is_paused:
            return self.place.reconnect()
        self._is_paused, self._until = False, None
        return self.place.at

    def placed(self, deltas: list[Delta]) -> Iterator[list[Delta]]:
        """Yield the deltas of one read with the place behind them. The first list of an answer is empty: it names the
        answer before there is output."""
        cursor = self.place.cursor
        if cursor is not None and not self._is_announced:
            self._is_announced = True
            yield StoredDeltas((), replace(cursor, at=None) if deltas else cursor)
        if deltas:
            yield deltas if cursor is None else StoredDeltas(deltas, cursor)

    def take(self, piece: bytes) -> Iterator[Delta]:
        try:
            yield from self._take(piece)
        except LostPlace as error:
            raise self._call.cannot_continue(error.cause) from None
        if self._inner.is_whole and self._inner.can_end and not self._has_ended:
            self._has_ended = True  # the last deltas have the same place
            yield from self._inner.end()

    def end(self) -> Iterator[Delta]:
        if self._has_ended or self._is_paused:
            return
        if self.place.is_stored and not self._inner.can_end:
            raise Interrupted(self._call.incomplete(is_protocol=True))
        self._has_ended = True
        yield from self._inner.end()

    def _take(self, piece: bytes) -> Iterator[Delta]:
        if isinstance(piece, ErrorEvent) or not piece.startswith(b"{"):
            self._is_done = piece == b"[DONE]" and self.place.is_stored
            if not self._is_done:
                yield from self._inner.take(piece)
            return
        event = decode(numbered_decoder, piece)
        if not isinstance(event.type, str):
            yield from self._whole_response(piece)
        elif self.place.accepts(event, piece):
            self._spoken.note(event)
            yield from self._inner.take(piece)
            self._is_paused = self._until is not None and self.place.at == self._until

    def _whole_response(self, piece: bytes) -> Iterator[Delta]:
        """Take a response instead of its events: first what they have not brought of the texts that had begun."""
        whole = loose_json(piece)
        if isinstance(whole, Mapping) and whole.get("object") == "response" and self._is_resumable(whole):
            if self._until is not None:
                raise LostPlace("its events are not stored")
            if whole.get("status") in _RUNNING:
                raise StillRunning
            self.place.void()
            for rest in self._rest_of(whole):
                yield from self._inner.take(msgspec.json.encode(rest))
        yield from self._inner.take(piece)

    def _is_resumable(self, whole: Mapping[str, Any]) -> bool:
        if self.place.is_stored and whole.get("id") != self.place.response_id:
            raise LostPlace("it is another response")
        return self.place.adopt(whole)

    def _rest_of(self, whole: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        if whole.get("status") in {"completed", "incomplete"} and not whole.get("error"):
            yield from self._spoken.rest_of(whole.get("output"))


class PlacingSink:
    """Sink that gets the deltas of a stored answer with the place behind them."""

    def __init__(self, reader: StoredReader, sink: Sink) -> None:
        self._reader = reader
        self._sink = sink

    @property
    def is_open(self) -> bool:
        return self._sink.is_open

    def take(self, deltas: list[Delta]) -> None:
        for placed in self._reader.placed(deltas):
            self._sink.take(placed)
