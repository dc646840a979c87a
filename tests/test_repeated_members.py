"""Members that a server of Chat Completions adds to its chunks: repeated ones cost nothing, and none is lost."""

import json
from typing import Any

from tests.fakes.answer import Answer
from tests.openai_client import openai_client
from tests.system import System
from tests.test_chat_lossless import USER, choice, frames
from workers.providers.anthropic_reader import MessageReader
from workers.providers.base import Delta, ReasoningDelta, TextDelta
from workers.providers.errors import Upstream
from workers.providers.http_calls import ProviderCall
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.tool_calls import ToolCalls

COUNT = 200
NULLS = {"native_finish_reason": None, "logprobs": None, "token_ids": None, "stop_reason": None}
FLAGS = {"google": {"thought": True}}


def chunk(delta: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"provider": "acme", **choice({"mood": "calm", "extra_content": FLAGS, **delta}, **NULLS), **members}


async def chunks_of(system: System, model: str) -> list[dict[str, Any]]:
    """Return all chunks that a client of Chat Completions gets."""
    async with openai_client(system) as client:
        stream = await client.chat.completions.create(model=f"openai/{model}", messages=USER, stream=True)
        return [chunk.model_dump() async for chunk in stream]


async def native_events(system: System, model: str, kind: str) -> list[dict[str, Any]]:
    """Return the data of all events of one kind."""
    async with await system.stream(model) as connection:
        return [frame.data for frame in await connection.rest() if frame.event == kind]


async def test_repeated_members_cost_no_events_and_are_in_every_chunk(system: System) -> None:
    texts = [chunk({"content": f"{number} "}) for number in range(COUNT)]
    system.fake.play("repeats", Answer(raw=frames(*texts, chunk({}) | choice({}, "stop"))))
    assert sum(event["n"] for event in await native_events(system, "repeats", "token")) == COUNT
    assert len(await native_events(system, "repeats", "extra")) <= 4
    received = [made for made in await chunks_of(system, "repeats") if made["choices"][0]["delta"]["content"]]
    assert "".join(made["choices"][0]["delta"]["content"] for made in received) == "".join(
        f"{number} " for number in range(COUNT)
    )
    for made in received:
        assert made["provider"] == "acme"
        assert made["choices"][0]["delta"]["mood"] == "calm"
        assert made["choices"][0]["delta"]["extra_content"] == FLAGS


async def test_a_member_that_changes_or_ends_is_passed_on(system: System) -> None:
    first = [chunk({"content": "a"}) for _ in range(5)]
    second = [chunk({"content": "b"}, provider="other") for _ in range(5)]
    third = [choice({"content": "c"}) for _ in range(5)]
    system.fake.play("changes", Answer(raw=frames(*first, *second, *third, choice({}, "stop"))))
    seen: dict[str, set[Any]] = {}
    for made in await chunks_of(system, "changes"):
        if text := made["choices"][0]["delta"]["content"]:
            seen.setdefault(text[0], set()).add((made.get("provider"), made["choices"][0]["delta"].get("mood")))
    assert seen == {"a": {("acme", "calm")}, "b": {("other", "calm")}, "c": {(None, None)}}


async def test_what_belongs_to_one_token_stays_at_its_token(system: System) -> None:
    """Also if a token repeats."""
    ids = [[5], [5], [5], [5], [7], [5]]
    scores = [0.5, 0.25, 0.25, 0.25, 0.25, 0.25]
    tokens = [
        choice({"content": f"{at}"}, token_ids=each, score=score)
        for at, (each, score) in enumerate(zip(ids, scores, strict=True))
    ]
    system.fake.play("token-ids", Answer(raw=frames(*tokens, choice({}, "stop"))))
    choices = [made["choices"][0] for made in await chunks_of(system, "token-ids")]
    received = [
        (each["delta"]["content"], each["token_ids"], each["score"]) for each in choices if "token_ids" in each
    ]
    assert received == [(f"{at}", *pair) for at, pair in enumerate(zip(ids, scores, strict=True))]


async def test_a_new_member_is_seen_in_a_chunk_of_as_many_members(system: System) -> None:
    first, second = choice({"role": "assistant", "content": "a"}), choice({"content": "b", "mood": "calm"})
    system.fake.play("as-many", Answer(raw=frames(first, second, choice({"content": "c"}), choice({}, "stop"))))
    texts = [made["choices"][0]["delta"] for made in await chunks_of(system, "as-many")]
    (own,) = [delta for delta in texts if delta.get("mood")]
    assert own["mood"] == "calm"
    assert own["content"].startswith("b")


TEXTS = (
    "plain",
    'a "quoted" one',
    '{"content":"x"}',
    "back\\slash\\",
    "\n\t\u2028",
    "é🎉",
    "content",
    '"',
    "\\",
    '"}',
)


def read(pieces: list[bytes]) -> list[Delta]:
    reader = ChatCompletionReader(
        ProviderCall(Upstream("openai", "host", "", "", "openai"), "m", ()), ToolCalls("openai")
    )
    return [delta for piece in pieces for delta in reader.take(piece)]


def pieces_of(made: list[dict[str, Any]], separators: tuple[str, str] | None) -> list[bytes]:
    return [json.dumps(each, separators=separators).encode() for each in made]


def test_every_text_is_read_as_sent_however_chunks_resemble_each_other() -> None:
    for separators in ((",", ":"), None):
        for padding in ({}, {"obfuscation": "aB3"}, {"p": "abc"}):
            for before in TEXTS:
                for text in TEXTS:
                    made = [{"id": "1", **choice({"content": each}), **padding} for each in (before, before, text)]
                    texts = read(pieces_of(made, separators))
                    assert texts == [TextDelta(before), TextDelta(before), TextDelta(text)]


def test_a_chunk_that_only_resembles_the_one_before_is_read_in_full() -> None:
    (usual,) = pieces_of([{"id": "1", **choice({"content": "ab"}), "obfuscation": "xyz"}], (",", ":"))
    others = {
        b'"ab"': b'"a","mood":"b"',
        b'"ab"}': b'"ab"},"logprobs":{"content":[]}',
        b'"xyz"': b'"xyz","weather":"fine"',
        b'"id":"1"': b'"id":"1","weather":"fine"',
    }
    for before, after in others.items():
        other = usual.replace(before, after)
        assert other != usual
        extra, text = read([usual, usual, other])[2:]
        assert set(map(type, (extra, text))) == {type(extra), TextDelta}
        assert any(word in repr(extra) for word in ("mood", "logprobs", "weather"))


def test_a_null_member_of_thinking_costs_no_event() -> None:
    call = ProviderCall(Upstream("anthropic", "host", "", "", "anthropic"), "m", ())
    reader = MessageReader(call, ToolCalls("anthropic"), by_tool=False)
    delta = {"type": "thinking_delta", "thinking": "hm", "signature": None}
    (piece,) = pieces_of([{"type": "content_block_delta", "index": 0, "delta": delta}], None)
    assert list(reader.take(piece)) == [ReasoningDelta("hm")]
