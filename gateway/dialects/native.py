"""Native dialect: an event is ``id``, ``event`` and the stored JSON as ``data`` (docs/protocol.md).

Synthetic frames carry no ``id:``, so that a client's cursor stays at an event that the stream really contains.
"""

from dataclasses import asdict

import msgspec

from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.waiting import Waiting


class Native:
    """Renderer of the native dialect. A batch is rendered once for all its clients."""

    resumable = True

    def __init__(self, stream_id: str) -> None:
        self._stream_id = stream_id

    def queued(self, queue_position: int) -> bytes:
        return _synthetic(b"queued", {"stream_id": self._stream_id, "position": queue_position or None})

    def waiting(self, waiting: Waiting) -> bytes:
        return _synthetic(b"waiting", asdict(waiting))

    def render(self, batch: Batch) -> bytes:
        if batch.native is None:
            frames = [frame(at, stored) for at, stored in batch.events]
            if batch.reset:
                frames[:1] = self._reset(*batch.events[0])
            batch.native = b"".join(frames)
        return batch.native

    def _reset(self, at: bytes, stored: bytes) -> list[bytes]:
        """Return frames of a batch's first event, for a client that must discard the part it shows. If that event is
        not `start`, its epoch has no `start`: it ended without output, and Redis had lost the epoch before."""
        if events.is_start(stored):
            start = msgspec.structs.replace(events.decode(stored), reset=True)
            return [frame(at, events.encode(start))]
        bare = events.Start(self._stream_id, model="", provider="", attempt=0, reset=True)
        return [frame(b"", events.encode(bare)), frame(at, stored)]


def frame(at: bytes, stored: bytes) -> bytes:
    """Return the frame of a stored event. ``at``: the event's id; empty for an event that no stream contains."""
    kind, _, data = stored.partition(b" ")
    if not at:
        return b"event: %b\ndata: %b\n\n" % (kind, data)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (at, kind, data)


def _synthetic(kind: bytes, data: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind, msgspec.json.encode(data))
