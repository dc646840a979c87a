"""The log of a stream that runs: chunks of what has left the tail, then the tail (rule S14)."""

import pytest

from shared.broker.client import Client, run_script
from shared.broker.replies import Code, LogPage, WriteReply
from shared.broker.scripts import Holder, StreamScripts
from shared.errors import ContentUnreadable
from shared.protocol import chunks as chunks_module
from shared.protocol.chunks import TAIL_BYTES, compress, leaving
from shared.protocol.ids import START, EventId
from shared.protocol.lineage import Lineage
from shared.settings import Settings
from tests.scripts.stream import (
    CAP,
    DONE,
    ENDING,
    LOG,
    SCRIPTS,
    STATE,
    TAIL,
    Stream,
    event,
    some,
)
from workers.writing.send_buffer import SendBuffer

STORED = "hr:{desk}:stored:an-account"


async def running(client: Client, last: int, packed: int) -> tuple[Stream, Holder]:
    """Return a running stream with these events, of which the first ``packed`` are in chunks."""
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, min(last, CAP)), resend=True)
    if packed:
        assert (await stream.pack(holder, packed)).last_seq == packed
    if last > CAP:
        assert (await stream.append_once(holder, CAP + 1, some(CAP + 1, last), resend=True)).code is Code.OK
    return stream, holder


async def test_a_full_tail_refuses_until_its_events_are_packed(client: Client) -> None:
    stream, holder = await running(client, CAP, 0)
    for first, events in ((CAP + 1, some(CAP + 1, CAP + 2)), (CAP, some(CAP, CAP + 1)), (1, some(1, CAP + 1))):
        assert (await stream.append_once(holder, first, events, resend=True)).code is Code.UNPACKED
        assert await stream.log() == some(1, CAP)
    assert await client.exists(stream.keys[LOG]) == 0
    assert await stream.pack(holder, 2) == WriteReply(Code.PACKED, 2, "", False, holder.epoch)
    reply = await stream.append_once(holder, CAP + 1, some(CAP + 1, CAP + 3), resend=True)
    assert (reply.code, reply.last_seq) == (Code.UNPACKED, CAP + 2)
    assert await stream.log() == some(1, CAP + 2)
    assert [at for at, _ in await stream.tail()] == [f"{holder.epoch}-{seq}" for seq in range(3, CAP + 3)]
    state, log, tail, *_ = await stream.lives()
    assert state == log == tail


async def test_a_part_of_an_append_that_has_a_place_in_the_provider_s_answer_waits_for_room(client: Client) -> None:
    stream, holder = await running(client, CAP, 1)
    call = SCRIPTS.append(holder, CAP + 1, some(CAP + 1, CAP + 2), cursor="place")
    reply = await run_script(client, call)
    assert (reply.code, reply.last_seq) == (Code.UNPACKED, CAP)
    await stream.pack(holder, 2)
    assert (await run_script(client, call)).code is Code.OK
    assert (await stream.state())["provider_cursor"] == "place"


async def test_every_cursor_of_a_running_stream_goes_on_where_it_was(client: Client) -> None:
    """Two chunks and a tail; and all in chunks, before the next append."""
    stream, holder = await running(client, 9, 4)
    await stream.pack(holder, 6)
    assert ((await stream.state())["chunks"], len(await stream.tail())) == ("4 6", 3)
    for _ in range(2):
        for seq in range(10):
            for most_events in (1, 2, 3, 4, 5, 9, 256):
                page = await stream.page(EventId(holder.epoch, seq) if seq else START, most_events=most_events)
                assert page.events == some(1, 9)[seq : seq + most_events]
                assert (page.first, page.length, page.complete) == (seq + 1, 9, seq + most_events >= 9)
        for foreign in (EventId(holder.epoch + 1, 3), EventId(holder.epoch - 1, 8)):
            assert (await stream.page(foreign)).events == some(1, 9)
        beyond = await stream.page(EventId(holder.epoch, 10))
        assert (beyond.first, beyond.events) == (11, [])
        await stream.pack(holder, 9)
    assert await stream.tail() == []
    assert (await stream.append_once(holder, 10, some(10, 10), resend=True)).code is Code.OK
    assert await stream.log() == some(1, 10)


