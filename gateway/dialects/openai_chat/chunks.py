"""Builds the chunks of a Chat Completions response from events."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.citations import Citations
from gateway.dialects.logprobs import chat_logprobs
from gateway.dialects.openai_chat.reasoning import packed_detail
from gateway.dialects.openai_chat.usage import usage_of
from gateway.dialects.reasoning import ReasoningCollector
from gateway.dialects.service_tiers import openai_tier
from shared.protocol.events import Done, Event, Extra, Reasoning, Refusal, Start, Token, ToolCall

Body = dict[str, Any]
#: Members of the response that every chunk repeats.
_REPEATED: Final = frozenset({"system_fingerprint", "service_tier"})
#: Members that name the reasoning's place at the server; the text itself is in reasoning events.
_PLACES: Final = frozenset({"reasoning_content", "reasoning", "reasoning_text"})
_TEXT_OF_DETAIL: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}


class ChunkBuilder:
    """Builder of one response. A provider's own members join the chunk of the next event. ``repeats``: members that
    the provider repeats in every chunk are repeated here too."""

    def __init__(self, frame: Body, *, repeats: bool) -> None:
        self._frame = frame
        self._repeats = repeats
        self._each: Body = {}
        self._has_refused = False
        self._named: set[int] = set()  # indexes of tool calls that were sent with id and name
        self._foreign = ReasoningCollector()
        self._packed = 0  # entries of another family's reasoning
        self._is_thinking = False
        self._detail: Body | None = None  # entry of `reasoning_details` that the next reasoning text belongs to
        self._has_waiting = False
        self._chunk: Body = {}
        self._choice: Body = {}
        self._delta: Body = {}
        self._calls: dict[int, Body] = {}
        self._usage: Body = {}
        self._own_reason: str | None = None
        self._citations = Citations()

    def take(self, event: Event) -> Iterator[Body]:
        """Return the chunks of an event before the end."""
        if self._is_thinking and not isinstance(event, Reasoning | Extra):
            self._end_thinking(event)
        self._cite(event)
        match event:
            case Token():
                self._citations.length += len(event.token)
                yield self._made({"content": event.token})
            case ToolCall(complete=False):
                yield self._made({"tool_calls": [self._call(event)]})
            case Reasoning():
                self._foreign.take(event)
                self._is_thinking = True
                yield self._made(self._thought(event.text))
            case Refusal():
                self._has_refused = True
                yield self._made({"refusal": event.text})
            case Start():
                self._frame["model"] = f"{event.provider}/{event.model}"
                yield self._made({"role": "assistant", "content": ""})
            case Extra(family="openai"):
                yield from self._extra(event.data)
            case Extra():
                yield from self._foreign_extra(event)

    def end(self, done: Done) -> tuple[Body, Body | None]:
        """Return the last chunk of the choice, and the usage. A refusal with text ends with ``stop``: at
        ``content_filter`` the SDKs' helpers raise and discard the text."""
        if self._is_thinking:
            self._end_thinking(done)
        self._cite(done)
        if self._calls:
            self._delta["tool_calls"] = [{"index": index, **members} for index, members in self._calls.items()]
        if self._own_reason is not None:
            self._choice.setdefault("native_finish_reason", self._own_reason)
        reason = "stop" if self._has_refused and done.finish_reason == "content_filter" else done.finish_reason
        self._has_waiting = True
        return self._made({}, reason), usage_of(done.usage, self._usage) if done.usage else None

    def _made(self, delta: Body, finish_reason: str | None = None) -> Body:
        if not self._has_waiting and not self._each:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            return {**self._frame, "choices": [choice]}
        each_chunk, each_choice, each_delta = (_members(self._each, name) for name in ("chunk", "choice", "delta"))
        for name, value in delta.items():
            before = self._delta.get(name)
            self._delta[name] = before + value if isinstance(before, list) else value
        delta = {**each_delta, **self._delta}
        choice = {**each_choice, **self._choice, "index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {**each_chunk, **self._chunk, **self._frame, "choices": [choice]}
        self._chunk, self._choice, self._delta, self._has_waiting = {}, {}, {}, False
        return chunk

    def _call(self, call: ToolCall) -> Body:
        """Return a fragment of a tool call. Id and name are sent once, because SDKs concatenate repeated fields."""
        fragment: Body = {"index": call.index, "function": {"arguments": call.arguments}}
        if call.index not in self._named:
            self._named.add(call.index)
            fragment |= {"id": call.id, "type": "function"}
            fragment["function"] = {"name": call.name, "arguments": call.arguments}
        return fragment | self._calls.pop(call.index, {}) if self._calls else fragment

    def _thought(self, text: str) -> Body:
        if self._detail is None:
            return {"reasoning_content": text}
        name = _TEXT_OF_DETAIL[self._detail["type"]]
        return {"reasoning_content": text, "reasoning_details": [{**self._detail, name: text}]}

    def _end_thinking(self, event: Event) -> None:
        """Add the reasoning of a provider of another family to the next chunk, for the client to send back."""
        self._is_thinking = False
        packed = self._foreign.take(event)
        if packed is not None and packed[0] != "openai":
            self._add(self._delta, "reasoning_details", [packed_detail(packed, self._packed)])
            self._packed += 1

    def _foreign_extra(self, event: Extra) -> Iterator[Body]:
        """Keep data of a provider of another family, as far as this format has a place for it."""
        if (logprobs := chat_logprobs(event)) is not None:
            yield from self._extra({"choice": {"logprobs": logprobs}})
        if (tier := openai_tier(event)) is not None:
            self._frame["service_tier"] = tier
        self._foreign.take(event)
        self._is_thinking = True

    def _cite(self, event: Event) -> None:
        """Add the citations of a text that has ended, and those that the provider has placed, to the next chunk."""
        if type(event) is Token:
            return
        if pages := [*self._citations.take(event), *self._citations.take_part(event)]:
            annotations = [{"type": "url_citation", "url_citation": page} for page in pages]
            self._add(self._delta, "annotations", annotations)

    def _extra(self, data: Body) -> Iterator[Body]:
        """Keep a provider's own members for the next chunk. Members that wait already go out first."""
        if self._repeats and "each" in data:
            self._each = _members(data, "each")
        chunk = {name: value for name, value in _members(data, "chunk").items() if name not in _REPEATED}
        self._frame |= {name: value for name, value in _members(data, "chunk").items() if name in _REPEATED}
        choice, delta = _members(data, "choice"), _members(data, "delta")
        delta = {name: value for name, value in delta.items() if value != "" or name not in _PLACES}
        if isinstance(details := delta.pop("reasoning_details", None), list):
            self._details(details)
        if self._choice.keys() & choice.keys() or self._delta.keys() & delta.keys():
            yield self._made({})
        for waiting, members in ((self._chunk, chunk), (self._choice, choice), (self._delta, delta)):
            for name, value in members.items():
                self._add(waiting, name, value)
        if isinstance(index := data.get("call"), int):
            self._calls.setdefault(index, {}).update(_members(data, "members"))
        self._usage |= _members(data, "usage")
        if isinstance(reason := data.get("finish_reason"), str):
            self._own_reason = reason

    def _details(self, details: list[Any]) -> None:
        """Keep entries of `reasoning_details`. One without its text begins the reasoning text that follows."""
        for detail in details:
            place = _TEXT_OF_DETAIL.get(str(detail.get("type"))) if isinstance(detail, dict) else None
            if place is not None and not detail.get(place) and not detail.get("signature"):
                self._detail = detail
            else:
                self._add(self._delta, "reasoning_details", [detail])

    def _add(self, waiting: Body, name: str, value: Any) -> None:
        before = waiting.get(name)
        waiting[name] = before + value if isinstance(before, list) and isinstance(value, list) else value
        self._has_waiting = True


def _members(data: Body, name: str) -> Body:
    members = data.get(name)
    return members if isinstance(members, dict) else {}
