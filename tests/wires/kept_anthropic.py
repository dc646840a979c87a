"""Mutations of Messages streams that keep the meaning."""

import json
import random
from itertools import zip_longest
from typing import Any, Final

from tests.wires.building import REASONS
from tests.wires.kept_framing import Mutation, anything, insert, more_after_the_end, nothing
from tests.wires.stream import Data, WireEvent, WireStream

_SPELLINGS: Final = {
    "stop": ("stop", "END_TURN", "stop_sequence", "pause_turn"),
    "length": ("length", "MAX_TOKENS", "model_context_window_exceeded"),
    "tool_calls": ("TOOL_USE", "tool_calls", "end_turn", "stop"),
    "content_filter": ("content_filter", "guardrail_intervened", "REFUSAL"),
}
_SERVER_BLOCKS: Final = ("server_tool_use", "mcp_tool_use", "web_search_tool_result", "container_upload", "future", 5)
_SERVER_DELTAS: Final[tuple[Data, ...]] = (
    {"type": "input_json_delta", "partial_json": '{"query": "x"'},
    {"type": "citations_delta", "citation": {"text": "x"}},
    {"type": "future_delta", "text": "x", "thinking": "x"},
)


def _event(data: Data, kind: str = "noise") -> WireEvent:
    return WireEvent(kind, data, name=str(data.get("type")))


def pings(stream: WireStream, rng: random.Random) -> None:
    for _ in range(3):
        insert(stream, rng, _event(rng.choice(({"type": "ping"}, {"type": "ping", "x": [1]}, {}))), first=0)


def unknown_events(stream: WireStream, rng: random.Random) -> None:
    for _ in range(2):
        data = {"type": rng.choice(("future", "", None, 5)), "delta": {"type": "aura_delta"}, "index": 99}
        insert(stream, rng, _event(data))


def not_objects(stream: WireStream, rng: random.Random) -> None:
    for raw in rng.sample(("ping", "null", "[]", "[DONE]", '"x"', "0"), 2):
        insert(stream, rng, WireEvent("noise", raw=raw))


def blocks_of_the_server(stream: WireStream, rng: random.Random) -> None:
    """A tool that the server ran itself, its result, and kinds of blocks that do not exist yet."""
    index = rng.randrange(50, 60)
    block: Data = {
        "type": rng.choice(_SERVER_BLOCKS),
        "id": "srv_1",
        "name": "bash",
        "input": {},
        "content": [{"text": "x"}],
    }
    data = [{"type": "content_block_start", "index": index, "content_block": block}]
    if block["type"] in _SERVER_BLOCKS[:2]:
        data.append({"type": "content_block_delta", "index": index, "delta": _SERVER_DELTAS[0]})
    data += [{"type": "content_block_delta", "index": index, "delta": rng.choice(_SERVER_DELTAS[1:])}]
    data.append({"type": "content_block_stop", "index": index})
    at = rng.randrange(1, stream.first("reason") + 1)
    stream.events[at:at] = [_event(each) for each in data]


def deltas_of_other_kinds(stream: WireStream, rng: random.Random) -> None:
    for event in [*stream.of_kind("text", "reasoning")][:3]:
        delta = rng.choice((*_SERVER_DELTAS[1:], {"type": "signature_delta", "signature": "x"}))
        at = stream.events.index(event)
        stream.events.insert(at + 1, _event({**event.data, "delta": dict(delta)}))


def text_in_the_start(stream: WireStream, rng: random.Random) -> None:
    """The first text of a block stands in its start."""
    for at, event in enumerate(stream.events[:-1]):
        after = stream.events[at + 1]
        if event.kind == "block start" and after.kind in {"text", "reasoning"}:
            member = "text" if after.kind == "text" else "thinking"
            if after.data["delta"].get("type") == f"{member}_delta" and not event.data["content_block"][member]:
                event.data["content_block"][member] = after.data["delta"][member]
                del stream.events[at + 1]
                return


def input_in_the_start(stream: WireStream, rng: random.Random) -> None:
    for at, call in enumerate(stream.answer.calls):
        start, *deltas = [e for e in stream.events if e.call == at and e.kind in {"block start", "call"}]
        if "input" in start.data["content_block"]:
            whole: Any = json.loads(call.arguments)
            start.data["content_block"]["input"] = whole if rng.random() < 0.7 else json.dumps(whole)
            if rng.random() < 0.7:  # else the deltas bring the same again
                stream.events = [each for each in stream.events if each not in deltas]


