"""OpenAI's Chat Completions responses: chunks that end with `[DONE]`, or one object."""

import time
from typing import Any, Final

import msgspec

from gateway.dialects.append_only import CANCELLED, AppendOnlyRenderer
from gateway.dialects.openai_chat import errors as openai_errors
from gateway.dialects.token_counts import counted
from gateway.dialects.tool_call import tool_call
from shared.protocol.events import Done, Error, Event, Reasoning, Refusal, Start, Token, ToolCall, Usage
from shared.protocol.transcript import Transcript

_DONE: Final = b"data: [DONE]\n\n"
_FAILED: Final = frozenset({"error", "cancelled"})
Body = dict[str, Any]


class ChatCompletionChunks(AppendOnlyRenderer):
    """Renderer of a streamed response."""

    def __init__(self, stream_id: str, *, include_usage: bool) -> None:
        super().__init__()
        self._include_usage = include_usage
        self._frame: Body = {
            "id": f"chatcmpl-{stream_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": "",
        }
        self._has_refused = False
        self._named: set[int] = set()  # indexes of tool calls that were sent with id and name

    def _event(self, event: Event) -> bytes:
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
        """Return a fragment of a tool call. Id and name are sent once, because SDKs concatenate repeated fields."""
        fragment: Body = {"index": call.index, "function": {"arguments": call.arguments}}
        if call.index not in self._named:
            self._named.add(call.index)
            fragment |= {"id": call.id, "type": "function"}
            fragment["function"] = {"name": call.name, "arguments": call.arguments}
        return fragment

    def _error(self, error: Error) -> bytes:
        return _data({"error": openai_errors.streamed(error)})

    def _end(self, done: Done) -> bytes:
        if done.finish_reason in _FAILED:
            return self._fail(CANCELLED)
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
    """Return the whole answer as one object."""
    start, done = transcript.start, transcript.done
    calls = [tool_call(call.id, call.name, call.arguments) for call in transcript.tool_calls]
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


def _finish_reason(done: Done, *, has_refused: bool) -> str:
    """Return `stop` for a refusal with text: with `content_filter` the SDKs' helpers raise and discard the text."""
    return "stop" if has_refused and done.finish_reason == "content_filter" else done.finish_reason


def _usage(usage: Usage) -> Body:
    body = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    details = {
        "prompt_tokens_details": counted(
            cached_tokens=usage.cached_tokens, cache_write_tokens=usage.cache_write_tokens
        ),
        "completion_tokens_details": counted(reasoning_tokens=usage.reasoning_tokens),
    }
    return body | {name: parts for name, parts in details.items() if parts}


def _data(body: Body) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)
