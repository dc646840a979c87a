"""Mutations that break a stream, and mutations of its texts.

A broken stream ends by an error, or as the original. Breaks that leave another answer as good as the original are not
made: no reader could notice it.
"""

import copy
import json
import random
from typing import Any, Final

from tests.wires.answers import OFFERED
from tests.wires.building import fragments_of
from tests.wires.kept_framing import Mutation
from tests.wires.stream import Data, WireEvent, WireStream

_ERRORS: Final[tuple[Data, ...]] = (
    {"error": {"message": "x", "type": "server_error", "code": 500}},
    {"error": "overloaded"},
    {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
    {"error": {"code": 429, "message": "x"}},
)


def body_cut_off(stream: WireStream, rng: random.Random) -> None:
    stream.body_end = rng.random() * 0.999


def connection_broken(stream: WireStream, rng: random.Random) -> None:
    stream.body_end = rng.random() * 0.999
    stream.is_reset = True


def end_dropped(stream: WireStream, rng: random.Random) -> None:
    del stream.events[len(stream.events) - rng.randrange(1, len(stream.events) + 1) :]


def end_marker_dropped(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if event.kind != "end"]


def reason_dropped(stream: WireStream, rng: random.Random) -> None:
    stream.events = [event for event in stream.events if event.kind != "reason"]
    if stream.wire == "ollama":
        end_marker_dropped(stream, rng)


def block_start_dropped(stream: WireStream, rng: random.Random) -> None:
    _drop_one(stream, rng, stream.of_kind("block start", "start"))


def block_stop_dropped(stream: WireStream, rng: random.Random) -> None:
    _drop_one(stream, rng, stream.of_kind("block stop", "usage"))


def json_cut(stream: WireStream, rng: random.Random) -> None:
    event = rng.choice([event for event in stream.events if event.raw is None])
    text = json.dumps(event.data)
    event.raw = text[: rng.randrange(1, len(text))] + " " * rng.choice((0, 0, 5))


def call_fragments_dropped(stream: WireStream, rng: random.Random) -> None:
    """Drop the last piece of a call's arguments, or the first one, or the name with all pieces but the last. All
    pieces may be dropped for a tool that requires arguments."""
    if not stream.answer.calls or stream.wire == "ollama":
        return
    at = rng.randrange(len(stream.answer.calls))
    pieces = [event for event in stream.events if event.kind == "call" and event.call == at and _arguments(event, at)]
    choices = [[event for event in stream.events if event.call == at and event is not pieces[-1]]]
    if stream.wire == "responses":  # the end of the answer has all calls: only their order would change
        choices = [[event for event in choices[0] if event.name != "response.output_item.added"]]
    if len(pieces) > 1:
        choices += [pieces[:1], pieces[-1:]]
    if OFFERED.get(stream.answer.calls[at].name):
        choices.append(pieces)
    dropped = rng.choice(choices)
    stream.events = [event for event in stream.events if event not in dropped]


def _arguments(event: WireEvent, call: int) -> str:
    if "output_index" in event.data:
        return str(event.data.get("delta", "")).strip()
    if "delta" in event.data:
        return str(event.data["delta"]["partial_json"]).strip()
    return "".join(str(f["function"]["arguments"]) for f in fragments_of([event], call)).strip()


def error_reported(stream: WireStream, rng: random.Random) -> None:
    """An error before the reason ends the answer."""
    last = next((at for at, event in enumerate(stream.events) if event.kind in {"reason", "end"}))
    error = WireEvent("error", copy.deepcopy(rng.choice(_ERRORS)))
    stream.events.insert(rng.randrange(last + 1), error)


def _drop_one(stream: WireStream, rng: random.Random, events: list[WireEvent]) -> None:
    if events:
        stream.events.remove(rng.choice(events))


BROKEN: Final[tuple[Mutation, ...]] = (
    body_cut_off,
    connection_broken,
    end_dropped,
    end_marker_dropped,
    reason_dropped,
    block_start_dropped,
    block_stop_dropped,
    json_cut,
    call_fragments_dropped,
    error_reported,
)


# --- texts


def texts_dropped(stream: WireStream, rng: random.Random) -> None:
    dropped = [event for event in stream.of_kind("text") if rng.random() < 0.4]
    stream.events = [event for event in stream.events if event not in dropped]
    _read_text(stream)


def texts_repeated(stream: WireStream, rng: random.Random) -> None:
    events: list[WireEvent] = []
    for event in stream.events:
        events += [copy.deepcopy(event) for _ in range(rng.choice((1, 1, 2, 3)) if event.kind == "text" else 1)]
    stream.events = events
    _read_text(stream)


def _read_text(stream: WireStream) -> None:
    texts = [_text(event.data) for event in stream.of_kind("text")]
    if texts or stream.wire != "responses":  # there, the end of an item has its text again
        stream.answer.text = texts


def _text(data: Any) -> str:
    if "output_index" in data:
        return str(data["delta"])
    if "choices" in data:
        return str(data["choices"][0]["delta"]["content"])
    return str(data["delta"]["text"] if "delta" in data else data["message"]["content"])


TEXTS: Final[tuple[Mutation, ...]] = (texts_dropped, texts_repeated)
