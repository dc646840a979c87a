"""Mutations of the lines of Ollama that keep the meaning."""

import copy
import json
import random
from typing import Any, Final

from tests.wires.building import line
from tests.wires.kept_framing import Mutation, anything, insert, more_after_the_end, nothing
from tests.wires.stream import WireEvent, WireStream

_SPELLINGS: Final = {
    "stop": ("STOP", "end_turn", None, ""),
    "length": ("LENGTH", "max_tokens"),
    "tool_calls": ("tool_calls", "stop", None),
    "content_filter": ("safety", "CONTENT_FILTER"),
}


def empty_lines(stream: WireStream, rng: random.Random) -> None:
    for _ in range(3):
        data = rng.choice(({}, line({"content": ""}), {"done": False}, {"message": None}, {"status": "loading"}))
        insert(stream, rng, WireEvent("noise", copy.deepcopy(data)), first=0)


def not_objects(stream: WireStream, rng: random.Random) -> None:
    insert(stream, rng, WireEvent("noise", raw=rng.choice(("null", "[]", "0", '"x"', "ping"))), first=0)


def needless_members_of_any_type(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.raw is None:
            for name in ("model", "created_at", "total_duration", "load_duration", "context"):
                event.data[name] = anything(rng)
            if event.data.get("message"):
                event.data["message"]["role"] = anything(rng)


def needless_members_with_nothing(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.raw is not None:
            continue
        for name in ("done", "done_reason", "error", "message"):
            event.data[name] = event.data.get(name) or nothing(rng)
        if isinstance(message := event.data["message"], dict):
            for name in ("content", "thinking", "tool_calls", "images"):
                message[name] = message.get(name) or nothing(rng)


def arguments_as_text(stream: WireStream, rng: random.Random) -> None:
    for call in _calls(stream):
        if isinstance(call["function"]["arguments"], dict):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])


def no_arguments(stream: WireStream, rng: random.Random) -> None:
    for call in _calls(stream):
        if call["function"]["arguments"] == {}:
            call["function"]["arguments"] = rng.choice((None, "", {}))


def no_ids(stream: WireStream, rng: random.Random) -> None:
    for call in _calls(stream):
        call["id"] = rng.choice((None, "", 5))
    for expected in stream.answer.calls:
        expected.id = None


def index_of_any_kind(stream: WireStream, rng: random.Random) -> None:
    for call in _calls(stream):
        call["index"] = call["function"]["index"] = rng.choice((0, 0, 7, None, "x"))


def each_call_on_a_line(stream: WireStream, rng: random.Random) -> None:
    at = stream.first("call")
    if at < len(stream.events):
        calls = stream.events.pop(at).data["message"]["tool_calls"]
        stream.events[at:at] = [WireEvent("call", line({"content": "", "tool_calls": [call]})) for call in calls]


def calls_on_the_last_line(stream: WireStream, rng: random.Random) -> None:
    if len(events := stream.of_kind("call")) == 1:
        stream.events.remove(events[0])
        stream.of_kind("end")[0].data["message"]["tool_calls"] = events[0].data["message"]["tool_calls"]


def text_on_the_last_line(stream: WireStream, rng: random.Random) -> None:
    texts = stream.of_kind("text")
    if texts and not stream.answer.calls:
        last = stream.of_kind("end")[0].data["message"]
        if not last["content"]:
            last["content"] = texts[-1].data["message"]["content"]
            stream.events.remove(texts[-1])


def reason_spelled_otherwise(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("end"):
        if event.raw is None:
            event.data["done_reason"] = rng.choice(_SPELLINGS[stream.answer.finish])


def usage_again(stream: WireStream, rng: random.Random) -> None:
    counts = {"prompt_eval_count": stream.answer.usage[0], "eval_count": rng.randrange(1 + stream.answer.usage[1])}
    insert(stream, rng, WireEvent("noise", {**line({"content": ""}), **counts}), first=0)


def lines_as_events(stream: WireStream, rng: random.Random) -> None:
    """A proxy made events of the lines."""
    for event in stream.events:
        if event.raw is None:
            event.raw = f"data: {json.dumps(event.data)}\n"


def _calls(stream: WireStream) -> list[Any]:
    return [call for event in stream.events for call in (event.data.get("message") or {}).get("tool_calls") or ()]


OLLAMA: Final[tuple[Mutation, ...]] = (
    empty_lines,
    not_objects,
    needless_members_of_any_type,
    arguments_as_text,
    no_arguments,
    no_ids,
    index_of_any_kind,
    each_call_on_a_line,
    calls_on_the_last_line,
    text_on_the_last_line,
    reason_spelled_otherwise,
    usage_again,
    more_after_the_end,
)
#: Put on top of all others, which look for the members of a line.
OLLAMA_LAST: Final[tuple[Mutation, ...]] = (needless_members_with_nothing, lines_as_events)
