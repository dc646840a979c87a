"""OpenAI's Chat Completions: chunks that end with `[DONE]`, or one object."""

import time
from typing import Any, Final

import msgspec

from gateway.dialects.replay_filter import ReplayFilter
from gateway.live.batch import Batch
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.transcript import Transcript

_DONE: Final = b"data: [DONE]\n\n"
_FAILED: Final = frozenset({"error", "cancelled"})
Body = dict[str, Any]


class ChatCompletionChunks:
    """Its clients read from the start and cannot resume, nor take anything back. ``failure``: an error that came
    before any output, of which nothing was rendered."""

    resumable = False

    def __init__(self, stream_id: str, *, include_usage: bool) -> None:
        self.failure: Error | None = None
        self._include_usage = include_usage
        self._frame: Body = {
            "id": f"chatcmpl-{stream_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "",
        }
        self._continuation = ReplayFilter()
        self._has_begun = False
        self._has_refused = False
        self._named: set[int] = set()
        self._is_over = False

    def queued(self, place: int) -> bytes:
        return b""

    def render(self, run: Batch) -> bytes:
        new = self._continuation.take(run)
        if new is None:
            return self._fail(Error("stream_reset", "the answer began anew, and this protocol cannot say so", True))
        return b"".join(self._event(events.decode(stored)) for stored in new)

    def _event(self, event: Event) -> bytes:
        if self._is_over:
            return b""
        match event:
            case Error():
                return self._fail(event)
            case Done():
                return self._end(event)
            case Start():
                self._frame["model"] = f"{event.provider}/{event.model}"
                self._has_begun = True
        delta = self._delta_of(event)
        return b"" if delta is None else self._chunk(delta)

    def _delta_of(self, event: Event) -> Body | None:
        match event:
            case Start():
                return {"role": "assistant", "content": ""}
            case Token():
                return {"content": event.token}
            case Reasoning():
                return {"reasoning_content": event.text}
            case Refusal():
                self._has_refused = True
                return {"refusal": event.text}
            case ToolCall(complete=False):
                return {"tool_calls": [self._call(event)]}
        return None

    def _call(self, call: ToolCall) -> Body:
        """Id and name once: the SDKs join what they get."""
        fragment: Body = {"index": call.index, "function": {"arguments": call.arguments}}
        if call.index not in self._named:
            self._named.add(call.index)
            fragment |= {"id": call.id, "type": "function"}
            fragment["function"] = {"name": call.name, "arguments": call.arguments}
        return fragment

    def _fail(self, error: Error) -> bytes:
        if self._is_over:
            return b""
        self._is_over = True
        if not self._has_begun:
            self.failure = error
            return b""
        return _data({"error": error_of(error)})

    def _end(self, done: Done) -> bytes:
        if done.finish_reason in _FAILED:
            return self._fail(Error("cancelled", "the answer was cancelled", retryable=False))
        usage = _usage(done.usage) if self._include_usage and done.usage else None
        return b"".join(
            (
                self._chunk({}, _finish_reason(done, has_refused=self._has_refused)),
                _data({**self._frame, "choices": [], "usage": usage}) if usage else b"",
                _DONE,
            )
        )

    def _chunk(self, delta: Body, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _data({**self._frame, "choices": [choice]})


def completion(stream_id: str, transcript: Transcript) -> Body:
    """The whole answer as one object."""
    start, done = transcript.start, transcript.done
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in transcript.tool_calls
    ]
    message: Body = {
        "role": "assistant",
        "content": transcript.text or (None if calls or transcript.refusal else ""),
        "refusal": transcript.refusal or None,
        **({"reasoning_content": transcript.reasoning} if transcript.reasoning else {}),
        **({"tool_calls": calls} if calls else {}),
    }
    finish_reason = _finish_reason(done, has_refused=bool(transcript.refusal)) if done else None
    return {
        "id": f"chatcmpl-{stream_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{start.provider}/{start.model}" if start else "",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": _usage(done.usage) if done and done.usage else None,
    }


def error_of(error: Error) -> Body:
    """The form of an error within a stream."""
    return {"message": error.message, "type": "server_error", "code": error.code, "param": None}


def _finish_reason(done: Done, *, has_refused: bool) -> str:
    """Where there are words for a refusal they are the answer: at `content_filter` the SDKs' helpers raise, and show
    none of it."""
    return "stop" if has_refused and done.finish_reason == "content_filter" else done.finish_reason


def _usage(usage: Usage) -> Body:
    total = usage.input_tokens + usage.output_tokens
    return {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens, "total_tokens": total}


def _data(body: Body) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)
