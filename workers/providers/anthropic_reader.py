"""Reader of Messages streams, as Anthropic and the servers that follow it send them.

Events, blocks and deltas of unknown kinds are passed over, as Anthropic's documentation demands. Blocks of tools that
the server ran itself, and their results, are no calls of the client.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from shared.protocol.events import PartialUsage
from workers.providers.base import Delta, Finished, ReasoningDelta, TextDelta
from workers.providers.errors import StreamedError
from workers.providers.finish_reasons import FinishNote
from workers.providers.framing import ErrorEvent, as_text, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.tool_calls import ToolCalls, arguments_text, text_or_none
from workers.providers.usage_counts import UsageCounts, member, whole_number


class MessageReader:
    """Reader of one answer (:class:`workers.providers.reading.AnswerReader`). ``by_tool``: the input of the one tool
    is the answer's text."""

    def __init__(self, call: ProviderCall, calls: ToolCalls, *, by_tool: bool) -> None:
        self.is_whole = False
        #: Counts of the input at the answer's beginning.
        self.input_counts: PartialUsage | None = None
        self._call = call
        self._calls = calls
        self._by_tool = by_tool
        self._finish = FinishNote(call.provider)
        self._counts = UsageCounts()
        self._is_refusal = False
        self._has_begun = False
        self._has_other = False  # pieces that are no event have come
        #: Open blocks by their index: the number of a call, or None for a block of a tool that the server ran.
        self._blocks: dict[int, int | None] = {}
        self._block_count = 0
        #: Inputs that came in a block's start. They count unless a delta brings the input again.
        self._inputs: dict[int, str] = {}

    @property
    def can_end(self) -> bool:
        return self._finish.reason is not None

    def take(self, piece: bytes) -> Iterator[Delta]:
        if isinstance(piece, ErrorEvent):
            raise StreamedError(loose_json(piece))
        if not piece.startswith(b"{"):  # a keep-alive, or the [DONE] of a server that speaks OpenAI's protocol too
            self._has_other = True
            return
        event = decode(_decoder, piece)
        self._has_begun = True
        delta = event.delta
        if event.type != "content_block_delta" or delta is None:
            yield from self._other_event(event, piece)
        elif delta.type != "text_delta":
            yield from self._other_delta(_block_index(event), delta)
        elif delta.text:
            yield TextDelta(delta.text if isinstance(delta.text, str) else as_text(delta.text))

    def end(self) -> Iterator[Delta]:
        reason = self._finish.reason
        if reason is None:
            raise self._call.incomplete(is_protocol=self._has_begun or not self._has_other)
        for index in list(self._inputs):  # blocks without an end
            yield from self._end_block(index)
        if self._by_tool:
            reason = "stop" if reason == "tool_calls" else reason
        else:
            yield from self._calls.finish(reason)
            reason = self._calls.reason(reason)
        detail = "refusal" if self._is_refusal else self._finish.unknown
        self._call.finished = Finished(reason, self._counts.usage(cached_apart=True), detail)

    def _other_event(self, event: "_Event", piece: bytes) -> Iterator[Delta]:
        match event.type:
            case "content_block_start" if event.content_block is not None:
                yield from self._begin(_block_index(event), event.content_block)
            case "content_block_stop":
                yield from self._end_block(_block_index(event))
            case "message_start":
                self._count(member(event.message, "usage"))
                self.input_counts = self._counts.input_so_far(cached_apart=True)
            case "message_delta" | "message_stop":
                self._note_end(event.delta, event.usage)
                self._count_bedrock(event.metrics)
                self.is_whole = event.type == "message_stop"
            case "message":
                yield from self._whole(decode(_whole_decoder, piece))
            case _ if event.error or event.type == "error":
                raise StreamedError(loose_json(piece))

    def _begin(self, index: int, block: "_Block") -> Iterator[Delta]:
        if index in self._inputs:
            yield from self._end_block(index)  # a server that uses an index again without ending its block
        self._blocks.pop(index, None)
        if block.type == "tool_use":
            self._block_count += 1
            self._blocks[index] = self._block_count
            self._inputs[index] = arguments_text(block.input) if block.input else ""
            if not self._by_tool:
                id, name = text_or_none(block.id), text_or_none(block.name)
                yield from self._calls.fragment(self._block_count, id=id, name=name, arguments="")
        elif isinstance(block.type, str) and "tool" in block.type:
            self._blocks[index] = None
        elif block.type == "text" and block.text:
            yield TextDelta(as_text(block.text))
        elif block.type == "thinking" and block.thinking:
            yield ReasoningDelta(as_text(block.thinking))

    def _other_delta(self, index: int, delta: "_Delta") -> Iterator[Delta]:
        if delta.type == "thinking_delta" and delta.thinking:
            yield ReasoningDelta(as_text(delta.thinking))
        elif delta.type == "input_json_delta" and delta.partial_json:
            self._inputs.pop(index, None)
            yield from self._input(index, as_text(delta.partial_json))

    def _end_block(self, index: int) -> Iterator[Delta]:
        whole = self._inputs.pop(index, None)
        if whole is not None and (whole or self._by_tool):
            yield from self._input(index, whole or "{}")  # an empty input is not spelt out
        if (key := self._blocks.get(index)) is not None and not self._by_tool:
            yield from self._calls.end_block(key)

    def _input(self, index: int, text: str) -> Iterator[Delta]:
        key = self._blocks.get(index, -1 - index)  # negative: the block's start did not come, so the call has no name
        if key is None:
            return
        if self._by_tool:
            yield TextDelta(text)
        else:
            yield from self._calls.fragment(key, id=None, name=None, arguments=text)

    def _note_end(self, delta: "_Delta | None", usage: object) -> None:
        word = delta.stop_reason if delta is not None else None
        if isinstance(word, str) and word.strip():
            self._finish.note(word)
            self._is_refusal = word.strip().lower() in {"refusal", "refused"}
        self._count(usage)

    def _count(self, usage: object) -> None:
        self._counts.note(
            input=member(usage, "input_tokens"),
            output=member(usage, "output_tokens"),
            cached=member(usage, "cache_read_input_tokens"),
            cache_write=member(usage, "cache_creation_input_tokens"),
            reasoning=member(usage, "output_tokens_details", "thinking_tokens"),
        )

    def _count_bedrock(self, metrics: object) -> None:
        self._counts.note(
            cached=member(metrics, "cacheReadInputTokenCount"),
            cache_write=member(metrics, "cacheWriteInputTokenCount"),
        )

    def _whole(self, message: "_Message") -> Iterator[Delta]:
        """A whole message, of a server that does not stream."""
        for index, block in enumerate(message.content or ()):
            yield from self._begin(index, block)
            yield from self._end_block(index)
        self._note_end(_Delta(stop_reason=message.stop_reason), message.usage)
        self.is_whole = True


class _Block(msgspec.Struct):
    type: Any = None
    id: Any = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    input: Any = None


class _Delta(msgspec.Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] | None = None
    stop_reason: Any = None
    usage: Any = None


class _Event(msgspec.Struct, rename={"metrics": "amazon-bedrock-invocationMetrics"}):
    type: Any = None
    index: Any = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    message: Any = None
    usage: Any = None
    error: Any = None
    metrics: Any = None


def _block_index(event: _Event) -> int:
    return index if (index := whole_number(event.index)) is not None else 0


_decoder: Final = msgspec.json.Decoder(_Event)
_whole_decoder: Final = msgspec.json.Decoder(_Message)
