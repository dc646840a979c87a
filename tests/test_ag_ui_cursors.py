"""Every cut of an AG-UI run is resumed exactly, and an answer that was restarted is taken back. The frames are the
renderer's, and their reader is the official client."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.ag_ui.cursor import READY, STARTED, Cursor, Shown, parse_cursor
from gateway.dialects.ag_ui.frames import Run, with_messages
from gateway.dialects.ag_ui.stream import AgUiEvents
from gateway.live.batch import Batch
from shared.errors import InvalidLastEventId
from shared.protocol import events
from shared.protocol.events import Done, Error, Event, Extra, Reasoning, Start, Token, ToolCall, Usage
from shared.protocol.ids import EventId, format_event_id
from shared.protocol.waiting import Awaited, Waiting
from tests.conformance.node import Node
from tests.conformance.outcome import Ask, Outcome

RUN: Final = Run("thread", "run", has_messages=True)
EARLIER: Final[list[dict[str, Any]]] = [
    {"id": "u1", "role": "user", "content": "hi"},
    {"id": "a1", "role": "assistant", "content": "yes?"},
    {"id": "u2", "role": "user", "content": [{"type": "text", "text": "well \u2028"}]},
]
SIGNED: Final = Extra("anthropic", {"in": "thinking", "delta": {"type": "signature_delta", "signature": "sig"}})


def start(attempt: int) -> Start:
    return Start("00" * 17, "model", "openai", attempt)


def answer(attempt: int) -> list[Event]:
    """Return an answer with every kind of part. Its calls are interleaved."""
    return [
        start(attempt),
        Reasoning(f"[{attempt}] let me ", 0),
        Reasoning("think", 1),
        SIGNED,
        Token(f"[{attempt}] Hel", 0),
        Token("lo", 1),
        Reasoning("again", 2),
        ToolCall(0, "", id=f"call 0/{attempt}", name="one"),
        ToolCall(1, '{"y"', id="call!1", name="two"),
        ToolCall(0, '{"x": '),
        ToolCall(1, ": 2}"),
        ToolCall(0, "1}"),
        Token(" and", 2),
        ToolCall(0, '{"x": 1}', complete=True),
        ToolCall(1, '{"y": 2}', complete=True),
        Token(" bye", 3),
        Done("tool_calls", None, Usage(5, 7)),
    ]


def plain(attempt: int) -> list[Event]:
    return [start(attempt), Token(f"[{attempt}] only text", 0), Done("stop", None, None)]


def batch(epoch: int, log: list[Event], *, reset: bool = False) -> Batch:
    numbered = [(format_event_id(epoch, seq), events.encode(event)) for seq, event in enumerate(log, 1)]
    return Batch(numbered, EventId(epoch, len(log)), reset=reset, ended=isinstance(log[-1], Done))


def frames(rendered: bytes, earlier: list[dict[str, Any]] = EARLIER) -> list[bytes]:
    """Divide what was rendered, with the messages in each snapshot."""
    rendered = with_messages(rendered, json.dumps(earlier)[1:-1].encode())
    return [block + b"\n\n" for block in rendered.split(b"\n\n")[:-1]]


def cursor_after(received: list[bytes]) -> Cursor | None:
    ids = [block.split(b"\n")[0] for block in received if block.startswith(b"id: ")]
    return parse_cursor(ids[-1].removeprefix(b"id: ").decode()) if ids else None


def resumed(received: list[bytes], epoch: int, log: list[Event]) -> list[bytes]:
    """Return what a client gets that resumes after ``received``, if the log is of ``epoch``."""
    cursor = cursor_after(received)
    is_stale = cursor is not None and cursor.at != EventId(0, 0) and cursor.at.epoch != epoch
    renderer = AgUiEvents(RUN, after=cursor, joins=True)
    renderer.is_stale = is_stale
    return frames(renderer.render(batch(epoch, log)))


def whole(epoch: int, log: list[Event], *, joins: bool) -> list[bytes]:
    return frames(AgUiEvents(RUN, joins=joins).render(batch(epoch, log)))


@pytest.mark.parametrize("joins", [False, True])
def test_a_cut_after_any_event_is_resumed_with_the_rest(joins: bool) -> None:
    every = whole(5, answer(1), joins=joins)
    assert len({block.split(b"\n")[0] for block in every}) == len(every)
    for cut in range(1, len(every) + 1):
        assert every[:cut] + resumed(every[:cut], 5, answer(1)) == every, every[cut - 1]


def test_a_wait_has_no_id_and_does_not_move_the_cursor() -> None:
    renderer = AgUiEvents(RUN)
    waiting = frames(renderer.queued(3) + renderer.waiting(Waiting(Awaited.MODEL)))
    assert [json.loads(block.partition(b"data: ")[2])["type"] for block in waiting] == [
        "RUN_STARTED",
        "CUSTOM",
        "CUSTOM",
    ]
    assert [block.startswith(b"id: ") for block in waiting] == [True, False, False]
    rest = frames(renderer.render(batch(5, answer(1))))
    assert resumed(waiting, 5, answer(1)) == rest


def test_a_snapshot_of_a_request_without_messages_is_json() -> None:
    """A request may have only context. The snapshot then has nothing but the empty reasoning message."""
    renderer = AgUiEvents(RUN, joins=True)
    received = renderer.render(batch(5, answer(1)[:9])) + renderer.render(batch(9, plain(2), reset=True))
    sent = [json.loads(block.partition(b"data: ")[2]) for block in frames(received, [])]
    snapshots = [event["messages"] for event in sent if event["type"] == "MESSAGES_SNAPSHOT"]
    assert snapshots == [[{"id": f"run/{epoch}/r1", "role": "reasoning", "content": ""}] for epoch in (5, 9)]


def test_a_client_that_has_the_ending_gets_it_again_only_on_request() -> None:
    every = whole(5, plain(1), joins=False)
    cursor = cursor_after(every)
    assert cursor is not None
    assert cursor.is_end
    again = AgUiEvents(RUN, after=cursor, joins=True, repeats_end=True).render(batch(5, plain(1)))
    assert frames(again) == every[-1:]


def test_a_failure_is_one_ending_with_the_usage() -> None:
    failed = [*answer(1)[:5], Error("provider_error", "it failed", retryable=True)]
    failed.append(Done("error", "provider_error", Usage(5, 7)))
    every = whole(5, failed, joins=False)
    ending = json.loads(every[-1].partition(b"data: ")[2])
    assert ending["type"] == "RUN_ERROR"
    assert (ending["code"], ending["metadata"], ending["usage"][0]["totalTokens"]) == (
        "provider_error",
        {"retryable": True},
        12,
    )
    assert sum(b'"RUN_' in block for block in every) == 2
    for cut in range(1, len(every) + 1):
        assert every[:cut] + resumed(every[:cut], 5, failed) == every


def test_a_cursor_may_be_beyond_the_end_of_the_log_for_a_while() -> None:
    """Redis has lost the end of the log; its worker writes it again."""
    every = whole(5, answer(1), joins=False)
    renderer = AgUiEvents(RUN, after=cursor_after(every[:20]), joins=True)
    short, rest = answer(1)[:4], batch(5, answer(1))
    got = renderer.render(batch(5, short))
    got += renderer.render(Batch(rest.events[4:], rest.last, ended=True))
    assert every[:20] + frames(got) == every


shown_parts = st.builds(
    Shown,
    base=st.integers(0, 10**15 - 1),
    has_reasoned=st.booleans(),
    part=st.sampled_from(["", "t", "s1", "r12"]),
    calls=st.lists(st.text(min_size=1, max_size=40), max_size=3).map(tuple),
)
places = st.builds(EventId, st.integers(1, 10**15 - 1), st.integers(1, 10**15 - 1))
cursors = st.one_of(
    st.sampled_from([STARTED, READY, Cursor(EventId(9, 0), 1)]),
    st.builds(Cursor, places, st.integers(1, 10**9 - 1), st.just(False), st.none() | shown_parts),
    st.builds(Cursor, places, st.just(0), st.just(True), st.none() | shown_parts),
)


@given(cursors)
def test_a_cursor_survives_its_text(cursor: Cursor) -> None:
    assert parse_cursor(str(cursor)) == cursor
    assert str(cursor).isascii()
    assert str(cursor).isprintable()


def test_a_cursor_may_have_long_call_ids() -> None:
    """Some proxies pack signed reasoning into the id of a call."""
    cursor = Cursor(EventId(5, 17), 2, shown=Shown(5, calls=("call_1__thought__" + "A+/=" * 1000, "水" * 200)))
    assert parse_cursor(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["5-3", "x", "5-3.", "5-3.1~", "5-3.1~x", "5-3.1~5q", "5-3.1~5!a b", "5-3.1~5!"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidLastEventId, match="Last-Event-ID: not an event id of an AG-UI stream"):
        parse_cursor(text)


# --- restarted answers, as the official client shows them


@pytest.fixture(scope="session")
async def node() -> AsyncIterator[Node]:
    async with Node() as node:
        yield node


async def shown_by_client(
    node: Node, received: list[bytes], *, before: list[Any] | None = None, endings: int = 1
) -> tuple[list[Any], str | None]:
    """Return the messages that the client has after the stream, and its ending. ``before``: those it has before."""
    outcome, body = Outcome(), b"".join(received).decode()
    join = {"threadId": "thread", "runId": "run", "messages": before or EARLIER, "body": body, "endings": endings}
    await node.run("ag-ui-replay", Ask(base="", model="", join=join), outcome, lambda: None)
    assert outcome.error is None, (outcome.error, b"".join(received).decode())
    return outcome.messages, outcome.finish


async def check(node: Node, received: list[bytes], expected: tuple[list[Any], str | None]) -> None:
    messages, finish = await shown_by_client(node, received)
    kept = [message for message in messages if message["role"] != "reasoning" or message["content"]]
    assert (kept, finish) == expected, b"".join(received).decode()


def restarts(first: list[Event], second: list[Event]) -> Iterator[list[bytes]]:
    """Yield what clients receive of an answer that is restarted after any of its events: connected all the time; cut
    once, before the restart; and cut a second time while it is taken back."""
    for length in range(1, len(first)):
        begun = first[:length]
        renderer = AgUiEvents(RUN)
        before = frames(renderer.render(batch(5, begun)))
        yield before + frames(renderer.render(batch(9, second, reset=True)))
        for cut in range(max(1, len(before) - 1), len(before) + 1):
            received = before[:cut]
            rest = resumed(received, 9, second)
            yield received + rest
            for again in range(1, min(len(rest), 7)):
                yield received + rest[:again] + resumed(received + rest[:again], 9, second)


@pytest.mark.parametrize("second", [answer(2), plain(2)], ids=["answer", "plain"])
async def test_a_restarted_answer_replaces_all_that_was_shown(node: Node, second: list[Event]) -> None:
    expected = await shown_by_client(node, whole(9, second, joins=False))
    assert any("[2]" in str(message.get("content")) for message in expected[0])
    cases = list(restarts(answer(1), second))
    assert len(cases) > 200
    for at in range(0, len(cases), 50):
        await asyncio.gather(*(check(node, received, expected) for received in cases[at : at + 50]))


async def test_a_restart_of_a_restart_is_taken_back_too(node: Node) -> None:
    renderer = AgUiEvents(RUN)
    received = frames(renderer.render(batch(5, answer(1)[:9])))
    received += frames(renderer.render(batch(9, answer(2)[:5], reset=True)))
    received += frames(renderer.render(batch(12, answer(3), reset=True)))
    await check(node, received, await shown_by_client(node, whole(12, answer(3), joins=False)))


async def test_a_client_that_joins_again_with_a_part_of_the_answer_shows_it_once(node: Node) -> None:
    every = whole(5, answer(1), joins=True)
    expected = await shown_by_client(node, whole(5, answer(1), joins=False))
    for cut in (3, 12, len(every)):
        part, _ = await shown_by_client(node, every[:cut], endings=int(cut == len(every)))
        messages, _ = await shown_by_client(node, every, before=part)
        assert messages == expected[0]
