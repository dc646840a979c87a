"""The native dialect, design §5: an event is ``id``, ``event`` and the stored JSON as ``data``.

Synthetic frames carry no ``id:``, so that a client's cursor stays on what the stream really holds.
"""

import msgspec

from gateway.live.batch import Batch
from shared.protocol import events


class Native:
    """Events of a stream are rendered once, however many clients they go to."""

    resumable = True

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id

    def queued(self, place: int) -> bytes:
        return _synthetic(b"queued", {"stream_id": self._stream_id, "position": place or None})

    def render(self, run: Batch) -> bytes:
        if run.native is None:
            frames = [frame(at, stored) for at, stored in run.events]
            if run.reset:
                frames[:1] = self._reset(*run.events[0])
            run.native = b"".join(frames)
        return run.native

    def _reset(self, at: bytes, stored: bytes) -> list[bytes]:
        """The first event of a run, for a client that has to throw away what it shows. Where that is no `start`, the
        epoch has none: it ended without output, and Redis had lost the one before."""
        if events.is_start(stored):
            start = msgspec.structs.replace(events.decode(stored), reset=True)
            return [frame(at, events.encode(start))]
        bare = events.Start(self._stream_id, model="", provider="", attempt=0, reset=True)
        return [frame(b"", events.encode(bare)), frame(at, stored)]


def frame(at: bytes, stored: bytes) -> bytes:
    """``at``: the event's id; empty for one that no stream holds."""
    kind, _, data = stored.partition(b" ")
    if not at:
        return b"event: %b\ndata: %b\n\n" % (kind, data)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (at, kind, data)


def _synthetic(kind: bytes, data: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind, msgspec.json.encode(data))
