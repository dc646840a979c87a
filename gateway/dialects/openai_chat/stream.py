"""OpenAI's Chat Completions responses: chunks that end with `[DONE]`, or one object."""

import time
from typing import Any, Final

import msgspec

from gateway.dialects.append_only import CANCELLED, AppendOnlyRenderer
from gateway.dialects.openai_chat import errors as openai_errors
from gateway.dialects.openai_chat.chunks import ChunkBuilder
from gateway.dialects.openai_chat.whole import Accumulator
from shared.protocol.events import Done, Error, Event, Start
from shared.protocol.transcript import Transcript

_DONE: Final = b"data: [DONE]\n\n"
_FAILED: Final = frozenset({"error", "cancelled"})
Body = dict[str, Any]


class ChatCompletionChunks(AppendOnlyRenderer):
    """Renderer of a streamed response."""

    def __init__(self, stream_id: str, *, include_usage: bool) -> None:
        super().__init__()
        self._include_usage = include_usage
        self._frame = _frame(stream_id)
        self._chunks = ChunkBuilder(self._frame, repeats=True)

    def _event(self, event: Event) -> bytes:
        match event:
            case Error():
                return self._fail(event)
            case Done():
                return self._end(event)
            case Start():
                self._has_begun = True
        return b"".join(map(_data, self._chunks.take(event)))

    def _error(self, error: Error) -> bytes:
        return _data({"error": openai_errors.streamed(error)})

    def _end(self, done: Done) -> bytes:
        if done.finish_reason in _FAILED:
            return self._fail(CANCELLED)
        chunk, usage = self._chunks.end(done)
        usage_chunk = b""
        if usage is not None and self._include_usage:
            usage_chunk = _data({**self._frame, "choices": [], "usage": usage})
        return b"".join((_data(chunk), usage_chunk, _DONE))


def completion(stream_id: str, transcript: Transcript) -> Body:
    """Return the whole answer as one object, made of the same chunks as are streamed."""
    builder, joined = ChunkBuilder(_frame(stream_id), repeats=False), Accumulator()
    usage: Body | None = None
    for event in transcript.events:
        if isinstance(event, Done):
            chunk, usage = builder.end(event)
            joined.add(chunk)
        else:
            for chunk in builder.take(event):
                joined.add(chunk)
    return joined.whole(usage)


def _frame(stream_id: str) -> Body:
    return {
        "id": f"chatcmpl-{stream_id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "",
    }


def _data(body: Body) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)
