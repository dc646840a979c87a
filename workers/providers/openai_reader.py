"""Reader of Chat Completions streams, as OpenAI and the servers that follow it send them.

Members have any type, because servers differ in them. Something else instead of text is not the protocol, because
passing it over would lose text.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from shared.protocol.events import Extra
from workers.providers.base import Delta, Finished, ReasoningDelta, RefusalDelta, TextDelta
from workers.providers.errors import StreamedError
from workers.providers.finish_reasons import FinishNote
from workers.providers.framing import ErrorEvent, as_text, decode, loose_json
from workers.providers.http_calls import ProviderCall
from workers.providers.openai_chunks import Choice, Chunk, Function, ToolCall, decoder
from workers.providers.openai_chunks import Delta as DeltaStruct
from workers.providers.openai_extras import FAMILY, Extras
from workers.providers.openai_template import Template, template_of
from workers.providers.tool_calls import ToolCalls, arguments_text, text_or_none
from workers.providers.usage_counts import UsageCounts, member, whole_number


class ChatCompletionReader:
    """Reader of one answer (:class:`workers.providers.reading.AnswerReader`)."""

    def __init__(self, call: ProviderCall, calls: ToolCalls) -> None:
        self.is_whole = False
        self._call = call
        self._calls = calls
        self._finish = FinishNote(call.provider)
        self._counts = UsageCounts()
        self._choice: Any = None  # index of the first choice; others are not mixed in
        self._is_refusal = False
        self._has_begun = False
        self._extras = Extras()
        self._template: Template | None = None  # of the latest chunk with one text
        self._unused = 0  # templates since one was used
        self._waiting: list[Extra] = []  # until there is output: they alone are none
        self._usage: dict[str, Any] = {}
        self._own_reason: str | None = None
        self._has_other = False  # pieces that are no chunk have come

    @property
    def can_end(self) -> bool:
        return self._finish.reason is not None

    def take(self, piece: bytes) -> Iterable[Delta]:
        template = self._template
        if template is not None and type(piece) is bytes and (text := template.text_of(piece)):
            if template.is_content and not self._waiting:
                return (TextDelta(text),)
            return self._take_choice(template.choice_with(text))
        if not piece.startswith(b"{") or isinstance(piece, ErrorEvent):
            return self._take_other(piece)
        return self._take_chunk(piece)

    def _take_chunk(self, piece: bytes) -> Iterator[Delta]:
        chunk = decode(decoder, piece)
        if chunk.error or not (chunk.choices or chunk.usage):
            _check_error(chunk, piece)
        self._has_begun = True
        extras = self._extras.of_chunk(chunk, piece)
        self._waiting += extras
        if chunk.choices:
            if self._choice is None:
                self._choice = _first_index(chunk.choices)
            for choice in chunk.choices:
                if choice.index is None or choice.index == self._choice:
                    yield from self._take_choice(choice)
        if chunk.usage is not None:
            self._count(chunk.usage)
        if chunk.timings is not None:
            self._count_timings(chunk.timings)
        self._template = None if extras else self._next_template(chunk, piece)

    def _next_template(self, chunk: Chunk, piece: bytes) -> Template | None:
        """Return the template of this chunk if it has one, else the latest. Chunks that differ in more than a text
        all have one, and none is ever used: then no more are made."""
        latest = self._template
        if latest is not None and latest.is_used:
            self._unused = 0
        made = template_of(chunk, piece) if self._unused < _MOST_UNUSED else None
        if made is None or made.choice.index not in {None, self._choice}:
            return latest
        self._unused += 1
        return made

    def end(self) -> Iterator[Delta]:
        reason = self._finish.reason
        if reason is None:
            raise self._call.incomplete(is_protocol=self._has_begun or not self._has_other)
        yield from self._calls.finish(reason)
        if self._usage:
            self._waiting.append(Extra(FAMILY, {"usage": self._usage}))
        if self._own_reason is not None:
            self._waiting.append(Extra(FAMILY, {"finish_reason": self._own_reason}))
        yield from self._waiting
        detail = "refusal" if self._is_refusal else self._finish.unknown
        reason = "content_filter" if self._is_refusal else self._calls.reason(reason)
        self._call.finished = Finished(reason, self._counts.usage(), detail)

    def _take_other(self, piece: bytes) -> Iterator[Delta]:
        if piece == b"[DONE]":
            self.is_whole = True
        elif isinstance(piece, ErrorEvent):
            raise StreamedError(loose_json(piece))
        elif piece.startswith(b"[{"):
            for chunk in decode(_list_decoder, piece):
                yield from self.take(json.dumps(chunk).encode())
        else:  # a keep-alive of some server: it is not an object, so it carries nothing
            self._has_other = True

    def _take_choice(self, choice: Choice) -> Iterator[Delta]:
        if choice.error:
            raise StreamedError(choice.error)
        delta = choice.delta or choice.message
        if choice.logprobs is not None:
            self._waiting.append(Extra(FAMILY, {"choice": {"logprobs": choice.logprobs}}))
        if delta is not None:
            if delta.reasoning_content or delta.reasoning or delta.reasoning_text or delta.reasoning_details:
                yield from self._after_extras(self._extras.thoughts(delta))
            if isinstance(delta.content, str) and delta.content and not self._waiting:
                yield TextDelta(delta.content)
            elif delta.content:
                yield from self._after_extras(_parts(delta.content))
            if delta.tool_calls or delta.function_call or delta.refusal or delta.annotations:
                yield from self._after_extras(self._refusal_or_calls(delta))
        if choice.finish_reason or choice.usage is not None:
            self._note_end(choice)

    def _after_extras(self, deltas: Iterator[Delta]) -> Iterator[Delta]:
        """Return deltas in their order. Extras wait for output: they alone are none."""
        for delta in deltas:
            if isinstance(delta, Extra) and not _is_of_call(delta):
                self._waiting.append(delta)
            else:
                yield from self._extras_so_far()
                yield delta

    def _extras_so_far(self) -> list[Extra]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _note_end(self, choice: Choice) -> None:
        if choice.finish_reason:
            self._finish.note(choice.finish_reason)
            is_own = isinstance(choice.finish_reason, str) and choice.finish_reason not in _REASONS
            self._own_reason = str(choice.finish_reason) if is_own else None
        if choice.usage is not None:  # Moonshot's place
            self._count(choice.usage)

    def _refusal_or_calls(self, delta: DeltaStruct) -> Iterator[Delta]:
        if delta.annotations:
            yield Extra(FAMILY, {"delta": {"annotations": delta.annotations}})
        if delta.refusal and isinstance(delta.refusal, str):
            self._is_refusal = True
            yield RefusalDelta(delta.refusal)
        for call in delta.tool_calls or ():
            if call.custom is not None:
                yield self._custom(call)
                continue
            function = call.function or Function()
            yield from self._calls.fragment(
                whole_number(call.index),
                id=text_or_none(call.id),
                name=text_or_none(function.name),
                arguments=arguments_text(function.arguments),
                members={"extra_content": call.extra_content} if call.extra_content else None,
            )
        if (legacy := delta.function_call) is not None:
            name, arguments = text_or_none(legacy.name), arguments_text(legacy.arguments)
            yield from self._calls.fragment(0, id=None, name=name, arguments=arguments)

    def _custom(self, call: ToolCall) -> Extra:
        """Return a fragment of a call with a text instead of arguments, as it came."""
        members = {name: getattr(call, name) for name in ("id", "type", "custom", "extra_content")}
        given = {name: value for name, value in members.items() if value is not None}
        index = self._calls.other(whole_number(call.index))
        return Extra(FAMILY, {"delta": {"tool_calls": [{"index": index, **given}]}})

    def _count(self, usage: object) -> None:
        self._usage |= self._extras.of_usage(usage)
        self._counts.note(
            input=member(usage, "prompt_tokens"),
            output=_output(usage),
            cached=member(usage, "prompt_tokens_details", "cached_tokens"),
            cache_write=member(usage, "prompt_tokens_details", "cache_write_tokens"),
            reasoning=member(usage, "completion_tokens_details", "reasoning_tokens"),
        )
        for name in ("prompt_cache_hit_tokens", "cached_tokens"):  # DeepSeek, Moonshot
            self._counts.note(cached=member(usage, name))
        for path in (("cache_creation_input_tokens",), ("prompt_tokens_details", "cache_creation_input_tokens")):
            self._counts.note(cache_write=member(usage, *path))

    def _count_timings(self, timings: object) -> None:
        """llama.cpp: ``prompt_n`` tokens were evaluated and ``cache_n`` taken from its cache."""
        evaluated, cached = member(timings, "prompt_n"), member(timings, "cache_n")
        if isinstance(evaluated, int) and isinstance(cached, int):
            self._counts.note(input=evaluated + cached, output=member(timings, "predicted_n"), cached=cached)


def _is_of_call(extra: Extra) -> bool:
    return "call" in extra.data or "tool_calls" in extra.data.get("delta", ())


def _first_index(choices: list[Choice]) -> Any:
    """Return the lowest index of the first chunk."""
    return min((choice.index for choice in choices if isinstance(choice.index, int)), default=choices[0].index)


def _output(usage: object) -> object:
    """Return the output tokens. xAI and converters of Gemini count reasoning apart from ``completion_tokens``: then
    only all three counts make the total."""
    completion = member(usage, "completion_tokens")
    reasoning = whole_number(member(usage, "completion_tokens_details", "reasoning_tokens"))
    parts = whole_number(member(usage, "prompt_tokens")), whole_number(completion), reasoning
    if reasoning and None not in parts and sum(p or 0 for p in parts) == whole_number(member(usage, "total_tokens")):
        return (parts[1] or 0) + reasoning
    return completion


def _check_error(chunk: Chunk, piece: bytes) -> None:
    """Raise :class:`StreamedError` for a chunk that reports an error, in `error` or in members of its own."""
    whole: Any = loose_json(piece)
    if chunk.error:
        raise StreamedError(whole if member(whole, "status_code") else chunk.error)
    named = member(whole, "object") == "error" or member(whole, "type") == "error"
    if named or any(member(whole, name) for name in _ERROR_MEMBERS):
        raise StreamedError(whole)


def _parts(content: object) -> Iterator[Delta]:
    """Mistral's content: a list of texts, and of thoughts that are lists of texts. Other kinds are passed over."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield TextDelta(part)
        elif not isinstance(part, dict):
            raise ValueError("content that is neither text nor a part")  # noqa: TRY004  a fault of the server
        elif part.get("type") == "thinking":
            inner = part.get("thinking") or part.get("text") or ()
            texts = [inner] if isinstance(inner, str) else [member(t, "text") or t for t in inner]
            if text := "".join(t for t in texts if isinstance(t, str)):
                yield ReasoningDelta(text)
        elif text := as_text(part.get("text")):
            yield TextDelta(text)


_MOST_UNUSED: Final = 8
_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
#: Members that some servers report an error in, instead of `error`.
_ERROR_MEMBERS: Final = ("code", "status_code", "error_code", "error_type", "error_message", "message", "detail")
_list_decoder: Final = msgspec.json.Decoder(list[dict[str, Any]])
