"""Good streams of the wires, as their servers document them."""

import json
import random
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Final

from tests.wires.answers import GoodAnswer, GoodCall
from tests.wires.building_responses import responses_events
from tests.wires.stream import Data, WireEvent

#: The finish reasons in the words of each wire.
REASONS: Final[Mapping[str, Mapping[str, str]]] = {
    "openai": {finish: finish for finish in ("stop", "length", "tool_calls", "content_filter")},
    "anthropic": {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
    },
    "ollama": {"stop": "stop", "length": "length", "tool_calls": "stop", "content_filter": "content_filter"},
}


# --- OpenAI


def openai_events(answer: GoodAnswer, rng: random.Random) -> list[WireEvent]:
    thinking = rng.choice(("reasoning_content", "reasoning"))
    events = [WireEvent("start", chunk({"role": "assistant", "content": ""}))]
    events += [WireEvent("reasoning", chunk({thinking: text})) for text in answer.reasoning]
    events += [WireEvent("text", chunk({"content": text})) for text in answer.text]
    events += _openai_calls(answer.calls, in_turn=rng.random() < 0.3)
    events.append(WireEvent("reason", chunk({}, REASONS["openai"][answer.finish])))
    events.append(WireEvent("usage", {**chunk({}), "choices": [], "usage": openai_usage(answer.usage)}))
    events.append(WireEvent("end", raw="[DONE]"))
    return events


def chunk(delta: Data, finish_reason: str | None = None) -> Data:
    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def openai_usage(usage: list[int]) -> Data:
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}


def _openai_calls(calls: list[GoodCall], *, in_turn: bool) -> list[WireEvent]:
    """``in_turn``: the fragments of parallel calls alternate."""
    starts = [_fragment(at, id=call.id, type="function", name=call.name) for at, call in enumerate(calls)]
    grown = [[_fragment(at, arguments=text) for text in call.fragments] for at, call in enumerate(calls)]
    if in_turn:
        return [*starts, *(event for together in zip_longest(*grown) for event in together if event)]
    return [event for start, rest in zip(starts, grown, strict=True) for event in (start, *rest)]


def _fragment(index: int, *, name: str | None = None, arguments: str = "", **members: Any) -> WireEvent:
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    call = {"index": index, **members, "function": function}
    return WireEvent("call", chunk({"tool_calls": [call]}), call=index)


def fragments_of(events: list[WireEvent], call: int) -> list[Data]:
    """Return the members of ``tool_calls`` that belong to a call of an OpenAI stream."""
    return [
        fragment
        for event in events
        if event.kind == "call"
        for fragment in event.data["choices"][0]["delta"]["tool_calls"]
        if event.call == call
    ]


# --- Anthropic


def anthropic_events(answer: GoodAnswer, rng: random.Random) -> list[WireEvent]:
    cached, written = rng.choice(((0, 0), (0, 0), (answer.usage[0] // 2, answer.usage[0] // 4)))
    counts = {"input_tokens": answer.usage[0] - cached - written, "output_tokens": 1}
    if cached or written:
        counts |= {"cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": counts}
    events = [_event("start", {"type": "message_start", "message": message})]
    index = 0
    if answer.reasoning:
        deltas = [{"type": "thinking_delta", "thinking": text} for text in answer.reasoning]
        events += _block(index, {"type": "thinking", "thinking": "", "signature": ""}, "reasoning", deltas)
        index += 1
    if answer.text:
        deltas = [{"type": "text_delta", "text": text} for text in answer.text]
        events += _block(index, {"type": "text", "text": ""}, "text", deltas)
        index += 1
    for at, call in enumerate(answer.calls):
        deltas = [{"type": "input_json_delta", "partial_json": text} for text in call.fragments]
        start: Data = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        events += _block(index + at, start, "call", deltas, call=at)
    delta = {"stop_reason": REASONS["anthropic"][answer.finish], "stop_sequence": None}
    usage = {"output_tokens": answer.usage[1]}
    events.append(_event("reason", {"type": "message_delta", "delta": delta, "usage": usage}))
    return [*events, _event("end", {"type": "message_stop"})]


def _event(kind: str, data: Data, call: int | None = None) -> WireEvent:
    return WireEvent(kind, data, call=call, name=data["type"])


def _block(index: int, block: Data, kind: str, deltas: list[Data], call: int | None = None) -> list[WireEvent]:
    return [
        _event("block start", {"type": "content_block_start", "index": index, "content_block": block}, call),
        *(_event(kind, {"type": "content_block_delta", "index": index, "delta": delta}, call) for delta in deltas),
        _event("block stop", {"type": "content_block_stop", "index": index}, call),
    ]


# --- Ollama


def ollama_events(answer: GoodAnswer, rng: random.Random) -> list[WireEvent]:
    events = [WireEvent("reasoning", line({"content": "", "thinking": text})) for text in answer.reasoning]
    events += [WireEvent("text", line({"content": text})) for text in answer.text]
    made = [
        {"id": call.id, "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
        for call in answer.calls
    ]
    if made:
        events.append(WireEvent("call", line({"content": "", "tool_calls": made})))
    reason = REASONS["ollama"][answer.finish]
    last = {"done": True, "done_reason": reason, "total_duration": 5, "prompt_eval_count": answer.usage[0]}
    return [*events, WireEvent("end", {**line({"content": ""}), **last, "eval_count": answer.usage[1]})]


def line(message: Data) -> Data:
    message = {"role": "assistant", **message}
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False}


BUILDERS: Final[Mapping[str, Callable[[GoodAnswer, random.Random], list[WireEvent]]]] = {
    "openai": openai_events,
    "anthropic": anthropic_events,
    "ollama": ollama_events,
    "responses": responses_events,
}
