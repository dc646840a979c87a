"""The compressed log of a stream that has ended (rule S14)."""

import zlib
from itertools import pairwise

import pytest

from shared.broker import declarations
from shared.broker.client import Client, run_script
from shared.broker.ending import Outcome
from shared.broker.replies import Code, LogPage
from shared.broker.scripts import StreamScripts
from shared.errors import ContentUnreadable
from shared.protocol import chunks as chunks_module
from shared.protocol import events
from shared.protocol.chunks import CHUNK_BYTES, CHUNK_EVENTS, compress, decompress, take
from shared.protocol.events import Usage
from shared.protocol.ids import START, EventId
from shared.settings import Settings
from tests.scripts.stream import DIGEST, DONE, ENDING, LOG, STATE, Stream, event, some
from tests.system import REPOSITORY

_LINE = some(1, 9)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 4)


async def ended(client: Client, written: list[bytes]) -> tuple[Stream, int]:
    """Return a stream with these events and `done`, and its epoch."""
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.append(holder, 1, written, resend=True)
    assert (await stream.finish(holder, len(written) + 1, [DONE])).code is Code.OK
    return stream, holder.epoch


@pytest.mark.usefixtures("small_chunks")
async def test_every_old_cursor_of_an_ended_stream_goes_on_where_it_was(client: Client) -> None:
    stream, epoch = await ended(client, _LINE)
    everything = [*_LINE, DONE]
    assert (await stream.state())["chunks"] == "4 8 10"
    for seq in range(11):
        for most_events in (1, 2, 3, 4, 5, 9, 256):
            page = await stream.page(EventId(epoch, seq) if seq else START, most_events=most_events)
            assert page.events == everything[seq : seq + most_events]
            assert (page.first, page.length, page.complete) == (seq + 1, 10, seq + most_events >= 10)
    for foreign in (EventId(epoch + 1, 3), EventId(epoch - 1, 3)):
        assert (await stream.page(foreign)).events == everything
    beyond = await stream.page(EventId(epoch, 11))
    assert (beyond.first, beyond.events) == (12, [])


@pytest.mark.usefixtures("small_chunks")
async def test_a_page_of_an_ended_stream_keeps_its_bounds(client: Client) -> None:
    stream, epoch = await ended(client, [event(seq, "z" * 1000) for seq in range(1, 10)])
    sizes = [len((await stream.page(most_bytes=most_bytes)).events) for most_bytes in (1, 1000, 1100, 5000, 10**6)]
    assert sizes == [1, 1, 2, 5, 10]
    assert len((await stream.page(EventId(epoch, 2), most_bytes=5000)).events) == 5
    assert (await stream.page(most_events=0)).events == []


@pytest.mark.usefixtures("small_chunks")
async def test_redis_sends_only_the_chunks_of_the_page(client: Client) -> None:
    stream, epoch = await ended(client, _LINE)
    stored = await stream.stored_log()
    for seq, most_events, most_bytes, sent in (
        (0, 4, 10**6, (0, 1)),
        (0, 5, 10**6, (0, 2)),
        (4, 4, 10**6, (1, 2)),
        (3, 256, 10**6, (0, 3)),
        (9, 256, 10**6, (2, 3)),
        (10, 256, 10**6, (3, 3)),
        (2, 256, 1, (0, 1)),
        (2, 256, len(stored[0]) + 1, (0, 2)),
        (0, 0, 10**6, (0, 0)),
    ):
        arguments = {"epoch": epoch, "seq": seq, "most_events": most_events, "most_bytes": most_bytes}
        call = declarations.READ.call(stream.keys[:7], list, **arguments, healing_ms=0)
        assert (await run_script(client, call))[8:] == stored[slice(*sent)]


async def test_the_number_of_events_stays_after_the_end(client: Client) -> None:
    stream, epoch = await ended(client, _LINE)
    assert len(await stream.stored_log()) == 1
    closed = await stream.append(stream.holder(epoch), 11, some(11, 11))
    assert (closed.code, closed.last_seq, closed.epoch) == (Code.CLOSED, 10, epoch)
    position = await stream.acknowledge()
    assert position is not None
    assert position.at == EventId(epoch, 10)


