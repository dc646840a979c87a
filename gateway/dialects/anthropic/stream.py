"""Anthropic's Messages responses: content blocks that start, grow and stop, or one message."""

from typing import Any

import msgspec

from gateway.dialects.anthropic import errors as anthropic_errors
from gateway.dialects.anthropic.whole_message import whole_message
from gateway.dialects.anthropic.wire_events import STOP_REASONS, WireEvents
from gateway.dialects.append_only import CANCELLED, AppendOnlyRenderer
from shared.protocol.events import Done, Error, Event, Token
from shared.protocol.transcript import Transcript

Body = dict[str, Any]


class MessageEvents(AppendOnlyRenderer):
    """Renderer of a streamed response. ``prompt_tokens``: as in :class:`WireEvents`."""

    def __init__(self, stream_id: str, *, prompt_tokens: int) -> None:
        super().__init__()
        self._wire = WireEvents(f"msg_{stream_id}", prompt_tokens)

    def _event(self, event: Event) -> bytes:
        if type(event) is Token and self._wire.open == "text":  # the hot path
            delta = {"type": "text_delta", "text": event.token}
            return _frame({"type": "content_block_delta", "index": self._wire.blocks - 1, "delta": delta})
        if isinstance(event, Error):
            return self._fail(event)
        if isinstance(event, Done):
            if event.finish_reason not in STOP_REASONS:
                return self._fail(CANCELLED)
            self._is_over = True
        frames = b"".join([_frame(body) for body in self._wire.of(event)])
        self._has_begun = self._wire.has_begun
        return frames

    def _error(self, error: Error) -> bytes:
        message = anthropic_errors.with_capability(error.message, error.provider_code)
        return _frame(anthropic_errors.body_of(anthropic_errors.type_of(error.code), message))


def message(stream_id: str, transcript: Transcript) -> Body:
    """Return the whole answer as one message."""
    wire = WireEvents(f"msg_{stream_id}", 0)
    return whole_message(body for event in transcript.events for body in wire.of(event))


def token_count(_: str, transcript: Transcript) -> Body:
    """Return the number of tokens in a request."""
    usage = transcript.done.usage if transcript.done else None
    return {"input_tokens": usage.input_tokens if usage else 0}


def _frame(body: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (body["type"].encode(), msgspec.json.encode(body))
