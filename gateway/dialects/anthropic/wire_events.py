"""Events of Anthropic's wire format, made of canonical events.

A block of text or thinking stops when another block starts. Each tool call has its own block, open until the call is
complete, so that parallel calls may grow in turn. Data of Anthropic's family (:class:`shared.protocol.events.Extra`)
is merged, so that a client gets the blocks of the provider.
"""

from typing import Any, Final, Literal

from gateway.dialects.anthropic.usage import merged, usage_of
from gateway.dialects.citations import anthropic_citations
from gateway.dialects.reasoning import ReasoningCollector, pack
from gateway.dialects.service_tiers import anthropic_tier
from shared.protocol.events import (
    Done,
    Event,
    Extra,
    PartialUsage,
    Reasoning,
    Refusal,
    Start,
    Token,
    ToolCall,
    Usage,
)

FAMILY: Final = "anthropic"
STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
TextKind = Literal["text", "thinking"]
_EMPTY: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
Body = dict[str, Any]


class WireEvents:
    """Makes the wire events of one answer. ``prompt_tokens``: an estimate for the first event, because most providers
    report usage at the end. ``open``: kind of the block that text may continue, and ``blocks``: their number so far.

    The first event waits for the canonical event after ``Start``, which may have members of it.
    """

    def __init__(self, message_id: str, prompt_tokens: int) -> None:
        self.open: str | None = None
        self.blocks = 0
        self.has_begun = False
        self._id = message_id
        self._prompt_tokens = prompt_tokens
        self._start: Start | None = None
        self._message: Body = {}
        self._usage: Body = {}
        self._stop: Body = {}
        self._end: Body = {}
        self._calls: dict[int, int] = {}  # block indexes of incomplete tool calls, by call index
        self._call_members: dict[str, Body] = {}
        self._collector = ReasoningCollector()
        self._may_sign = False  # reasoning of another family may end
        self._cited: list[Body] = []  # before the text that they belong to

    def of(self, event: Event) -> list[Body]:
        """Return the wire events of a canonical event."""
        if isinstance(event, Start):
            self._start = event
            return []
        if isinstance(event, Extra) and event.family == FAMILY:
            return self._merge(event.data)
        if (tier := anthropic_tier(event)) is not None:
            self._usage = merged({"service_tier": tier}, self._usage)
        made = self._begin() + self._signature(event)
        match event:
            case Token():
                made += self._grow("text", {"type": "text_delta", "text": event.token}) + self._cite()
            case Refusal():
                made += self._grow("text", {"type": "text_delta", "text": event.text})
            case Reasoning():
                made += self._grow("thinking", {"type": "thinking_delta", "thinking": event.text})
            case ToolCall():
                made += self._call(event)
            case Extra():
                self._cited += anthropic_citations(event)
                made += self._cite() if self.open == "text" else []
            case Done():
                made += self._finish(event)
        return made

    def _begin(self) -> list[Body]:
        if self.has_begun:
            return []
        self.has_begun = True
        start = self._start or Start(self._id, model="", provider="", attempt=0)
        counts = start.usage or PartialUsage()
        usage = Usage(
            counts.input_tokens or self._prompt_tokens,
            output_tokens=0,
            cached_tokens=counts.cached_tokens,
            cache_write_tokens=counts.cache_write_tokens,
        )
        message: Body = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": f"{start.provider}/{start.model}" if start.model else "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(usage, self._usage),
        }
        self._usage = {}
        return [{"type": "message_start", "message": merged(message, self._message)}]

    def _signature(self, event: Event) -> list[Body]:
        """Return the signature of reasoning that ended before ``event``, of a provider of another family."""
        if isinstance(event, Reasoning | Extra):
            self._may_sign = True
        if not self._may_sign or (packed := self._collector.take(event)) is None:
            return []
        self._may_sign = False
        family, data = packed
        if family == FAMILY:
            return []
        return self._grow("thinking", {"type": "signature_delta", "signature": pack(family, data)})

    def _cite(self) -> list[Body]:
        """Return the citations that wait, for the open block of text."""
        cited, self._cited = self._cited, []
        return [self._delta(self.blocks - 1, {"type": "citations_delta", "citation": each}) for each in cited]

    def _grow(self, kind: TextKind, delta: Body) -> list[Body]:
        started = [] if self.open == kind else self._open(kind, {})
        return [*started, self._delta(self.blocks - 1, delta)]

    def _open(self, kind: TextKind, members: Body) -> list[Body]:
        made = self._close() + self._new({**_EMPTY[kind], **members})
        self.open = kind
        return made

    def _call(self, call: ToolCall) -> list[Body]:
        if call.complete:
            index = self._calls.pop(call.index, None)
            return [] if index is None else [{"type": "content_block_stop", "index": index}]
        made: list[Body] = []
        if call.index not in self._calls:
            block: Body = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            made = self._close() + self._new(merged(block, self._call_members.pop(str(call.id), {})))
            self._calls[call.index] = self.blocks - 1
        return [*made, self._delta(self._calls[call.index], _json_delta(call.arguments))]

    def _merge(self, data: Body) -> list[Body]:
        """Merge data of Anthropic's family. A form of a later version is passed over."""
        match data:
            case {"in": "text" | "thinking" as kind, "delta": dict(delta)}:
                return self._begin() + self._grow(kind, delta)
            case {"in": "thinking", "ping": True}:
                opened = [] if self.open == "thinking" else self._open("thinking", {})
                return [*self._begin(), *opened, {"type": "ping"}]
            case {"open": "text" | "thinking" as kind, "block": dict(members)}:
                return self._begin() + self._open(kind, members)
            case {"block": dict(block), "deltas": list(deltas)}:
                begun = self._begin() + self._close() + self._new(block)
                index = self.blocks - 1
                return [*begun, *(self._delta(index, delta) for delta in deltas), _stopped(index)]
        self._keep(data)
        return []

    def _keep(self, data: Body) -> None:
        """Keep members of a wire event that follows."""
        match data:
            case {"call": str(id), "block": dict(members)}:
                self._call_members[id] = members
            case _:
                self._message |= data.get("message", {})
                self._usage = merged(data.get("usage", {}), self._usage)
                self._stop |= data.get("stop", {})
                self._end |= data.get("end", {})

    def _finish(self, done: Done) -> list[Body]:
        made = self._close() + [_stopped(index) for index in self._calls.values()]
        delta = {"stop_reason": STOP_REASONS.get(done.finish_reason), "stop_sequence": None} | self._stop
        usage = usage_of(done.usage, self._usage)
        end: Body = {"type": "message_delta", "delta": delta, "usage": usage}
        return [*made, merged(end, self._end), {"type": "message_stop"}]

    def _new(self, block: Body) -> list[Body]:
        self.blocks += 1
        return [{"type": "content_block_start", "index": self.blocks - 1, "content_block": block}]

    def _close(self) -> list[Body]:
        if self.open is None:
            return []
        self.open = None
        return [_stopped(self.blocks - 1)]

    @staticmethod
    def _delta(index: int, delta: Body) -> Body:
        return {"type": "content_block_delta", "index": index, "delta": delta}


def _json_delta(text: str) -> Body:
    return {"type": "input_json_delta", "partial_json": text}


def _stopped(index: int) -> Body:
    return {"type": "content_block_stop", "index": index}
