"""Mutations of the tool calls of Chat Completions streams that keep the meaning."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

from tests.wires.building import fragments_of
from tests.wires.kept_framing import Mutation
from tests.wires.stream import Data, WireEvent, WireStream

_EachCall = Callable[[WireStream, random.Random, int, list[Data]], None]


def _each(change: _EachCall) -> Mutation:
    """Return a mutation that changes each call that still has fragments of its own."""

    def apply(stream: WireStream, rng: random.Random) -> None:
        for at in range(len(stream.answer.calls)):
            if fragments := fragments_of(stream.events, at):
                change(stream, rng, at, fragments)

    apply.__name__ = change.__name__
    return apply


def _is_named_first(fragments: list[Data]) -> bool:
    return [f for f in fragments if "name" in f["function"]] == fragments[:1]


def _has_own_index(stream: WireStream, at: int, fragments: list[Data]) -> bool:
    """Return True if all fragments of a call have one number, and no other call has it."""
    own = {str(f.get("index")) for f in fragments}
    others = [fragments_of(stream.events, other) for other in range(len(stream.answer.calls)) if other != at]
    return len(own) == 1 and "None" not in own and own.isdisjoint(str(f.get("index")) for o in others for f in o)


def _events(stream: WireStream, at: int) -> list[WireEvent]:
    return [event for event in stream.events if event.kind == "call" and event.call == at]


def name_repeated(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if _is_named_first(fragments):
        for fragment in fragments:
            fragment["function"]["name"] = stream.answer.calls[at].name


def name_late(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if len(fragments) > 1 and _is_named_first(fragments) and _has_own_index(stream, at, fragments):
        rng.choice(fragments[1:])["function"]["name"] = fragments[0]["function"].pop("name")


def name_in_pieces(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    name = stream.answer.calls[at].name
    cut = rng.randrange(1, len(name))
    if len(fragments) < 2 or not _is_named_first(fragments) or not _has_own_index(stream, at, fragments):
        return
    if fragments[0]["function"]["arguments"] or name[:cut] == name[cut:]:
        return  # arguments end the name, and a piece that equals the name so far is a repetition
    fragments[0]["function"]["name"], fragments[1]["function"]["name"] = name[:cut], name[cut:]


def empty_fragment_first(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if not _has_own_index(stream, at, fragments):
        return
    empty: Data = {"index": fragments[0]["index"], "function": {"name": rng.choice(("", None)), "arguments": ""}}
    if rng.random() < 0.5:
        empty["id"] = fragments[0].get("id")
    _insert_before(stream, _events(stream, at)[0], empty, at)


def empty_fragments_between(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    index = {"index": fragments[0]["index"]} if "index" in fragments[0] else {}
    for event in _events(stream, at)[1:]:
        function = rng.choice(({}, {"arguments": ""}, {"arguments": None}, {"name": "", "arguments": ""}, None))
        _insert_before(stream, event, {**index, "id": rng.choice((None, "")), "function": function}, None)


def _insert_before(stream: WireStream, event: WireEvent, fragment: Data, call: int | None) -> None:
    choice = {"index": 0, "delta": {"tool_calls": [fragment]}, "finish_reason": None}
    place = stream.events.index(event)
    kind = "noise" if call is None else "call"
    stream.events.insert(place, WireEvent(kind, {"choices": [choice]}, call=call))


def id_repeated(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if any(fragment.get("id") for fragment in fragments):
        for fragment in fragments:
            fragment["id"] = stream.answer.calls[at].id


def id_late(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if len(fragments) > 1 and fragments[0].get("id") and _has_own_index(stream, at, fragments):
        rng.choice(fragments[1:])["id"] = fragments[0].pop("id")


def no_id(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    if _has_own_index(stream, at, fragments):
        stream.answer.calls[at].id = None
        for fragment in fragments:
            fragment["id"] = rng.choice((None, ""))


def call_in_one_fragment(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    events = _events(stream, at)
    if not all(isinstance(f["function"]["arguments"], str) for f in fragments) or not _is_named_first(fragments):
        return
    fragments[0]["function"]["arguments"] = "".join(f["function"]["arguments"] for f in fragments)
    ids = [fragment["id"] for fragment in fragments if fragment.get("id")]
    fragments[0] |= {"id": ids[0]} if ids else {}
    stream.events = [each for each in stream.events if each not in events[1:]]


def arguments_with_the_name(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    events = _events(stream, at)
    if len(fragments) > 1 and _is_named_first(fragments) and not fragments[1].get("id"):
        fragments[0]["function"]["arguments"] += fragments[1]["function"]["arguments"]
        stream.events.remove(events[1])


def arguments_as_an_object(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    full = [fragment for fragment in fragments if fragment["function"]["arguments"]]
    if len(full) == 1 and isinstance(full[0]["function"]["arguments"], str):
        full[0]["function"]["arguments"] = json.loads(full[0]["function"]["arguments"])


def index_as_text(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    for fragment in fragments:
        if "index" in fragment:
            fragment["index"] = str(fragment["index"])


def type_of_any_kind(stream: WireStream, rng: random.Random, at: int, fragments: list[Data]) -> None:
    for fragment in fragments:
        fragment["type"] = rng.choice((None, "", "function", "tool", 5, []))


def index_that_says_nothing(stream: WireStream, rng: random.Random) -> None:
    """All calls without a number, or all with the same one; each begins with an id and its name."""
    calls = [fragments_of(stream.events, at) for at in range(len(stream.answer.calls))]
    order = [event.call for event in stream.events if event.kind == "call"]
    if order != sorted(order, key=lambda at: -1 if at is None else at) or not all(calls):
        return  # interleaved: then only the number distinguishes the calls
    if not all(_is_named_first(fragments) and fragments[0].get("id") for fragments in calls):
        return
    index: Any = rng.choice((None, 0, 3))
    for fragment in [fragment for fragments in calls for fragment in fragments]:
        fragment.pop("index", None)
        if index is not None:
            fragment["index"] = index


def all_calls_in_one_chunk(stream: WireStream, rng: random.Random) -> None:
    events = stream.of_kind("call")
    if len(events) > 1:
        together = [fragment for event in events for fragment in event.data["choices"][0]["delta"]["tool_calls"]]
        events[0].data["choices"][0]["delta"]["tool_calls"] = together
        events[0].call = None
        stream.events = [each for each in stream.events if each not in events[1:]]


def function_call_of_old(stream: WireStream, rng: random.Random) -> None:
    """The member that `tool_calls` replaced; it has neither a number nor an id."""
    events = stream.of_kind("call")
    if len(stream.answer.calls) != 1 or any("function" not in f for f in fragments_of(stream.events, 0)):
        return
    for event in events:
        delta = event.data["choices"][0]["delta"]
        if len(delta["tool_calls"]) != 1 or event.call != 0:
            return
    for event in events:
        delta = event.data["choices"][0]["delta"]
        delta["function_call"] = delta.pop("tool_calls")[0]["function"]
        event.call = None
        event.kind = "noise"
    stream.answer.calls[0].id = None


#: Applied in an order of their own: later ones see the result of earlier ones.
CALLS: Final[tuple[Mutation, ...]] = (
    *map(_each, (name_repeated, name_late, name_in_pieces, id_repeated, id_late, no_id, call_in_one_fragment)),
    *map(_each, (arguments_with_the_name, arguments_as_an_object, index_as_text, type_of_any_kind)),
    function_call_of_old,
    index_that_says_nothing,
    *map(_each, (empty_fragment_first, empty_fragments_between)),
    all_calls_in_one_chunk,
)
