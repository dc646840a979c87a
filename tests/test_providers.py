"""Each provider's stream becomes deltas, however it is cut; closing one closes the provider's connection."""

import asyncio
import itertools
from contextlib import aclosing

import pytest

from shared.protocol import events
from shared.protocol.events import PartialUsage, Usage
from tests.fakes import Answer, Counts, FakeProvider
from tests.provider_client import PROMPT, Make, ask, canonical, collect, network, text_in
from tests.raw_server import answering
from workers.providers.base import Finished, ReasoningDelta, TextDelta

TEXT = ["Zwölf ", "Boxkämpfer 🥊", "\n", "jagen\r\n\n", "Viktor\u2028", ' "quer" \\ ', "data: x\n\n"]


# --- whole answers


@network
async def test_an_answer_becomes_deltas_and_one_finished_with_usage(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=TEXT, usage=(5, 7)))
    assert await collect(make(name), ask("m")) == [
        *(TextDelta(text) for text in TEXT),
        Finished("stop", Usage(input_tokens=5, output_tokens=7)),
    ]
    (call,) = fake.calls
    assert (call.provider, call.model, call.prompt) == (name, "m", PROMPT)
    assert call.request["stream"] is True
    await call.wait_closed()
    assert (call.finished, call.closed_by_client, call.sent_deltas) == (True, False, len(TEXT))


@network
async def test_usage_is_none_if_the_provider_does_not_report_it(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=["hi"], usage=None))
    assert await collect(make(name), ask("m")) == [TextDelta("hi"), Finished("stop", None)]


@network
async def test_cached_and_reasoning_tokens_are_counted(fake: FakeProvider, make: Make, name: str) -> None:
    """Ollama counts only the cached ones."""
    fake.play("m", Answer(deltas=["hi"], usage=Counts(30, 9, cached=20, cache_write=4, reasoning=5)))
    usage = Usage(30, 9, cached_tokens=20, cache_write_tokens=4, reasoning_tokens=5)
    expected = usage if name != "ollama" else Usage(30, 9, cached_tokens=20)
    assert await collect(make(name), ask("m")) == [TextDelta("hi"), Finished("stop", expected)]


@network
async def test_the_counts_of_one_side_are_kept(fake: FakeProvider, make: Make, name: str) -> None:
    for counts, expected in (
        (Counts(30, None, cached=20), PartialUsage(input_tokens=30, cached_tokens=20)),
        (Counts(None, 9), PartialUsage(output_tokens=9)),
    ):
        fake.play("m", Answer(deltas=["hi"], usage=counts))
        assert await collect(make(name), ask("m")) == [TextDelta("hi"), Finished("stop", expected)]


@network
async def test_thinking_becomes_reasoning(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(reasoning=["Hm", "…"], deltas=["Yes"], usage=None))
    parts = await collect(make(name), ask("m"))
    assert [part for part in parts if not isinstance(part, events.Extra)] == [
        ReasoningDelta("Hm"),
        ReasoningDelta("…"),
        TextDelta("Yes"),
        Finished("stop", None),
    ]


@pytest.mark.parametrize(
    ("name", "reported", "expected"),
    [
        ("openai", "stop", "stop"),
        ("openai", "length", "length"),
        ("openai", "tool_calls", "tool_calls"),
        ("openai", "function_call", "tool_calls"),
        ("openai", "content_filter", "content_filter"),
        ("openai", "eos", "stop"),
        ("anthropic", "end_turn", "stop"),
        ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "length"),
        ("anthropic", "model_context_window_exceeded", "length"),
        ("anthropic", "tool_use", "tool_calls"),
        ("anthropic", "refusal", "content_filter"),
        ("anthropic", "pause_turn", "stop"),
        ("ollama", "stop", "stop"),
        ("ollama", "length", "length"),
        ("ollama", "load", "stop"),
    ],
)
async def test_finish_reasons_are_mapped(
    fake: FakeProvider, make: Make, name: str, reported: str, expected: str
) -> None:
    fake.play("m", Answer(finish_reason=reported))
    finished = (await collect(make(name), ask("m")))[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == expected


@network
async def test_several_calls_share_one_connection(fake: FakeProvider, make: Make, name: str) -> None:
    provider = make(name)
    for n in range(5):
        assert text_in(await collect(provider, ask("echo", f"this is {n}"))) == f"this is {n}"
    assert fake.open_connections == 1


@network
async def test_more_concurrent_streams_than_the_sdks_own_pools_allow(
    fake: FakeProvider, make: Make, name: str
) -> None:
    gate = asyncio.Event()
    fake.play("m", Answer(deltas=lambda number: [f"call {number}"], gate=gate))
    provider = make(name, concurrency=130)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(collect(provider, ask("m"))) for _ in range(130)]
        await fake.wait_calls(130)
        gate.set()
    assert len({text_in(task.result()) for task in tasks}) == 130


