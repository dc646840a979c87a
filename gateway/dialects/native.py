"""The native dialect, design §5: an event is ``id``, ``event`` and the stored JSON as ``data``.

Synthetic frames carry no ``id:``, so that a client's cursor stays on what the stream really holds.
"""

import msgspec

from shared.protocol import events


def frame(at: bytes, stored: bytes) -> bytes:
    """``at``: the event's id."""
    kind, _, data = stored.partition(b" ")
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (at, kind, data)


def reset_frame(at: bytes, stored: bytes) -> bytes:
    """A stored `start`, told to a client that has to throw away what it shows."""
    start = events.decode(stored)
    return frame(at, events.encode(msgspec.structs.replace(start, reset=True)))


def bare_reset(stream_id: str) -> bytes:
    """The same where the epoch has no `start`: it ended without output, and Redis had lost the one before."""
    start = events.Start(stream_id, model="", provider="", attempt=0, reset=True)
    return _synthetic(b"start", msgspec.to_builtins(start))


def queued(stream_id: str, place: int) -> bytes:
    """``place``: 1 for the next; 0 where that is not known."""
    return _synthetic(b"queued", {"stream_id": stream_id, "position": place or None})


def error(code: str, message: str, *, retryable: bool) -> bytes:
    return _synthetic(b"error", {"code": code, "message": message, "retryable": retryable})


def done(finish_reason: str, reason: str) -> bytes:
    return _synthetic(b"done", {"finish_reason": finish_reason, "reason": reason, "usage": None})


def _synthetic(kind: bytes, data: dict[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind, msgspec.json.encode(data))
