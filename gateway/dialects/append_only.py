"""Shared part of renderers for clients that can neither resume nor take back text that they show."""

from typing import Final

from gateway.dialects.replay_filter import ReplayFilter
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Error, Event

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
    with an HTTP status instead.
    """

    resumable = False

    def __init__(self) -> None:
        self.failure: Error | None = None
        self._filter = ReplayFilter()
        self._has_begun = False
        self._is_over = False

    def queued(self, queue_position: int) -> bytes:
        return b""

    def render(self, batch: Batch) -> bytes:
        new = self._filter.take(batch)
        if new is None:
            return self._fail(STREAM_RESET)
        return b"".join([self._event(events.decode(stored)) for stored in new if not self._is_over])

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
        if not self._has_begun:
            self.failure = error
            return b""
        return self._error(error)