async def test_the_ending_of_a_partial_answer_compresses_its_copy(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    later = await stream.take_over()
    partial = (await stream.page()).events
    assert (await stream.finish(later, 1, [*partial, DONE])).code is Code.OK
    assert await stream.log() == [*some(1, 3), DONE]
    assert [at for at, _ in await stream.tail()][-4:] == [f"{later.epoch}-{seq}" for seq in range(1, 5)]


async def test_chunks_are_sealed_after_they_are_compressed(client: Client) -> None:
    scripts = StreamScripts(Settings.model_construct(content_keys=Settings(content_keys="0f" * 32).content_keys))
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    everything = [*some(1, 100, "canary"), DONE]
    await run_script(client, scripts.finish(holder, 1, everything, compress(everything), ENDING))
    (chunk,) = await stream.stored_log()
    with pytest.raises(ValueError, match="decompress"):
        decompress(chunk)
    assert len(chunk) < sum(map(len, everything)) / 4
    page = await run_script(client, scripts.read(stream.id, START))
    assert isinstance(page, LogPage)
    assert page.events == everything


@pytest.mark.parametrize("damage", [b"junk", zlib.compress(b"cut off")[:-1]])
async def test_a_damaged_chunk_is_unreadable(client: Client, damage: bytes) -> None:
    stream, _ = await ended(client, _LINE)
    await client.lset(stream.keys[LOG], 0, damage)  # type: ignore[arg-type,misc]
    with pytest.raises(ContentUnreadable):
        await stream.read()


async def test_an_ended_answer_of_500_tokens_takes_six_kib(client: Client) -> None:
    """Real text, with the fields of a real request. The tail lives for a minute only, and is not counted."""
    text = (REPOSITORY / "docs" / "reliability.md").read_text().split()
    tokens = [events.encode(events.Token(f" {word[:6]}", index)) for index, word in enumerate(text[:500])]
    stream = Stream(client)
    fields: dict[str, str | int] = {"body_hash": DIGEST, "request_id": "44af582f591f80b0", "metadata": "{}"}
    fields |= {"prompt_characters": 1000, "max_tokens": 0, "may_resume": 1, "on_worker_lost": ""}
    await stream.create(request='{"messages":[{"content":"%s"}]}' % ("a question " * 100), **fields)
    holder = await stream.claim()
    await stream.append(holder, 1, tokens, resend=True)
    usage = Usage(1234, 500, cached_tokens=0, reasoning_tokens=0)
    await stream.finish(holder, 501, [DONE], Outcome("stop").ending(usage))
    assert await client.object("ENCODING", stream.keys[STATE]) == b"listpack"
    own = [key async for key in client.scan_iter(f"*{stream.id}*") if not key.endswith(b":tail")]
    sizes = {key.decode(): await client.memory_usage(key, samples=0) or 0 for key in own}
    assert sum(sizes.values()) < 6 * 1024, sizes


# --- the chunks alone


@pytest.mark.parametrize("count", [1, CHUNK_EVENTS, CHUNK_EVENTS + 1, 3 * CHUNK_EVENTS])
def test_chunks_have_every_event(count: int) -> None:
    log = some(1, count)
    chunks = compress(log)
    assert [event for chunk in chunks.data for event in decompress(chunk)] == log
    assert [end - before for before, end in pairwise([0, *chunks.ends])] == [
        len(decompress(chunk)) for chunk in chunks.data
    ]
    assert chunks.ends[-1] == count


def test_a_chunk_is_bounded_in_bytes() -> None:
    large = [event(seq, "x" * (CHUNK_BYTES // 3)) for seq in range(1, 8)]
    assert compress(large).ends == [3, 6, 7]
    assert compress([event(1, "x" * 10 * CHUNK_BYTES), *some(2, 3)]).ends == [1, 3]


def test_a_chunk_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "_MOST_EVENT_BYTES", 10_000)
    with pytest.raises(ValueError, match="too large"):
        decompress(zlib.compress(bytes(10_001 + CHUNK_BYTES)))
    assert decompress(zlib.compress(b"x" * CHUNK_BYTES)) == [b"x" * CHUNK_BYTES]


def test_chunks_beyond_a_page_stay_compressed() -> None:
    first = compress(some(1, 3)).data
    assert take([*first, b"damaged"], 0, most_events=3, most_bytes=10**6) == some(1, 3)