async def test_a_page_over_chunks_and_tail_keeps_its_bounds(client: Client) -> None:
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    large = [event(seq, "z" * 1000) for seq in range(1, 7)]
    await stream.append(holder, 1, large, resend=True)
    await stream.pack(holder, 2)
    sizes = [len((await stream.page(most_bytes=most)).events) for most in (1, 1100, 2500, 5000, 10**6)]
    assert sizes == [1, 2, 3, 5, 6]
    page = await stream.page(EventId(holder.epoch, 1), most_bytes=2500)
    assert page.events == large[1:4]


async def test_cursors_across_a_lineage(client: Client) -> None:
    """A log that a second epoch continues: its chunks end within the first epoch, then with it, then behind it."""
    stream, first = await running(client, 5, 2)
    second = await stream.take_over()
    lineage = Lineage(f"{first.epoch}:5")
    for packed in (2, 5, 6):
        if packed == 5:  # before the first append of the second epoch
            assert (await run_script(client, SCRIPTS.pack(second, 2, some(3, 5), lineage))).last_seq == 5
            assert (await stream.state())["log_epoch"] == str(first.epoch)
            append = SCRIPTS.append(second, 6, some(6, 7), resend=True, lineage=lineage)
            assert (await run_script(client, append)).code is Code.OK
        elif packed == 6:
            assert (await run_script(client, SCRIPTS.pack(second, 5, some(6, 6), lineage))).last_seq == 6
        log = await stream.log()
        for seq in range(1, len(log) + 1):
            at = EventId(first.epoch if seq <= 5 else second.epoch, seq)
            page = await stream.page(at)
            assert page.follows(at)
            assert (page.first, page.events) == (seq + 1, log[seq:])
            assert (await stream.page(EventId(first.epoch + second.epoch - at.epoch, seq))).events == log
    assert await stream.log() == some(1, 7)


async def test_chunks_that_do_not_follow_are_not_taken(client: Client) -> None:
    stream, holder = await running(client, 9, 4)
    before = await stream.everything()
    for known, events in ((0, some(1, 5)), (3, some(4, 6)), (5, some(6, 8)), (4, [])):
        reply = await run_script(client, SCRIPTS.pack(holder, known, events))
        assert (reply.code, reply.last_seq) == (Code.PACKED, 4)
    assert (await run_script(client, SCRIPTS.pack(holder, 4, some(5, 10)))).code is Code.GAP
    assert await stream.everything() == before


async def test_chunks_of_another_writer_are_not_taken(client: Client) -> None:
    stream, old = await running(client, 4, 0)
    new = await stream.take_over()
    before = await stream.everything()
    assert (await stream.pack(old, 2, 0)).code is Code.SUPERSEDED
    assert await stream.pack(new, 2, 0) == WriteReply(Code.GAP, 0, "", False, new.epoch)
    assert (await stream.pack(stream.holder(new.epoch + 1), 2, 0)).code is Code.BEHIND
    assert await stream.everything() == before
    await stream.finish(new, 1, [*some(1, 4), DONE])
    assert (await stream.pack(new, 2, 0)).code is Code.CLOSED


async def test_an_epoch_that_continues_nothing_empties_chunks_and_tail(client: Client) -> None:
    stream, _ = await running(client, 9, 4)
    new = await stream.take_over()
    assert (await stream.append_once(new, 1, some(1, 2, "new"))).code is Code.OK
    assert await stream.log() == some(1, 2, "new")
    assert "chunks" not in await stream.state()
    assert await client.exists(stream.keys[LOG]) == 0


async def test_a_restored_log_is_chunks_and_a_tail(client: Client) -> None:
    stream, holder = await running(client, 4, 2)
    await client.flushall()
    assert (await stream.restore(holder, some(1, 3 * CAP))).last_seq == 3 * CAP
    assert len(await stream.tail()) == CAP - 1
    assert await stream.log() == some(1, 3 * CAP)
    state, log, tail, *_ = await stream.lives()
    assert state == log == tail


