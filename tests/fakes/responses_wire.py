"""Responses, as OpenAI streams them."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from tests.fakes.answer import Counts, ToolCall
from tests.fakes.wire import dumps, without_none

_TYPE_BY_STATUS: Final = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}
_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
Body = dict[str, Any]


class ResponsesWire:
    name = "responses"
    content_type = "text/event-stream"
    comment = b": keepalive\n\n"
    unknown = b'event: response.future\ndata: {"type":"response.future","aura":1}\n\n'

    def __init__(self, *, number: int, request: Body) -> None:
        self._number = number
        self._encrypts = "reasoning.encrypted_content" in (request.get("include") or ())
        self._sequence = 0
        self._output: list[Body] = []
        self._open: Body | None = None  # item
        self._text = ""
        self._response: Body = {
            "id": f"resp_{number:032x}",
            "object": "response",
            "created_at": 1,
            "status": "in_progress",
            "background": request.get("background") is True,
            "error": None,
            "incomplete_details": None,
            "instructions": request.get("instructions"),
            "model": request["model"],
            "output": [],
            "parallel_tool_calls": True,
            "reasoning": {"effort": None, "summary": None, **(request.get("reasoning") or {})},
            "service_tier": "default",
            "store": request.get("store", True),
            "text": request.get("text") or {"format": {"type": "text"}},
            "tool_choice": request.get("tool_choice", "auto"),
            "tools": request.get("tools") or [],
            "usage": None,
        }

    def opening(self, usage: Counts | None) -> bytes:
        if self._response["background"]:
            queued = self._response | {"status": "queued"}
            first = self._frame("response.created", response=queued) + self._frame("response.queued", response=queued)
        else:
            first = self._frame("response.created", response=self._response)
        return first + self._frame("response.in_progress", response=self._response)

    def reasoning(self, text: str) -> bytes:
        frames = self._enter("reasoning", "summary_text")
        self._text += text
        return frames + self._of_open("response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def text(self, text: str) -> bytes:
        frames = self._enter("message", "output_text")
        self._text += text
        return frames + self._of_open("response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def refused(self, text: str) -> bytes:
        frames = self._enter("message", "refusal")
        self._text += text
        return frames + self._of_open("response.refusal.delta", content_index=0, delta=text)

    def tool_calls(self, calls: Sequence[ToolCall]) -> list[bytes]:
        frames = [self._close()]
        first = len(self._output)
        for call in calls:
            members = {"id": f"fc_{call.id}", "call_id": call.id, "name": call.name, "arguments": ""}
            self._output.append({"type": "function_call", "status": "in_progress", **members})
            frames.append(self._frame(_ADDED, output_index=len(self._output) - 1, item=self._output[-1]))
        for together in zip_longest(*(call.fragments for call in calls)):
            for number, fragment in enumerate(together):
                if fragment is not None:
                    item = self._output[first + number]
                    item["arguments"] += fragment
                    where = {"item_id": item["id"], "output_index": first + number}
                    frames.append(self._frame("response.function_call_arguments.delta", **where, delta=fragment))
        for number in range(first, len(self._output)):
            item = self._output[number]
            item["status"] = "completed"
            where = {"item_id": item["id"], "output_index": number}
            whole = {"arguments": item["arguments"], "name": item["name"]}
            frames.append(self._frame("response.function_call_arguments.done", **where, **whole))
            frames.append(self._frame(_DONE, output_index=number, item=item))
        return frames

    def ending(self, finish_reason: str, usage: Counts | None) -> bytes:
        frames = self._close()
        reason = _REASONS.get(finish_reason)
        known = reason is None and finish_reason in {"stop", "tool_calls"}
        status = "completed" if known else "incomplete"
        details = None if known else {"reason": reason or finish_reason}
        made = {"status": status, "incomplete_details": details, "output": self._output}
        counts = None if usage is None else _usage(usage)
        return frames + self._frame(f"response.{status}", response={**self._response, **made, "usage": counts})

    def error_in_band(self, message: str, error_type: str | None) -> bytes:
        return self._frame("error", code=error_type or "server_error", message=message, param=None)

    @staticmethod
    def refusal(status: int, message: str) -> Body:
        kind = _TYPE_BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    @staticmethod
    def model_list(models: list[str]) -> Body:
        rows = [{"id": m, "object": "model", "created": 1, "owned_by": "fake"} for m in models]
        return {"object": "list", "data": rows}

    def _enter(self, kind: str, part: str) -> bytes:
        """Return the frames that open an item and its part, and close the one before."""
        name = "summary" if kind == "reasoning" else "content"
        if self._open is not None and self._open["type"] == kind and self._open[name][0]["type"] == part:
            return b""
        frames = self._close()
        prefix = "rs" if kind == "reasoning" else "msg"
        item: Body = {"id": f"{prefix}_{self._number:x}_{len(self._output)}", "type": kind, "status": "in_progress"}
        item[name] = []
        if kind == "message":
            item["role"] = "assistant"
        self._output.append(item)
        self._open, self._text = item, ""
        frames += self._frame(_ADDED, output_index=len(self._output) - 1, item=item)
        made: Body = {"type": part, "refusal" if part == "refusal" else "text": ""}
        if part == "output_text":
            made |= {"annotations": [], "logprobs": []}
        item[name] = [made]
        where = {"summary_index" if kind == "reasoning" else "content_index": 0}
        event = "reasoning_summary_part" if kind == "reasoning" else "content_part"
        return frames + self._of_open(f"response.{event}.added", **where, part=made)

    def _close(self) -> bytes:
        item = self._open
        if item is None:
            return b""
        is_reasoning = item["type"] == "reasoning"
        (part,) = item["summary" if is_reasoning else "content"]
        member = "refusal" if part["type"] == "refusal" else "text"
        part[member] = self._text
        where = {"summary_index": 0} if is_reasoning else {"content_index": 0}
        texts = {"summary_text": "reasoning_summary_text", "refusal": "refusal"}.get(part["type"], "output_text")
        parts = "reasoning_summary_part" if is_reasoning else "content_part"
        frames = self._of_open(f"response.{texts}.done", **where, **{member: self._text})
        frames += self._of_open(f"response.{parts}.done", **where, part=part)
        item["status"] = "completed"
        if is_reasoning and self._encrypts:
            item["encrypted_content"] = f"encrypted {item['id']} {self._text}"
        index = self._output.index(item)
        self._open = None
        return frames + self._frame(_DONE, output_index=index, item=item)

    def _of_open(self, kind: str, **members: Any) -> bytes:
        item = self._open or {}
        return self._frame(kind, item_id=item.get("id"), output_index=self._output.index(item), **members)

    def _frame(self, kind: str, **members: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return f"event: {kind}\ndata: {dumps(data)}\n\n".encode()


_ADDED: Final = "response.output_item.added"
_DONE: Final = "response.output_item.done"


def _usage(usage: Counts) -> Body:
    total = None if usage.input is None or usage.output is None else usage.input + usage.output
    counts = {"input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": total}
    details = {
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
    return without_none(counts) | {name: made for name, parts in details.items() if (made := without_none(parts))}
