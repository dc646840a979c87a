"""Mutations of all wires that keep the meaning, and that other mutations may be put on top of."""

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.wires.stream import Data, WireEvent, WireStream

Mutation = Callable[[WireStream, random.Random], None]

_SSE: Final = ("openai", "anthropic", "responses")
_UNKNOWN: Final = ("x_field", "obfuscation", "trace", "provider_extra", "cost", "日本", "Content", "x.y")
_ANYTHING: Final[tuple[Any, ...]] = (None, 0, -1, 1.5, "", "x", [], {}, [{"a": [None]}], {"b": {"c": 1}}, True, False)
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {}, False)
#: The model's own data: nothing may be added to it.
_PAYLOAD: Final = frozenset({"arguments", "input"})


def cut_into_bytes(stream: WireStream, rng: random.Random) -> None:
    stream.cut = "bytes" if len(stream.events) < 25 else "pieces"


def cut_into_pieces(stream: WireStream, rng: random.Random) -> None:
    stream.cut = "pieces"


def line_ends(stream: WireStream, rng: random.Random) -> None:
    stream.framing.line_end = rng.choice(("\r\n", "\r")) if stream.wire in _SSE else "\r\n"


def no_space_after_colons(stream: WireStream, rng: random.Random) -> None:
    stream.framing.space = rng.choice(("", "  "))


def byte_order_mark(stream: WireStream, rng: random.Random) -> None:
    stream.framing.bom = True


def no_event_names(stream: WireStream, rng: random.Random) -> None:
    stream.framing.names = False


def event_names(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        if event.name is None:
            event.name = rng.choice(("message", "chunk", "completion", "data"))


def data_over_several_lines(stream: WireStream, rng: random.Random) -> None:
    stream.framing.over_lines = True


def unescaped_characters(stream: WireStream, rng: random.Random) -> None:
    stream.framing.escaped = False


def comments(stream: WireStream, rng: random.Random) -> None:
    if stream.wire in _SSE:
        stream.framing.between += (": comment\n\n", ":\n\n", ": a\n: b\n\n", "\n", "\n\n\n", "retry: 3000\n\n")
    else:
        stream.framing.between += ("\n", " \n", "\n\n")


def other_fields(stream: WireStream, rng: random.Random) -> None:
    stream.framing.fields += (": comment", "id: 7", "retry: 10", "x-field: data: {}", "unknown", "id")


def keep_alives(stream: WireStream, rng: random.Random) -> None:
    if stream.wire in _SSE:
        stream.framing.between += ("data:\n\n", "data: \n\n", "event: ping\n\n", "event: ping\ndata:\n\n")


def no_last_line_break(stream: WireStream, rng: random.Random) -> None:
    stream.framing.last_blank_line = False


def unknown_members(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        for members in _objects(event.data):
            if members and rng.random() < 0.3:
                members[rng.choice(_UNKNOWN)] = anything(rng)


def members_in_another_order(stream: WireStream, rng: random.Random) -> None:
    for event in stream.events:
        for members in _objects(event.data):
            items = list(members.items())
            rng.shuffle(items)
            members.clear()
            members.update(items)


def more_after_the_end(stream: WireStream, rng: random.Random) -> None:
    stream.events.append(WireEvent("noise", raw=rng.choice(('{"choices":[]}', "junk", "[DONE]", "{", "null"))))


def anything(rng: random.Random) -> Any:
    """Return a value of any type."""
    return copy.deepcopy(rng.choice(_ANYTHING))


def nothing(rng: random.Random) -> Any:
    """Return one of the values that servers send in a member without content."""
    return copy.deepcopy(rng.choice(_NOTHING))


def _objects(value: Any) -> Iterator[Data]:
    """Yield all objects of the protocol within a value, the innermost first."""
    if isinstance(value, dict):
        for name, member in list(value.items()):
            if name not in _PAYLOAD:
                yield from _objects(member)
        yield value
    elif isinstance(value, list):
        for member in value:
            yield from _objects(member)


def insert(stream: WireStream, rng: random.Random, event: WireEvent, *, first: int = 1) -> None:
    """Insert an event anywhere before the end marker; ``first``: the first place that is allowed."""
    last = stream.first("end")
    stream.events.insert(rng.randrange(min(first, last), last + 1), event)


FRAMING: Final[tuple[Mutation, ...]] = (
    cut_into_bytes,
    cut_into_pieces,
    line_ends,
    no_space_after_colons,
    byte_order_mark,
    no_event_names,
    event_names,
    data_over_several_lines,
    unescaped_characters,
    comments,
    other_fields,
    keep_alives,
    no_last_line_break,
    unknown_members,
    members_in_another_order,
)
