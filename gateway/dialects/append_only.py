"""Shared part of renderers for clients that can neither resume nor take back text that they show."""

from collections.abc import Iterable
from typing import Final

from gateway.dialects.replay_filter import ReplayFilter
from gateway.live.batch import Batch
from gateway.live.renderer import HEARTBEAT, waiting_comment
from shared.protocol import events
from shared.protocol.events import Error, Event, Start
from shared.protocol.waiting import Waiting

#: Error of a stream that was restarted after the client has received events that no longer count.
STREAM_RESET: Final = Error(
    "stream_reset",
    "the answer was restarted, and this protocol cannot take back the part already sent; send the request again",
    retryable=True,
)
CANCELLED: Final = Error("cancelled", "the answer was cancelled", retryable=False)


class AppendOnlyRenderer:
    """Base class; a dialect implements :meth:`_event` and :meth:`_error`.

    ``failure``: an error that came before any output. No frame was rendered for it, so that the caller can respond
    with an HTTP status instead, until :meth:`open`. ``ignored``: paths of the request's fields that have no effect.
    """

    resumable = False

    def __init__(self) -> None:
        self.failure: Error | None = None
        self.ignored: tuple[str, ...] = ()
        self._has_started = False
        self._filter = ReplayFilter()
        self._has_begun = False
        self._is_open = False
        self._is_over = False

    def queued(self, queue_position: int) -> bytes:
        return b""

    def open(self) -> bytes:
        self._is_open = True
        return HEARTBEAT

    def waiting(self, waiting: Waiting) -> bytes:
        return waiting_comment(waiting) if self._is_open or self._has_begun else b""

    def render(self, batch: Batch) -> bytes:
        new = self._filter.take(batch)
        if new is None:
            return self._fail(STREAM_RESET)
        if not self._has_started:
            self._note_start(new)
        return b"".join([self._event(events.decode(stored)) for stored in new if not self._is_over])

    def _note_start(self, stored_events: Iterable[bytes]) -> None:
        for stored in filter(events.is_start, stored_events):
            start = events.decode(stored)
            self._has_started = True
            if isinstance(start, Start):
                self.ignored = tuple(start.ignored or ())

    def _event(self, event: Event) -> bytes:
        """Return the frames of ``event``."""
        raise NotImplementedError

    def _error(self, error: Error) -> bytes:
        """Return the frame that ends a stream by ``error``."""
        raise NotImplementedError

    def _fail(self, error: Error) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        if not (self._has_begun or self._is_open):
            self.failure = error
            return b""
        return self._error(error)
