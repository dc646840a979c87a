"""Joined logs give the same answers as the logs that were written."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.dialects.openai_responses.response import ResponseInfo, Stored
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.live.batch import Batch
from shared.broker.answer import answer_view
from shared.broker.status import StreamState
from shared.protocol import events
from shared.protocol.events import (
    Continued,
    Done,
    Error,
    Event,
    Extra,
    Json,
    Reasoning,
    Refusal,
    Start,
    Token,
    ToolCall,
    Usage,
)
from shared.protocol.ids import EventId
from shared.protocol.joining import join_events
from shared.protocol.transcript import fold

_STATE = StreamState("completed", "stop", None, "openai", "m", 1, {"a": "b"}, None, None, None)
_WORDS = ("one ", "", "漢字", "🙂", "\n", '"', "\\u0000", "two")
_LOGPROBS: dict[str, Any] = {"logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
#: Kind of an item of the Responses API: the part of its text, and what closes it.
_ITEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("output_text", {"id": "msg_1"}),
    "refusal": ("refusal", {}),
    "reasoning": ("reasoning_text", {"encrypted_content": "x"}),
}


def a_log(seed: int) -> list[bytes]:
    return [events.encode(event) for event in _events(random.Random(seed))]


def _events(rng: random.Random) -> Iterator[Event]:
    yield Start("a" * 34, "m", "openai", 1)
    position = {"token": 0, "reasoning": 0, "refusal": 0, "call": 0}
    kinds = ("token", "token", "reasoning", "refusal", "call", "item", "json", "continued")
    text = ""
    for _ in range(rng.randrange(12)):
        kind = rng.choice(kinds)
        for event in _run(rng, kind, position, text):
            text += event.token if isinstance(event, Token) else ""
            yield event
    usage = Usage(3, position["token"], estimated=True)
    if rng.random() < 0.2:
        yield Error("provider_failed", "failed", retryable=True)
        yield Done("error", "provider_failed", usage)
    else:
        yield Done(rng.choice(["stop", "length", "content_filter", "tool_calls"]), None, usage)


def _run(rng: random.Random, kind: str, position: dict[str, int], text: str) -> Iterator[Event]:
    match kind:
        case "item":
            kind = rng.choice(list(_ITEMS))
            part, closing = _ITEMS[kind]
            yield Extra("responses", {"open": "reasoning" if kind == "reasoning" else "message", "item": {}})
            yield Extra("responses", {"part": part})
            for _ in range(rng.randrange(1, 3)):
                if kind == "token":
                    yield Extra("responses", _LOGPROBS)
                yield from _run(rng, kind, position, text)
            yield Extra("responses", {"close": closing})
        case "json":
            yield Json(["a", 0], 1)
            yield Json([], {"a": [1]}, outside=0)
        case "continued":
            yield Continued("other", "m2", position["token"], len(text))
        case "call":
            yield from _call(rng, position)
        case _:
            for _ in range(rng.randrange(1, 6)):
                n, at = rng.randrange(1, 4), position[kind]
                position[kind] += n
                yield _DELTAS[kind](rng.choice(_WORDS), at, n)


_DELTAS: dict[str, Any] = {"token": Token, "reasoning": Reasoning, "refusal": Refusal}


def _call(rng: random.Random, position: dict[str, int]) -> Iterator[Event]:
    index = position["call"]
    count = rng.randrange(1, 3)  # parallel ones
    position["call"] += count
    parts = {index + i: ['{"a": ', "1", "", "}"][: rng.randrange(5)] for i in range(count)}
    for i in parts:
        yield ToolCall(i, "", id=f"call_{i}", name="look")
    left = {i: list(all_parts) for i, all_parts in parts.items() if all_parts}
    while left:
        i = rng.choice(list(left))
        yield ToolCall(i, left[i].pop(0))
        left = {index: rest for index, rest in left.items() if rest}
    for i, all_parts in parts.items():
        yield ToolCall(i, "".join(all_parts) or "{}", id=f"call_{i}", name="look", complete=True)


def view(log: list[bytes]) -> list[Any]:
    """Everything that is made of a whole log."""
    transcript = fold(map(events.decode, log))
    return [
        answer_view("a" * 34, _STATE, transcript),
        (transcript.deltas, transcript.characters, transcript.prefixes, transcript.done, transcript.error),
        *(_response(log, encrypts=encrypts) for encrypts in (False, True)),
    ]


def _response(log: list[bytes], *, encrypts: bool) -> dict[str, Any]:
    info = ResponseInfo("a" * 34, "openai/m", 1, Stored(False, None, encrypts, {}), {}, None)
    renderer = ResponseEvents(info)
    renderer.render(Batch([(b"0-0", event) for event in log], EventId(0, len(log))))
    body: dict[str, Any] = msgspec.to_builtins(renderer.response.body)
    return body


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_a_joined_log_gives_the_same_answer(first: int) -> None:
    for seed in range(first, first + 100):
        log = a_log(seed)
        joined = join_events(log)
        assert view(joined) == view(log), seed
        assert join_events(joined) == joined, seed


def test_consecutive_deltas_become_one_event() -> None:
    log = [Token("a", 0), Token("b", 1, 2), Reasoning("r", 0), Reasoning("s", 1), Token("c", 3)]
    fragments = [ToolCall(0, "", id="1", name="f"), ToolCall(0, "{"), ToolCall(1, "", id="2", name="f")]
    joined = [events.decode(each) for each in join_events(map(events.encode, [*log, *fragments, ToolCall(1, "}")]))]
    assert joined == [
        Token("ab", 0, 3),
        Reasoning("rs", 0, 2),
        Token("c", 3),
        ToolCall(0, "{", id="1", name="f", n=2),
        ToolCall(1, "}", id="2", name="f", n=2),
    ]
    assert join_events([]) == []


def test_no_other_event_is_changed() -> None:
    others = [Start("a" * 34, "m", "p", 1), Json(["a"], 1), Json(["b"], 2), Extra("openai", {}), Extra("openai", {})]
    log = [events.encode(each) for each in [*others, Refusal("no", 0), Done("stop", None, None)]]
    assert join_events(log) == log
