"""Reader of Messages streams, as Anthropic and the servers that follow it send them.

Events of unknown kinds are passed over, as Anthropic's documentation demands. Blocks and deltas without a canonical
event, such as tools that the server ran itself and signatures, become provider-specific data.
"""

from collections.abc import Callable, Iterator
from typing import Any

from shared.protocol.events import PartialUsage
from workers.providers.anthropic_blocks import OtherBlock, block_members, end_members, extra, start_members, without
from workers.providers.anthropic_wire import (
    KIND_BY_DELTA,
    WireDelta,
    WireEvent,
    WireMessage,
    block_index,
    event_decoder,
    message_decoder,
    object_decoder,
)
from workers.providers.base import Delta, Finished, ReasoningDelta, TextDelta
from workers.providers.errors import StreamedError, TooLargeError
from workers.providers.finish_reasons import FinishNote
from workers.providers.framing import MAX_PIECE_BYTES, ErrorEvent, as_text, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.tool_calls import ToolCalls, arguments_text, text_or_none
from workers.providers.usage_counts import UsageCounts, member


class MessageReader:
    """Reader of one answer (:class:`workers.providers.reading.AnswerReader`). ``by_tool``: the input of the one tool
    is the answer's text. ``name_of`` returns the client's name of a tool."""

    def __init__(
        self, call: ProviderCall, calls: ToolCalls, *, by_tool: bool, name_of: Callable[[str], str] = str
    ) -> None:
        self.is_whole = False
        #: Counts of the input at the answer's beginning.
        self.input_counts: PartialUsage | None = None
        self._call = call
        self._calls = calls
        self._by_tool = by_tool
        self._name_of = name_of
        self._finish = FinishNote(call.provider)
        self._counts = UsageCounts()
        self._is_refusal = False
        self._has_begun = False
        self._has_output = False  # other than text deltas
        self._has_other = False  # pieces that are no event have come
        #: Open blocks by their index: the number of a call, or a block of another kind.
        self._blocks: dict[int, int | OtherBlock] = {}
        self._other_bytes = 0  # of the open blocks of another kind, together
        self._block_count = 0
        #: Kind of the blocks of text and thinking, by their index.
        self._kinds: dict[int, str] = {}
        self._latest_kind: str | None = None
        #: Keep-alives within the latest block.
        self._pings = 0
        #: Data that is sent on with the next delta, so that it is not an output by itself.
        self._pending: list[Delta] = []
        self._end_data: dict[str, Any] = {}
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
        event = decode(event_decoder, piece)
        self._has_begun = True
        delta = event.delta
        if event.type != "content_block_delta" or delta is None:
            yield from self._after_pending(self._other_event(event, piece))
        elif delta.type != "text_delta":
            yield from self._after_pending(self._other_delta(block_index(event), delta, piece))
        elif delta.text:
            if self._pending:
                yield from self._flush()
            yield TextDelta(delta.text if isinstance(delta.text, str) else as_text(delta.text))

    def end(self) -> Iterator[Delta]:
        reason = self._finish.reason
        if reason is None:
            raise self._call.incomplete(is_protocol=self._has_begun or not self._has_other)
        yield from self._after_pending(self._end_open_blocks())
        if self._by_tool:
            reason = "stop" if reason == "tool_calls" else reason
        else:
            yield from self._after_pending(self._calls.finish(reason))
            reason = self._calls.reason(reason)
            yield from self._last_data()
        detail = "refusal" if self._is_refusal else self._finish.unknown
        self._call.finished = Finished(reason, self._counts.usage(cached_apart=True), detail)

    def _after_pending(self, deltas: Iterator[Delta]) -> Iterator[Delta]:
        for delta in deltas:
            if self._pending:
                yield from self._flush()
            self._has_output = True
            yield delta

    def _flush(self) -> list[Delta]:
        pending, self._pending = self._pending, []
        return pending

    def _last_data(self) -> Iterator[Delta]:
        """Yield the data of the end. An answer without anything stays empty, unless its end is a special one."""
        if self._end_data and not self._by_tool:
            self._pending.append(extra(**self._end_data))
        if self._has_output or self._call.has_output or "stop" in self._end_data:
            yield from self._flush()

    def _end_open_blocks(self) -> Iterator[Delta]:
        """End the blocks without an end of their own."""
        others = [index for index, block in self._blocks.items() if isinstance(block, OtherBlock)]
        for index in [*self._inputs, *others]:
            yield from self._end_block(index)

    def _other_event(self, event: WireEvent, piece: bytes) -> Iterator[Delta]:
        match event.type:
            case "content_block_start" if event.content_block is not None:
                block = member(decode(object_decoder, piece), "content_block")
                yield from self._begin(block_index(event), block, len(piece))
            case "content_block_stop":
                yield from self._end_block(block_index(event))
            case "message_start":
                self._count(member(event.message, "usage"))
                self.input_counts = self._counts.input_so_far(cached_apart=True)
                self._add_pending(start_members(event.message))
            case "message_delta" | "message_stop":
                self._note_end(event.delta, event.usage)
                self._count_bedrock(event.metrics)
                if event.type == "message_delta":
                    self._end_data |= end_members(decode(object_decoder, piece), self._finish.unknown)
                self.is_whole = event.type == "message_stop"
            case "ping" if self._latest_kind == "thinking" and not self._by_tool:
                self._pings += 1
                if self._pings > 1:  # the first one belongs to the beginning of an answer
                    yield extra(**{"in": "thinking", "ping": True})
            case "message":
                yield from self._whole(decode(message_decoder, piece), decode(object_decoder, piece))
            case _ if event.error or event.type == "error":
                raise StreamedError(loose_json(piece))

    def _begin(self, index: int, block: Any, size: int) -> Iterator[Delta]:
        if index in self._blocks:
            yield from self._end_block(index)  # a server that uses an index again without ending its block
            self._blocks.pop(index, None)
        kind = block.get("type")
        latest, self._latest_kind = self._latest_kind, None
        self._pings = 0
        self._kinds.pop(index, None)
        match kind:
            case "tool_use":
                yield from self._begin_call(index, block)
            case "text" | "thinking":
                self._kinds[index] = self._latest_kind = kind
                yield from self._begin_text(block, kind, continues=latest == kind)
            case str():
                self._hold(size)
                self._blocks[index] = OtherBlock(block, size)

    def _begin_call(self, index: int, block: Any) -> Iterator[Delta]:
        self._block_count += 1
        self._blocks[index] = self._block_count
        self._inputs[index] = arguments_text(given) if (given := block.get("input")) else ""
        if self._by_tool:
            return
        id, name = text_or_none(block.get("id")), text_or_none(block.get("name"))
        if id and (members := block_members(block)):
            self._add_pending({"call": id, "block": members})
        name = self._name_of(name) if name else name
        yield from self._calls.fragment(self._block_count, id=id, name=name, arguments="")

    def _begin_text(self, block: Any, kind: str, *, continues: bool) -> Iterator[Delta]:
        """Begin a block of text or thinking. Its beginning is named if the text alone does not show it."""
        if (members := block_members(block)) or continues:
            self._add_pending({"open": kind, "block": members})
        if text := as_text(block.get(kind)):
            yield TextDelta(text) if kind == "text" else ReasoningDelta(text)
        if kind == "thinking" and (signature := block.get("signature")) and not self._by_tool:
            delta = {"type": "signature_delta", "signature": signature}
            yield extra(**{"in": kind, "delta": delta})

    def _add_pending(self, data: dict[str, Any]) -> None:
        if data and not self._by_tool:
            self._pending.append(extra(**data))

    def _other_delta(self, index: int, delta: WireDelta, piece: bytes) -> Iterator[Delta]:
        block = self._blocks.get(index)
        if delta.type == "thinking_delta":
            yield from self._thinking(member(decode(object_decoder, piece), "delta"), as_text(delta.thinking))
        elif isinstance(block, OtherBlock):
            self._hold(len(piece))
            block.add(decode(object_decoder, piece)["delta"], len(piece))
        elif delta.type == "input_json_delta":
            if delta.partial_json:
                self._inputs.pop(index, None)
                yield from self._input(index, as_text(delta.partial_json))
        elif (kind := self._kinds.get(index, KIND_BY_DELTA.get(str(delta.type)))) and not self._by_tool:
            yield extra(**{"in": kind, "delta": decode(object_decoder, piece)["delta"]})

    def _hold(self, size: int) -> None:
        """Count bytes of blocks that are kept until their end. Raises :class:`TooLargeError`."""
        self._other_bytes += size
        if self._other_bytes > MAX_PIECE_BYTES:
            raise TooLargeError("content blocks", MAX_PIECE_BYTES)

    def _thinking(self, delta: object, text: str) -> Iterator[Delta]:
        if text:
            yield ReasoningDelta(text)
        members = {n: value for n, value in without(delta, {"type", "thinking"}).items() if value is not None}
        if members and not self._by_tool:
            yield extra(**{"in": "thinking", "delta": {"type": "thinking_delta", "thinking": "", **members}})

    def _end_block(self, index: int) -> Iterator[Delta]:
        whole = self._inputs.pop(index, None)
        if whole is not None and (whole or self._by_tool):
            yield from self._input(index, whole or "{}")  # an empty input is not spelt out
        block = self._blocks.get(index)
        if self._by_tool:
            return
        if isinstance(block, OtherBlock):
            del self._blocks[index]
            self._other_bytes -= block.size
            yield block.event()
        elif block is not None:
            yield from self._calls.end_block(block)

    def _input(self, index: int, text: str) -> Iterator[Delta]:
        key = self._blocks.get(index, -1 - index)  # negative: the block's start did not come, so the call has no name
        if isinstance(key, OtherBlock):
            return
        if self._by_tool:
            yield TextDelta(text)
        else:
            yield from self._calls.fragment(key, id=None, name=None, arguments=text)

    def _note_end(self, delta: WireDelta | None, usage: object) -> None:
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

    def _whole(self, message: WireMessage, raw: Any) -> Iterator[Delta]:
        """A whole message, of a server that does not stream."""
        self._add_pending(start_members(raw))
        for index, block in enumerate(raw.get("content") or ()):
            if isinstance(block, dict):
                yield from self._begin(index, block, 0)
                yield from self._end_block(index)
        self._note_end(WireDelta(stop_reason=message.stop_reason), message.usage)
        end = {name: raw.get(name) for name in ("stop_reason", "stop_sequence", "stop_details")}
        self._end_data |= end_members({"delta": end}, self._finish.unknown)
        self.is_whole = True
