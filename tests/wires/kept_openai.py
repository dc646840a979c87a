"""Mutations of Chat Completions streams that keep the meaning: choices, reasons, usage and texts."""

import copy
import random
from typing import Any, Final

from tests.wires.building import REASONS, chunk, openai_usage
from tests.wires.kept_framing import Mutation, anything, insert, more_after_the_end, nothing
from tests.wires.stream import Data, WireEvent, WireStream

_SPELLINGS: Final = {
    "stop": ("STOP", "Stop", "eos", "end_turn", "FINISH_REASON_STOP", "stop_sequence"),
    "length": ("LENGTH", "MAX_TOKENS", "maxTokens", "model_length", "FinishReason.MAX_TOKENS"),
    "tool_calls": ("TOOL_CALLS", "tool-calls", "toolUse", "tool_use", "function_call", "tool_call", "stop", "STOP"),
    "content_filter": (
        "CONTENT_FILTER",
        "SAFETY",
        "content_filter: SAFETY",
        "RECITATION",
        "refusal",
        "PROHIBITED_CONTENT",
    ),
}


def _choices(stream: WireStream) -> list[Data]:
    return [choice for event in stream.events for choice in event.data.get("choices") or ()]


def other_choices(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.data.get("choices") and rng.random() < 0.5:
            other: Data = {"index": rng.choice((1, 2)), "delta": {"content": "other", "reasoning": "other"}}
            other["finish_reason"] = rng.choice((None, "stop", "length"))
            call = {"index": 0, "id": "other", "function": {"name": "bash", "arguments": "{}"}}
            if rng.random() < 0.3:
                other["delta"] = {"tool_calls": [call]}
            event.data["choices"].insert(rng.randrange(2), other)


def empty_chunks(stream: WireStream, rng: random.Random) -> None:
    for _ in range(3):
        data = chunk(rng.choice(({}, {"content": ""}, {"content": None, "tool_calls": []}, {"role": "assistant"})))
        match rng.randrange(6):
            case 0:
                data["choices"] = rng.choice(([], None))
            case 1:
                data["choices"][0]["delta"] = None
            case 2:
                del data["choices"][0]["delta"]
            case 3:
                data = rng.choice(({}, {"choices": []}, {"type": "ping"}, {"object": "chat.completion.chunk"}))
        insert(stream, rng, WireEvent("noise", data))


def not_objects(stream: WireStream, rng: random.Random) -> None:
    for raw in rng.sample(("ping", "null", "[]", "keep-alive", '"x"', "[HEARTBEAT]", "0"), 2):
        insert(stream, rng, WireEvent("noise", raw=raw))


def needless_members_of_any_type(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.raw is not None:
            continue
        for name in ("id", "created", "model", "object", "system_fingerprint", "service_tier"):
            if rng.random() < 0.4:
                event.data[name] = anything(rng)
    for choice in _choices(stream):
        choice["logprobs"] = anything(rng)
        if choice.get("delta"):
            choice["delta"]["role"] = anything(rng)


def needless_members_with_nothing(stream: WireStream, rng: random.Random) -> None:
    """Members that are not needed in a chunk, with all forms of nothing."""
    for choice in _choices(stream):
        if not choice.get("finish_reason"):
            choice["finish_reason"] = nothing(rng)
        choice["message"] = nothing(rng)
        if not (delta := choice.get("delta")):
            choice["delta"] = nothing(rng)
            continue
        for name in ("content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning", "audio"):
            if name not in delta and rng.random() < 0.5:
                delta[name] = nothing(rng)
    for event in stream.events:
        if event.raw is None:
            for name in ("usage", "error", "timings", "code", "message", "choices"):
                event.data[name] = event.data.get(name) or nothing(rng)


def needless_counts_of_any_type(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if isinstance(usage := event.data.get("usage"), dict) and usage:
            usage["prompt_tokens_details"] = anything(rng)
            usage["completion_tokens_details"] = anything(rng)
            usage["total_tokens"] = anything(rng)


def text_as_parts(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("text"):
        delta = event.data["choices"][0]["delta"]
        if isinstance(delta["content"], str):
            delta["content"] = [{"type": "text", "text": delta["content"]}]


def thinking_twice(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("reasoning"):
        delta = event.data["choices"][0]["delta"]
        text = delta.get("reasoning") or delta.get("reasoning_content")
        delta |= {"reasoning": text, "reasoning_content": text, "reasoning_details": [{"text": text}]}


def reason_spelled_otherwise(stream: WireStream, rng: random.Random) -> None:
    word = rng.choice(_SPELLINGS[stream.answer.finish])
    for choice in _choices(stream):
        if choice.get("finish_reason") == REASONS["openai"][stream.answer.finish] and choice["index"] == 0:
            choice["finish_reason"] = word


def _reason(stream: WireStream) -> str:
    return next(str(choice["finish_reason"]) for choice in _choices(stream) if choice["finish_reason"])


def reason_again(stream: WireStream, rng: random.Random) -> None:
    insert(stream, rng, WireEvent("noise", chunk({}, _reason(stream))), first=stream.first("reason"))


def reason_on_each_chunk(stream: WireStream, rng: random.Random) -> None:
    word = _reason(stream)
    for choice in _choices(stream):
        if choice["index"] == 0:
            choice["finish_reason"] = word


def reason_with_the_last_delta(stream: WireStream, rng: random.Random) -> None:
    at = stream.first("reason")
    before = stream.events[at - 1] if 0 < at < len(stream.events) else None
    if before is not None and before.kind in {"text", "call", "reasoning"}:
        last, reason = before.data["choices"][0], stream.events[at].data
        last["finish_reason"] = _reason(stream)
        last["usage"] = reason["choices"][0].get("usage")
        before.data["usage"] = reason.get("usage")
        del stream.events[at]


def usage_again(stream: WireStream, rng: random.Random) -> None:
    again = WireEvent("noise", {**chunk({}), "usage": openai_usage(stream.answer.usage)})
    insert(stream, rng, again)


def usage_that_grows(stream: WireStream, rng: random.Random) -> None:
    prompt, completion = stream.answer.usage
    for at, event in enumerate(stream.of_kind("start", "text", "call", "reasoning")):
        event.data["usage"] = openai_usage([prompt, min(at, completion)])


def usage_with_the_reason(stream: WireStream, rng: random.Random) -> None:
    if (events := stream.of_kind("reason")) and (usage := stream.of_kind("usage")):
        events[0].data["usage"] = usage[0].data["usage"]
        stream.events.remove(usage[0])


def usage_in_a_choice(stream: WireStream, rng: random.Random) -> None:
    if (events := stream.of_kind("reason")) and (usage := stream.of_kind("usage")):
        events[0].data["choices"][0]["usage"] = usage[0].data["usage"]
        stream.events.remove(usage[0])


def usage_taken_back(stream: WireStream, rng: random.Random) -> None:
    """A later chunk without counts, or with smaller ones, takes nothing back."""
    low: Any = rng.choice((None, {}, openai_usage([0, 0]), {"prompt_tokens": -1, "completion_tokens": None}))
    insert(stream, rng, WireEvent("noise", {**chunk({}), "usage": copy.deepcopy(low)}), first=len(stream.events) - 1)


def texts_among_calls(stream: WireStream, rng: random.Random) -> None:
    """Texts and thoughts come anywhere before the reason, in their order."""
    for kind in ("text", "reasoning"):
        moved = stream.of_kind(kind)
        stream.events = [event for event in stream.events if event.kind != kind]
        places = sorted((rng.randrange(1, stream.first("reason") + 1) for _ in moved), reverse=True)
        for at, event in zip(places, reversed(moved), strict=True):
            stream.events.insert(at, event)


def no_stream(stream: WireStream, rng: random.Random) -> None:
    """A server that does not stream, although the request demands it."""
    answer = stream.answer
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]
    message: Data = {"role": "assistant", "content": "".join(answer.text), "reasoning": "".join(answer.reasoning)}
    choice = {"index": 0, "message": message | {"tool_calls": calls or None}, "finish_reason": answer.finish}
    stream.whole = {
        **chunk({}),
        "object": "chat.completion",
        "choices": [choice],
        "usage": openai_usage(answer.usage),
    }


def message_instead_of_delta(stream: WireStream, rng: random.Random) -> None:
    for choice in _choices(stream):
        if "delta" in choice:
            choice["message"] = choice.pop("delta")


OPENAI: Final[tuple[Mutation, ...]] = (
    empty_chunks,
    not_objects,
    needless_members_of_any_type,
    needless_members_with_nothing,
    needless_counts_of_any_type,
    texts_among_calls,
    text_as_parts,
    thinking_twice,
    reason_spelled_otherwise,
    reason_again,
    reason_on_each_chunk,
    usage_again,
    usage_that_grows,
    usage_with_the_reason,
    usage_in_a_choice,
    usage_taken_back,
    more_after_the_end,
)
#: Put on top of all others, which look for the first choice and its delta.
OPENAI_LAST: Final[tuple[Mutation, ...]] = (
    message_instead_of_delta,
    other_choices,
    no_stream,
    reason_with_the_last_delta,
)