def empty_inputs(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("block start"):
        if event.call is not None and not event.data["content_block"].get("input"):
            event.data["content_block"]["input"] = rng.choice((None, {}, ""))
    for event in stream.of_kind("call"):
        if rng.random() < 0.5:
            data = {**event.data, "delta": {"type": "input_json_delta", "partial_json": rng.choice(("", None))}}
            at = stream.events.index(event)
            stream.events.insert(at + rng.randrange(2), _event(data))


def calls_in_turn(stream: WireStream, rng: random.Random) -> None:
    """All calls begin, then their pieces come in turn, then all stop."""
    calls = [[event for event in stream.events if event.call == at] for at in range(len(stream.answer.calls))]
    if len(calls) > 1:
        at = stream.events.index(calls[0][0])
        middle = [event for together in zip_longest(*(call[1:-1] for call in calls)) for event in together if event]
        in_turn = [*(call[0] for call in calls), *middle, *(call[-1] for call in calls)]
        rest = [event for event in stream.events if event.call is None]
        stream.events = [*rest[:at], *in_turn, *rest[at:]]


def no_stream(stream: WireStream, rng: random.Random) -> None:
    """A server that does not stream, although the request demands it."""
    answer = stream.answer
    content: list[Data] = [{"type": "thinking", "thinking": "".join(answer.reasoning)}]
    content.append({"type": "text", "text": "".join(answer.text)})
    for call in answer.calls:
        content.append({"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)})
    usage = {"input_tokens": answer.usage[0], "output_tokens": answer.usage[1]}
    reason = REASONS["anthropic"][answer.finish]
    stream.whole = {"type": "message", "content": content, "stop_reason": reason, "usage": usage}


def no_block_stops(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if event.kind != "block stop"]


def indexes_with_gaps(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if type(event.data.get("index")) is int:
            event.data["index"] = event.data["index"] * 3 + 1


def one_index_for_all(stream: WireStream, rng: random.Random) -> None:
    order = [event.call for event in stream.events if event.call is not None]
    if order == sorted(order) and all(event.data.get("index", 0) in range(40) for event in stream.events):
        for event in stream.events:
            if "index" in event.data:
                event.data["index"] = 0


def index_as_text(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if "index" in event.data:
            event.data["index"] = str(event.data["index"])


def needless_members_of_any_type(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.kind == "start":
            for name in ("id", "role", "model", "content", "stop_reason"):
                event.data["message"][name] = anything(rng)
        block = event.data.get("content_block")
        if isinstance(block, dict) and block.get("type") in {"text", "thinking"}:
            for name in ("id", "name", "citations", "signature", "input"):
                block[name] = anything(rng)
        if event.kind in {"block stop", "end"}:
            for name in ("delta", "content_block", "message", "usage", "error"):
                event.data[name] = nothing(rng)


def members_of_other_kinds(stream: WireStream, rng: random.Random) -> None:
    """A delta's members that its kind does not have."""
    for event in stream.events:
        delta = event.data.get("delta")
        if event.kind in {"text", "reasoning", "call"} and isinstance(delta, dict):
            own = {"text": "text", "reasoning": "thinking", "call": "partial_json"}[event.kind]
            for name in {"text", "thinking", "partial_json", "stop_reason", "signature"} - {own}:
                delta[name] = anything(rng)


def reason_spelled_otherwise(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("reason"):
        if event.data["delta"].get("stop_reason") == REASONS["anthropic"][stream.answer.finish]:
            event.data["delta"]["stop_reason"] = rng.choice(_SPELLINGS[stream.answer.finish])


def reason_again(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("reason")[:1]:
        data = {"type": "message_delta", "delta": dict(event.data["delta"])}
        insert(stream, rng, _event(data), first=stream.first("reason"))


def usage_by_itself(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("reason")[:1]:
        if "usage" in event.data:
            usage = {"type": "message_delta", "delta": rng.choice(({}, None)), "usage": event.data.pop("usage")}
            insert(stream, rng, _event(usage))


def usage_taken_back(stream: WireStream, rng: random.Random) -> None:
    low: Any = rng.choice((None, {}, {"input_tokens": 0, "output_tokens": 0}, {"output_tokens": -1}, "x"))
    data = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": low}
    insert(stream, rng, _event(data), first=stream.first("end"))


def usage_that_grows(stream: WireStream, rng: random.Random) -> None:
    for output in range(1, min(4, stream.answer.usage[1])):
        insert(stream, rng, _event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": output}}))


ANTHROPIC: Final[tuple[Mutation, ...]] = (
    pings,
    unknown_events,
    not_objects,
    calls_in_turn,
    blocks_of_the_server,
    deltas_of_other_kinds,
    text_in_the_start,
    input_in_the_start,
    empty_inputs,
    needless_members_of_any_type,
    members_of_other_kinds,
    reason_spelled_otherwise,
    reason_again,
    usage_by_itself,
    usage_taken_back,
    usage_that_grows,
    more_after_the_end,
)
#: Put on top of all others, which look for the numbers of blocks and for their stops.
ANTHROPIC_LAST: Final[tuple[Mutation, ...]] = (
    indexes_with_gaps,
    one_index_for_all,
    index_as_text,
    no_block_stops,
    no_stream,
)