# --- segmentation


@network
@pytest.mark.parametrize("frame_bytes", [1, 7, None])
@pytest.mark.parametrize("crlf", [False, True])
async def test_an_answer_does_not_depend_on_its_segmentation(
    fake: FakeProvider, make: Make, name: str, frame_bytes: int | None, crlf: bool
) -> None:
    fake.play("m", Answer(deltas=TEXT, usage=(5, 7), frame_bytes=frame_bytes, crlf=crlf, comments=True))
    assert await collect(make(name), ask("m")) == [
        *(TextDelta(text) for text in TEXT),
        Finished("stop", Usage(input_tokens=5, output_tokens=7)),
    ]


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        (
            "openai",
            rb"""data: {"choices":[{"delta":{"content":"a\ud83e"}}]}

data: {"choices":[{"delta":{"content":"\udd4ab"},"finish_reason":"stop"}]}

data: [DONE]

""",
        ),
        (
            "anthropic",
            rb"""data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a\ud83e"}}

data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\udd4ab"}}

data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}

data: {"type":"message_stop"}

""",
        ),
    ],
)
async def test_a_character_may_arrive_in_two_halves(make: Make, name: str, wire: bytes) -> None:
    """The two escapes of a surrogate pair are in separate deltas, which JSON allows and UTF-8 does not."""
    async with answering(wire) as url:
        deltas = await collect(make(name, OPENAI_BASE_URL=url, ANTHROPIC_BASE_URL=url), ask("m"))
    assert text_in(deltas) == "a\ud83e\udd4ab"


@network
async def test_a_large_answer_arrives_whole(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=lambda _: (f"{n} " for n in range(5000))))
    assert text_in(await collect(make(name), ask("m"))) == "".join(f"{n} " for n in range(5000))


# --- closing


@network
async def test_closing_the_generator_closes_the_providers_connection(
    fake: FakeProvider, make: Make, name: str
) -> None:
    fake.play("m", Answer(deltas=["a", "b"], gate=asyncio.Event(), gate_after=1))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        first = await anext(deltas)
        assert isinstance(first, list)
        assert canonical(first) == [TextDelta("a")]
    await fake.calls[0].wait_closed()
    assert fake.calls[0].closed_by_client
    assert fake.calls[0].sent_deltas == 1


@network
@pytest.mark.parametrize("answer", [Answer(first_delay_s=60), Answer(deltas=["a"], end="hang")])
async def test_cancelling_the_reader_closes_the_providers_connection(
    fake: FakeProvider, make: Make, name: str, answer: Answer
) -> None:
    fake.play("m", answer)
    reader = asyncio.create_task(collect(make(name), ask("m")))
    (call,) = await fake.wait_calls(1)
    if not answer.first_delay_s:
        await call.wait_deltas(1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await call.wait_closed()
    assert call.closed_by_client


@network
async def test_a_reader_that_stops_reading_stops_the_provider(fake: FakeProvider, make: Make, name: str) -> None:
    fake.play("m", Answer(deltas=lambda _: itertools.repeat("x" * 1000)))
    async with aclosing(make(name).stream(ask("m"))) as deltas:
        await anext(deltas)
        (call,) = fake.calls
        await call.wait_stalled(0.5)
        before = call.sent_bytes
        assert call.stalled_s >= 0.5
        while call.sent_bytes == before:
            await anext(deltas)
    await call.wait_closed()
    assert call.closed_by_client


async def test_clients_that_vanish_anywhere_harm_neither_the_server_nor_others(
    fake: FakeProvider, make: Make
) -> None:
    fake.play("m", Answer(deltas=lambda number: itertools.repeat(f"call {number} "), delay_s=0.001))
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    port = int(fake.ollama_host.rpartition(":")[2])

    async def vanish(after: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:after] if after < len(request) else request)
        await asyncio.sleep(after % 7 / 100)
        writer.transport.abort() if after % 2 else writer.close()

    await asyncio.gather(*(vanish(after) for after in range(0, 2 * len(request), 3)), vanish_with_nonsense(port))
    for call in await fake.wait_calls(1):
        await call.wait_closed()
    assert text_in(await collect(make("openai"), ask("echo"))) == PROMPT


async def vanish_with_nonsense(port: int) -> None:
    for nonsense in (b"\x16\x03\x01\r\n\r\n", b"POST /api/chat HTTP/1.1\r\ncontent-length: 3\r\n\r\n{x}"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(nonsense)
        await reader.read(100)
        writer.close()
