"""Mutations of streams of Responses that keep the meaning."""

import random
from typing import Final

from tests.wires.building_responses import end_of, whole_response
from tests.wires.kept_framing import Mutation, anything, insert, more_after_the_end, nothing
from tests.wires.stream import Data, WireEvent, WireStream

_INDICES: Final = ("output_index", "content_index", "summary_index")


def _event(data: Data) -> WireEvent:
    return WireEvent("noise", data, name=str(data.get("type")))


def keep_alives(stream: WireStream, rng: random.Random) -> None:
    for number in range(3):
        data = {"type": rng.choice(("keepalive", "ping", "response.keepalive")), "sequence_number": number}
        insert(stream, rng, _event(data), first=0)


def unknown_events(stream: WireStream, rng: random.Random) -> None:
    for _ in range(2):
        kind = rng.choice(("future", "", "response.future.delta", "response.rate_limits"))
        insert(stream, rng, _event({"type": kind, "delta": {"text": "x"}, "output_index": 99, "x": anything(rng)}))


def not_objects(stream: WireStream, rng: random.Random) -> None:
    for raw in rng.sample(("ping", "null", "[]", '"x"', "0"), 2):
        insert(stream, rng, WireEvent("noise", raw=raw))


def tools_of_the_server(stream: WireStream, rng: random.Random) -> None:
    """A search that the server ran itself, with an event of its own, or an item of a kind that does not exist yet."""
    kind = rng.choice(("web_search_call", "mcp_call", "image_generation_call", "future"))
    item = {"type": kind, "id": "srv_1", "status": "completed", "action": {"query": "x"}, "content": "x"}
    data: list[Data] = [
        {"type": "response.output_item.added", "output_index": 77, "item": item},
        {"type": f"response.{kind}.searching", "output_index": 77, "item_id": "srv_1"},
        {"type": f"response.{kind}_arguments.delta", "output_index": 77, "item_id": "srv_1", "delta": "x"},
        {"type": "response.output_item.done", "output_index": 77, "item": item},
    ]
    at = rng.randrange(1, stream.first("end") + 1)
    stream.events[at:at] = [_event(each) for each in data]


def other_members(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        for name in ("sequence_number", "obfuscation", "logprobs"):
            event.data[name] = nothing(rng)


def no_done_events(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if event.kind != "block stop"]


def no_item_events(stream: WireStream, rng: random.Random) -> None:
    """Only the last event has the items."""
    stream.events = [event for event in stream.events if event.kind in {"start", "end"}]


def no_deltas(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if not str(event.name).endswith(".delta")]


def no_starts_of_texts(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if event.kind not in {"block start", "noise"}]


def ids_instead_of_indices(stream: WireStream, rng: random.Random) -> None:
    if all(
        isinstance(item.get("id"), str) for event in stream.events if isinstance(item := event.data.get("item"), dict)
    ):
        for event in stream.events:
            event.data.pop("output_index", None)


def another_id_in_each_event(stream: WireStream, rng: random.Random) -> None:
    for number, event in enumerate(stream.events):
        if "output_index" in event.data and "item_id" in event.data:
            event.data["item_id"] = f"other_{number}"


def indices_as_text(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        for name in _INDICES:
            if name in event.data:
                event.data[name] = str(event.data[name])


def no_output_at_the_end(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("end"):
        event.data["response"] = {**event.data["response"], "output": nothing(rng)}


def usage_details(stream: WireStream, rng: random.Random) -> None:
    for event in stream.of_kind("end"):
        details = rng.choice((None, {"cached_tokens": None}, "x", {"cached_tokens": 0}))
        event.data["response"]["usage"]["input_tokens_details"] = details


def no_stream(stream: WireStream, rng: random.Random) -> None:
    """A server that does not stream, although the request demands it."""
    stream.whole = whole_response(stream.answer)


def only_the_end(stream: WireStream, rng: random.Random) -> None:
    stream.events = [end_of(stream.answer)]


#: Each takes away what another one needs: at most one of them.
RESPONSES_LAST: Final[tuple[Mutation, ...]] = (
    no_done_events,
    no_item_events,
    no_deltas,
    no_starts_of_texts,
    ids_instead_of_indices,
    another_id_in_each_event,
    indices_as_text,
    no_output_at_the_end,
    no_stream,
    only_the_end,
)
RESPONSES: Final[tuple[Mutation, ...]] = (
    keep_alives,
    unknown_events,
    not_objects,
    tools_of_the_server,
    other_members,
    usage_details,
    more_after_the_end,
)
