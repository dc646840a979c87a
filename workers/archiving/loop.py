"""Writes streams that have ended to the archive, beside the streams of this worker.

A worker takes ids from the queue at the desk, reads the streams, writes them in one transaction, and notes each of
them in its state (``archived.lua``). Unfinished streams are due again after a while, for any worker. Writing a
stream twice changes nothing.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from shared.archive.archive import Archive
from shared.archive.records import ArchivedStream
from shared.archive.trouble import is_about_data
from shared.broker.client import REDIS_ERRORS, Client, run_commands, run_script, run_scripts
from shared.broker.due_queues import AT_ONCE, put_off, remove
from shared.broker.keys import UNARCHIVED
from shared.broker.scripts import Archived, StreamScripts
from shared.broker.settlement import read_owed, settle_ended
from shared.cancellation import cancel_all
from shared.errors import ArchiveUnavailable, BrokerUnavailable
from shared.polling import next_poll
from workers import metrics
from workers.archiving.record import Read, RecordUnusable, StreamChanged, Waiting, look_at, read_records

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 100
#: Streams that are read together, and the bytes of their requests and of their logs, unless one alone is larger.
_MOST_READ: Final = 16
_MOST_BYTES: Final = 8 * 1024 * 1024
_EVERY_S: Final = 1.0
#: Until others take what this worker has taken and left.
_LEASE_MS: Final = 120_000
#: Between tries while the database is away.
_LONGEST_WAIT_S: Final = 60.0
_JITTER: Final = 0.2
#: Between tries of a stream that cannot be archived: as long as it has waited already, within these limits.
_SHORTEST_DELAY_MS: Final = 10_000
_LONGEST_DELAY_MS: Final = 3_600_000
#: Time for a batch to end when the worker does.
_CLOSE_S: Final = 5.0


class Archiving:
    """The part of one worker that archives."""

    def __init__(self, client: Client, scripts: StreamScripts, archive: Archive) -> None:
        self._client = client
        self._scripts = scripts
        self._archive = archive
        self._failures = 0

    async def run(self) -> None:
        """Run until cancelled. A turn that is under way then may end."""
        turn: asyncio.Task[int] | None = None
        try:
            while True:
                turn = asyncio.create_task(self._turn())
                taken = await asyncio.shield(turn)
                if self._failures:
                    wait_s = min(_LONGEST_WAIT_S, float(2 ** min(self._failures - 1, 10)))
                    await asyncio.sleep(wait_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311  no secret
                elif taken < _MOST_AT_ONCE:
                    await next_poll(_EVERY_S)
        finally:
            if turn is not None and not turn.done():  # what is cut off is due again for others
                await asyncio.wait([turn], timeout=_CLOSE_S)
                await cancel_all([turn])

    async def _turn(self) -> int:
        """Archive some streams that are due. Return the number that was taken."""
        try:
            ids = await run_script(self._client, self._scripts.desk.take_due(UNARCHIVED, _MOST_AT_ONCE, _LEASE_MS))
            (waiting,) = await run_commands(self._client, [("ZCARD", UNARCHIVED)])
            metrics.ARCHIVE_WAITING.set(waiting)
            if ids:
                await self._archive_all(ids)
            elif not self._failures:
                metrics.ARCHIVE_LAG.set(0)
        except (*REDIS_ERRORS, BrokerUnavailable) as error:  # they are due again after the lease
            logger.debug("streams not archived", extra={"error": type(error).__name__})
            return 0
        return len(ids)

    async def _archive_all(self, stream_ids: Sequence[str]) -> None:
        """Archive the streams that wait for it; while the database is away, leave them in the queue."""
        looked = await look_at(self._client, stream_ids)
        oldest = min((int(each.unarchived) for each in looked.waiting), default=_now_ms())
        metrics.ARCHIVE_LAG.set(max(0, _now_ms() - oldest) / 1000)
        try:
            for stream_id in looked.deleted:
                await self._archive.delete(stream_id)
            await self._forget([*looked.deleted, *looked.others])
            has_answered = bool(looked.deleted)
            async for group, read in self._read(looked.waiting):
                has_answered |= await self._write_group(group, read)
                looked.waiting[: len(group)] = []
        except ArchiveUnavailable as error:
            await self._note_outage(error, looked.deleted, looked.waiting)
            return
        if self._failures and has_answered:  # a batch without anything to write says nothing about the database
            logger.info("archive available again")
            self._failures = 0

    async def _note_outage(self, error: ArchiveUnavailable, deleted: list[str], waiting: list[Waiting]) -> None:
        """Count a failure, and let the streams be due again at once, for any worker."""
        self._failures += 1
        metrics.ARCHIVE_FAILURES.labels("unavailable").inc()
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        logger.log(level, "archive unavailable", extra={"detail": error.detail, "streams": len(waiting)})
        oldest = min((int(each.unarchived) for each in waiting), default=AT_ONCE)
        ids = [*deleted, *(each.stream_id for each in waiting)]
        if ids:
            await put_off(self._client, UNARCHIVED, ids, oldest)

    async def _read(self, waiting: Sequence[Waiting]) -> AsyncIterator[tuple[list[Waiting], list[Read]]]:
        """Yield groups of streams that take a bounded part of the memory."""
        for group in list(_groups(waiting)):
            async for part in read_records(self._client, self._scripts, group, most_bytes=_MOST_BYTES):
                yield part

    async def _write_group(self, group: list[Waiting], read: list[Read]) -> bool:
        """Write the streams of a group and note it. Return True if some were written. Raises
        :class:`ArchiveUnavailable`."""
        written = await self._write([each for each in read if isinstance(each, ArchivedStream)])
        noted, unusable = list[Waiting](), dict[str, str]()
        for each, result in zip(group, read, strict=True):
            if isinstance(result, RecordUnusable):
                unusable[each.stream_id] = str(result)
                metrics.ARCHIVE_FAILURES.labels("unreadable").inc()
            elif each.stream_id in written:
                noted.append(each)
            elif isinstance(result, ArchivedStream):
                unusable[each.stream_id] = "the database refuses its data"
                metrics.ARCHIVE_FAILURES.labels("refused").inc()
        for each in group:
            if each.stream_id in unusable:
                await self._put_off(each, unusable[each.stream_id])
        changed = [w.stream_id for w, r in zip(group, read, strict=True) if isinstance(r, StreamChanged)]
        if changed:
            await put_off(self._client, UNARCHIVED, changed, _now_ms())
        await self._note(noted)
        return bool(written)

    async def _write(self, streams: list[ArchivedStream]) -> set[str]:
        """Write streams together; if the database refuses the data of one, each by itself. Return the ids of those
        that it has now. Raises :class:`ArchiveUnavailable`."""
        if not streams:
            return set()
        try:
            await self._archive.write(streams)
        except ArchiveUnavailable as error:
            if not is_about_data(error):
                raise
        except Exception as error:  # noqa: BLE001  a value that cannot be encoded must not hold up other streams
            logger.debug("streams not written", extra={"error": type(error).__name__})
        else:
            return {stream.stream_id for stream in streams}
        if len(streams) == 1:
            return set()
        return {stream_id for stream in streams for stream_id in await self._write([stream])}

    async def _put_off(self, waiting: Waiting, problem: str) -> None:
        now = _now_ms()
        delay_ms = min(max(now - int(waiting.unarchived), _SHORTEST_DELAY_MS), _LONGEST_DELAY_MS)
        await put_off(self._client, UNARCHIVED, [waiting.stream_id], now + delay_ms)
        logger.error(
            "stream cannot be archived",
            extra={"stream_id": waiting.stream_id, "detail": problem, "again_in_s": round(delay_ms / 1000)},
        )

    async def _note(self, waiting: Sequence[Waiting]) -> None:
        """Note streams that the archive has; delete those that their owners have deleted meanwhile."""
        calls = [self._scripts.archived(each.stream_id, each.digest, each.unarchived) for each in waiting]
        replies = await run_scripts(self._client, calls)
        found = {reply: list[str]() for reply in Archived}
        for each, reply in zip(waiting, replies, strict=True):
            if isinstance(reply, Archived):  # else it is due again after the lease
                found[reply].append(each.stream_id)
        metrics.ARCHIVED.inc(len(found[Archived.ARCHIVED]) + len(found[Archived.OWED]))
        for stream_id in found[Archived.DELETED]:
            await self._archive.delete(stream_id)
        if found[Archived.OTHER]:
            await put_off(self._client, UNARCHIVED, found[Archived.OTHER], _now_ms())
        others = (Archived.ARCHIVED, Archived.OWED, Archived.DELETED, Archived.GONE)
        await self._forget([stream_id for reply in others for stream_id in found[reply]])
        for settlement in await read_owed(self._client, found[Archived.OWED]):
            await settle_ended(self._client, self._scripts, settlement)

    async def _forget(self, stream_ids: Sequence[str]) -> None:
        if stream_ids:
            await remove(self._client, UNARCHIVED, stream_ids)


def _groups(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    groups: list[list[Waiting]] = []
    size = 0
    for each in waiting:
        if not groups or len(groups[-1]) == _MOST_READ or size + each.request_size > _MOST_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(each)
        size += each.request_size
    return groups


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
