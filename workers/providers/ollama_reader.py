"""Reader of the lines of Ollama's ``/api/chat``. Its calls come whole, and mostly without an id."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from shared.schemas import ChatRequest
from workers.providers.base import Delta, Finished, ReasoningDelta, TextDelta
from workers.providers.errors import StreamedError
from workers.providers.finish_reasons import FinishNote
from workers.providers.framing import as_text, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.ollama_tools import ForcedCall, forced_functions
from workers.providers.tool_calls import ToolCalls, arguments_text, text_or_none
from workers.providers.usage_counts import UsageCounts


class OllamaReader:
    """Reader of one answer (:class:`workers.providers.reading.AnswerReader`)."""

    def __init__(self, call: ProviderCall, calls: ToolCalls, request: ChatRequest | None = None) -> None:
        self.is_whole = False
        self._call = call
        self._calls = calls
        self._finish = FinishNote(call.provider)
        self._counts = UsageCounts()
        self._called = 0
        self._is_limited_to_one = request is not None and request.parallel_tool_calls is False
        functions = forced_functions(request) if request is not None else []
        self._forced = ForcedCall(functions, calls) if functions else None
        self._has_begun = False
        self._has_other = False  # lines that are no object have come

    @property
    def can_end(self) -> bool:
        return self._finish.reason is not None

    def take(self, line: bytes) -> Iterator[Delta]:
        if not line.startswith(b"{"):
            line = line.strip().removeprefix(b"data:").strip()  # a proxy may have made events of the lines
        if not line.startswith(b"{"):
            self._has_other = True
            return
        part = decode(_decoder, line)
        self._has_begun = True
        if part.error:
            raise StreamedError(loose_json(line))
        if (message := part.message) is not None:
            if message.thinking:
                yield ReasoningDelta(as_text(message.thinking))
            if message.content:
                text = message.content if isinstance(message.content, str) else as_text(message.content)
                if self._forced is None:
                    yield TextDelta(text)
                else:
                    yield from self._forced.take(text)
            if message.tool_calls:
                yield from self._calls_of(message.tool_calls)
        if part.done or part.done_reason or part.prompt_eval_count is not None or part.eval_count is not None:
            self._note_end(part)

    def end(self) -> Iterator[Delta]:
        reason = self._finish.reason
        if reason is None:
            raise self._call.incomplete(is_protocol=self._has_begun or not self._has_other)
        if self._forced is not None:
            yield from self._forced.end()
            reason = "tool_calls" if reason == "stop" else reason
        yield from self._calls.finish(reason)
        self._call.finished = Finished(self._calls.reason(reason), self._counts.usage(), self._finish.unknown)

    def _note_end(self, part: "_Part") -> None:
        self._finish.note(part.done_reason)
        self._counts.note(input=part.prompt_eval_count, output=part.eval_count, cached=part.prompt_eval_cached_count)
        if part.done is True:
            self.is_whole = True
            if self._finish.reason is None:
                self._finish.note("stop")  # older servers give no reason

    def _calls_of(self, calls: "list[_ToolCall]") -> Iterator[Delta]:
        for call in calls:
            id, name = text_or_none(call.id), text_or_none(call.function.name)
            arguments = arguments_text(call.function.arguments) or "{}"
            yield from self._calls.fragment(self._called, id=id, name=name, arguments=arguments)
            yield from self._calls.end_block(self._called)
            self._called += 1
            if self._is_limited_to_one:
                # Ollama has no such limit: the rest of the answer is not read, and its connection is closed.
                self._finish.note("tool_calls")
                self.is_whole = True
                return


class _Function(msgspec.Struct):
    name: Any = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    function: _Function
    id: Any = None


class _Message(msgspec.Struct):
    content: Any = None
    thinking: Any = None
    tool_calls: list[_ToolCall] | None = None


class _Part(msgspec.Struct):
    message: _Message | None = None
    done: Any = False
    done_reason: Any = None
    prompt_eval_count: Any = None
    prompt_eval_cached_count: Any = None
    eval_count: Any = None
    error: Any = None


_decoder: Final = msgspec.json.Decoder(_Part)