@pytest.mark.parametrize("packed", [0, 4])
@pytest.mark.parametrize("damage", ["lost", "a hole"])
async def test_a_damaged_tail_is_written_again(client: Client, packed: int, damage: str) -> None:
    stream, holder = await running(client, CAP, packed)
    key = stream.keys[TAIL]
    if damage == "lost":
        await client.delete(key)
    else:
        await client.xdel(key, f"{holder.epoch}-{packed + 1}")
    assert (await stream.page()).events == some(1, packed)
    reply = await stream.append_once(holder, CAP + 1, some(CAP + 1, CAP + 1), resend=True)
    assert (reply.code, reply.last_seq) == (Code.GAP, packed)
    end = await stream.append(holder, packed + 1, some(packed + 1, CAP + 1), resend=True)
    assert (end.code, end.last_seq) == (Code.OK, CAP + 1)
    assert await stream.log() == some(1, CAP + 1)
    state, _, tail, *_ = await stream.lives()
    assert state == tail


async def test_lost_chunks_are_written_again_with_the_end(client: Client) -> None:
    stream, holder = await running(client, 9, 4)
    await client.delete(stream.keys[LOG])
    assert (await stream.page()).events == []
    everything = [*some(1, 9), DONE]
    await run_script(client, SCRIPTS.finish(holder, 10, [DONE], compress(everything), ENDING))
    assert (await stream.page()).events == everything


async def test_stored_bytes_follow_the_packing(client: Client) -> None:
    stream, holder = await running(client, 4, 0)
    for last, packed in ((4, 2), (5, 4), (6, 4), (9, 6)):
        await stream.append(holder, (await stream.page()).length + 1, some((await stream.page()).length + 1, last))
        await stream.pack(holder, packed)
        await stream.renew(holder)
        stored: bytes = await client.hget(STORED, stream.id)  # type: ignore[misc]
        log = sum(map(len, await stream.stored_log())) + sum(len(each) for _, each in await stream.tail())
        assert int(stored) == 5120 + len('{"messages":[]}') + log


async def test_chunks_of_sealed_events_are_sealed(client: Client) -> None:
    keys = Settings(content_keys="0f" * 32).content_keys
    scripts = StreamScripts(Settings.model_construct(content_keys=keys, cap=CAP, window=CAP))
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    events = some(1, CAP, "canary")
    await run_script(client, scripts.append(holder, 1, events))
    await run_script(client, scripts.pack(holder, 0, events[:3]))
    for stored in [*await stream.stored_log(), *(each for _, each in await stream.tail())]:
        assert stored.startswith(b"\x01")
    page = await run_script(client, scripts.read(stream.id, EventId(holder.epoch, 1)))
    assert isinstance(page, LogPage)
    assert page.events == events[1:]
    with pytest.raises(ContentUnreadable):
        await run_script(client, SCRIPTS.read(stream.id, START))


async def test_a_tail_of_no_chunks_is_all_of_a_short_answer(client: Client) -> None:
    stream, holder = await running(client, CAP, 0)
    assert "chunks" not in await stream.state()
    assert await client.exists(stream.keys[LOG]) == 0
    await stream.finish(holder, CAP + 1, [DONE])
    assert await stream.log() == [*some(1, CAP), DONE]
    assert (await client.hget(stream.keys[STATE], "chunks")) == str(CAP + 1).encode()  # type: ignore[misc]


# --- what a worker packs


def test_a_worker_packs_a_quarter_of_a_full_tail() -> None:
    assert [leaving(1024, some(1, held), 64) for held in (1, 960, 961, 1024)] == [0, 0, 193, 256]
    assert [leaving(8, some(1, held), 1) for held in (7, 8, 20)] == [0, 2, 14]
    assert leaving(8, some(1, 8), 8) == 8


def test_a_worker_packs_large_events_sooner() -> None:
    large = [event(seq, "x" * (TAIL_BYTES // 8)) for seq in range(1, 9)]
    assert leaving(1024, large[:7]) == 0
    assert leaving(1024, large) == 5
    buffer = SendBuffer(1024)
    buffer.freeze(large)
    assert buffer.to_pack(1) == []
    buffer.acknowledge(8)
    assert buffer.to_pack(1) == large[:5]
    buffer.set_packed(5)
    assert buffer.to_pack(1) == []


def test_a_buffer_packs_only_what_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks_module, "CHUNK_EVENTS", 4)
    buffer = SendBuffer(8)
    buffer.freeze(some(1, 20))
    assert len(buffer.next_batch) == 8
    assert buffer.to_pack(8) == []
    buffer.acknowledge(8)
    assert buffer.to_pack(8) == some(1, 8)
    buffer.set_packed(8)
    assert buffer.to_pack(8) == []
