"""A feed serves all readers of one stream from memory: each gets exactly the events after its cursor, or is sent to
the log if the feed no longer has them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from gateway.live.batch import Batch
from gateway.live.feed import MAX_BATCH_BYTES, RING, Entry, Feed
from shared.protocol import events
from shared.protocol.ids import START, EventId, format_event_id

EPOCH = 7
BEGIN = EventId(EPOCH, 0)
DONE = events.encode(events.Done("stop", None, None))


@dataclass(eq=False)
class Cursor:
    """A reader that takes batches while it ``has_room``."""

    cursor: EventId
    stream_id: str = "s"
    has_room: bool = True
    taken: list[Batch] = field(default_factory=list)

    def take(self, feed: Feed, batch: Batch) -> bool:
        if self.has_room:
            self.taken.append(batch)
            self.cursor = batch.last
        return self.has_room

    async def wait(self, feed: Feed) -> None:
        await feed.changed_since(feed.version, self)

    @property
    def ids(self) -> list[bytes]:
        return [at for batch in self.taken for at, _ in batch.events]


def entries(first: int, last: int, *, epoch: int = EPOCH, text: str = "x") -> list[Entry]:
    """Tokens ``first`` to ``last``, as XREAD returns them."""
    return [
        (format_event_id(epoch, seq), [b"e", events.encode(events.Token(text, seq))])
        for seq in range(first, last + 1)
    ]


def feed_with(last: int) -> Feed:
    """A feed that has read events 1 to ``last``."""
    feed = Feed("s")
    feed.rewind(BEGIN)
    if last:
        feed.add(entries(1, last))
    return feed


def ids_after(feed: Feed, cursor: EventId) -> list[bytes] | None:
    batch = feed.after(cursor)
    return None if batch is None else [at for at, _ in batch.events]


def ids(first: int, last: int, epoch: int = EPOCH) -> list[bytes]:
    return [format_event_id(epoch, seq) for seq in range(first, last + 1)]


async def test_a_reader_gets_the_events_after_its_cursor() -> None:
    feed = feed_with(5)
    assert ids_after(feed, EventId(EPOCH, 2)) == ids(3, 5)
    batch = feed.after(EventId(EPOCH, 2))
    assert batch is not None
    assert (batch.last, batch.reset, batch.ended) == (EventId(EPOCH, 5), False, False)


async def test_a_reader_at_the_end_gets_nothing_and_stays_with_the_feed() -> None:
    assert ids_after(feed_with(5), EventId(EPOCH, 5)) == []


async def test_readers_at_the_same_cursor_share_one_batch_until_the_next_event() -> None:
    feed = feed_with(5)
    cursor = EventId(EPOCH, 2)
    shared = feed.after(cursor)
    assert feed.after(cursor) is shared
    feed.add(entries(6, 6))
    assert ids_after(feed, cursor) == ids(3, 6)


async def test_a_feed_that_has_not_begun_to_read_covers_no_cursor() -> None:
    feed = Feed("s")
    assert feed.position is None
    assert feed.after(START) is None
    assert feed.after(EventId(EPOCH, 1)) is None


async def test_a_reader_that_is_too_far_behind_reads_the_log() -> None:
    feed = feed_with(2 * RING + 1)
    assert ids_after(feed, EventId(EPOCH, RING)) is None
    assert ids_after(feed, EventId(EPOCH, RING + 1)) == ids(RING + 2, 2 * RING + 1)


async def test_a_reader_ahead_of_the_feed_reads_the_log() -> None:
    assert ids_after(feed_with(5), EventId(EPOCH, 6)) is None


async def test_a_trimmed_tail_leaves_a_hole_that_only_the_log_can_fill() -> None:
    feed = feed_with(3)
    feed.add(entries(9, 10))
    assert ids_after(feed, EventId(EPOCH, 3)) is None
    assert ids_after(feed, EventId(EPOCH, 8)) == ids(9, 10)


def tokens(first: int, last: int) -> list[bytes]:
    """Tokens as a message brings them."""
    return [stored for _, (_, stored) in entries(first, last)]


async def test_a_message_continues_the_feed() -> None:
    feed = feed_with(3)
    assert feed.follow(EPOCH, 4, tokens(4, 5))
    assert ids_after(feed, EventId(EPOCH, 2)) == ids(3, 5)
    assert feed.position == EventId(EPOCH, 5)


async def test_a_message_behind_a_lost_one_is_not_taken() -> None:
    feed = feed_with(3)
    assert not feed.follow(EPOCH, 5, tokens(5, 5))
    assert feed.position == EventId(EPOCH, 3)
    feed.add(entries(4, 5))
    assert ids_after(feed, EventId(EPOCH, 3)) == ids(4, 5)


async def test_what_was_read_before_its_message_came_is_not_repeated() -> None:
    feed = feed_with(5)
    version = feed.version
    assert feed.follow(EPOCH, 4, tokens(4, 5))
    assert feed.version == version
    assert ids_after(feed, EventId(EPOCH, 2)) == ids(3, 5)


async def test_what_a_message_brought_during_a_read_is_not_repeated() -> None:
    feed = feed_with(3)
    assert feed.follow(EPOCH, 4, tokens(4, 5))
    feed.add(entries(4, 4))
    feed.add(entries(4, 6))
    assert ids_after(feed, EventId(EPOCH, 3)) == ids(4, 6)
    assert feed.position == EventId(EPOCH, 6)


async def test_a_message_begins_a_newer_epoch_from_its_first_event_only() -> None:
    feed = feed_with(3)
    assert not feed.follow(EPOCH + 1, 4, tokens(4, 4))
    assert not feed.follow(EPOCH - 1, 1, tokens(1, 1))
    assert feed.position == EventId(EPOCH, 3)
    assert feed.follow(EPOCH + 1, 1, tokens(1, 2))
    feed.add(entries(4, 5))  # a read of the older epoch was under way
    batch = feed.after(EventId(EPOCH, 3))
    assert batch is not None
    assert ([at for at, _ in batch.events], batch.reset) == (ids(1, 2, EPOCH + 1), True)


async def test_a_feed_that_has_not_begun_to_read_takes_no_message() -> None:
    feed = Feed("s")
    assert not feed.follow(EPOCH, 1, tokens(1, 1))
    assert feed.position is None


async def test_nothing_follows_done() -> None:
    feed = feed_with(3)
    assert feed.follow(EPOCH, 4, [DONE])
    assert not feed.follow(EPOCH, 5, tokens(5, 5))


async def test_a_newer_epoch_resets_readers_that_have_shown_an_older_one() -> None:
    feed = feed_with(3)
    feed.add(entries(1, 2, epoch=EPOCH + 1))
    behind, fresh = feed.after(EventId(EPOCH, 3)), feed.after(START)
    assert behind is not None
    assert fresh is not None
    assert (behind.reset, fresh.reset) == (True, False)
    assert [at for at, _ in behind.events] == ids(1, 2, EPOCH + 1)


async def test_a_reader_of_a_newer_epoch_than_the_feed_reads_the_log() -> None:
    assert ids_after(feed_with(3), EventId(EPOCH + 1, 1)) is None


async def test_a_batch_is_limited_in_bytes_and_the_next_one_continues() -> None:
    feed = feed_with(0)
    feed.add(entries(1, 5, text="x" * (MAX_BATCH_BYTES // 2)))
    assert ids_after(feed, BEGIN) == ids(1, 2)
    assert ids_after(feed, EventId(EPOCH, 2)) == ids(3, 4)
    assert ids_after(feed, EventId(EPOCH, 4)) == ids(5, 5)


async def test_only_the_batch_with_done_is_the_last() -> None:
    feed = feed_with(0)
    feed.add([*entries(1, 2, text="x" * MAX_BATCH_BYTES), (format_event_id(EPOCH, 3), [b"e", DONE])])
    ended = []
    for seq in range(3):
        batch = feed.after(EventId(EPOCH, seq))
        assert batch is not None
        ended.append(batch.ended)
    assert ended == [False, False, True]


async def test_a_stream_that_redis_has_lost_is_read_from_the_log() -> None:
    feed = feed_with(3)
    feed.set_missing(missing=True)
    assert feed.after(EventId(EPOCH, 1)) is None
    feed.set_missing(missing=False)
    assert ids_after(feed, EventId(EPOCH, 1)) == ids(2, 3)


async def test_every_waiting_reader_wakes_on_a_change() -> None:
    feed = feed_with(1)
    waiting = [asyncio.create_task(feed.changed_since(feed.version)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    feed.add(entries(2, 2))
    async with asyncio.timeout(60):
        await asyncio.gather(*waiting)


async def test_a_change_between_inspecting_and_waiting_is_not_missed() -> None:
    feed = feed_with(1)
    version = feed.version
    feed.add(entries(2, 2))
    async with asyncio.timeout(60):
        await feed.changed_since(version)


async def waiting(feed: Feed, *readers: Cursor) -> list[asyncio.Task[None]]:
    """Let readers wait for the next event; return their tasks."""
    tasks = [asyncio.create_task(reader.wait(feed)) for reader in readers]
    await asyncio.sleep(0)
    return tasks


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_readers_that_wait_at_the_end_take_one_shared_batch_without_waking() -> None:
    feed = feed_with(3)
    readers = [Cursor(EventId(EPOCH, 3)) for _ in range(3)]
    tasks = await waiting(feed, *readers)
    assert feed.follow(EPOCH, 4, tokens(4, 5))
    feed.add(entries(6, 6))
    assert [reader.ids for reader in readers] == [ids(4, 6)] * 3
    assert readers[0].taken[0] is readers[1].taken[0] is readers[2].taken[0]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    await stop(tasks)


async def test_an_event_that_a_reader_refused_is_not_overtaken_by_the_next() -> None:
    feed = feed_with(3)
    slow, fast = Cursor(EventId(EPOCH, 3), has_room=False), Cursor(EventId(EPOCH, 3))
    tasks = await waiting(feed, slow, fast)
    assert feed.follow(EPOCH, 4, tokens(4, 4))
    slow.has_room = True
    assert feed.follow(EPOCH, 5, tokens(5, 5))  # before the slow one has woken
    assert (slow.ids, fast.ids) == ([], ids(4, 5))
    async with asyncio.timeout(60):
        await tasks[0]
    assert ids_after(feed, slow.cursor) == ids(4, 5)
    await stop(tasks)


async def test_a_reader_that_was_woken_takes_nothing_before_it_waits_again() -> None:
    feed = feed_with(3)
    reader = Cursor(EventId(EPOCH, 3))
    tasks = await waiting(feed, reader)
    feed.wake()
    assert feed.follow(EPOCH, 4, tokens(4, 4))
    assert reader.ids == []
    async with asyncio.timeout(60):
        await tasks[0]


async def test_a_cancelled_reader_takes_nothing() -> None:
    feed = feed_with(3)
    reader = Cursor(EventId(EPOCH, 3))
    tasks = await waiting(feed, reader)
    tasks[0].cancel()
    assert feed.follow(EPOCH, 4, tokens(4, 4))
    assert reader.ids == []
    await stop(tasks)


async def test_only_readers_at_the_end_take_batches_and_the_others_wake() -> None:
    feed = feed_with(3)
    held, behind = Cursor(EventId(EPOCH, 9)), Cursor(EventId(EPOCH, 2))
    tasks = await waiting(feed, held, behind)
    assert feed.follow(EPOCH, 4, tokens(4, 4))
    assert held.ids == behind.ids == []
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)


async def test_a_reader_delivers_an_end_a_reset_and_a_large_batch_itself() -> None:
    changes: list[Callable[[Feed], object]] = [
        lambda feed: feed.follow(EPOCH, 4, [DONE]),
        lambda feed: feed.follow(EPOCH + 1, 1, tokens(1, 1)),
        lambda feed: feed.add(entries(9, 9)),  # the tail has a hole
        lambda feed: feed.add(entries(4, 6, text="x" * MAX_BATCH_BYTES)),
        lambda feed: feed.set_missing(missing=True),
    ]
    for change in changes:
        feed = feed_with(3)
        reader = Cursor(EventId(EPOCH, 3))
        tasks = await waiting(feed, reader)
        change(feed)
        assert reader.ids == []
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)


async def test_an_error_of_one_reader_reaches_this_reader_alone() -> None:
    class Broken(Cursor):
        def take(self, feed: Feed, batch: Batch) -> bool:
            raise ValueError("cannot be rendered")

    feed = feed_with(3)
    end = EventId(EPOCH, 3)
    readers = [Cursor(end), Broken(end), Cursor(end)]
    tasks = await waiting(feed, *readers)
    assert feed.follow(EPOCH, 4, tokens(4, 4))
    assert [reader.ids for reader in readers] == [ids(4, 4), [], ids(4, 4)]
    with pytest.raises(ValueError, match="cannot be rendered"):
        await tasks[1]
    await stop(tasks)


async def test_the_lead_is_the_farthest_cursor_in_the_readable_epoch() -> None:
    feed = feed_with(5)
    assert feed.lead == START
    feed.readers |= {Cursor(EventId(EPOCH, 2)), Cursor(EventId(EPOCH, 4)), Cursor(EventId(EPOCH + 1, 9))}
    assert feed.lead == EventId(EPOCH, 4)


async def test_a_change_of_the_queue_position_wakes_readers() -> None:
    feed = Feed("s")
    assert feed.join_queue(3) == 3
    version = feed.version
    feed.set_queue_position(3)
    assert feed.version == version
    feed.set_queue_position(2)
    assert feed.version != version
    assert feed.join_queue(5) == 2  # the feed's own position is newer than a reader's


async def test_a_report_before_a_jump_confirms_none_after_it() -> None:
    """A state that passes by itself is told after two reports about the same silence."""
    feed = Feed("s")
    feed.rewind(EventId(1, 0))
    feed.set_awaited("worker_lost", EventId(1, 0))
    feed.rewind(EventId(2, 3))
    feed.set_awaited("worker_lost", EventId(2, 3))
    assert feed.awaited == ""
    feed.set_awaited("worker_lost", EventId(2, 3))
    assert feed.awaited == "worker_lost"
