"""The archive's part of a walk: a worker that reads an ending, writes it, and notes that, each at any time."""

from typing import NamedTuple

from shared.broker.scripts import Archived as Noted
from shared.broker.settlement import read_owed, settle_ended
from tests.walks.bench import DIGEST, FATE, PICK, Bench
from tests.walks.desk import Desk
from tests.walks.moves import move
from workers.archiving.record import look_at


class Read(NamedTuple):
    """An ending as a worker has read it. ``mark``: the field ``unarchived``."""

    mark: str
    ended: int
    log: tuple[bytes, ...]


class Archived(Desk):
    """``is_archived``: the archive must have the stream. ``row``: of the archive. ``read``, ``written``: batches of
    workers after their first and second step."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.is_archived = False
        self.row: Read | None = None
        self.read: list[Read] = []
        self.written: list[Read] = []

    @property
    def is_pending(self) -> bool:
        return b"unarchived" in self.redis.state

    @move(3, lambda self: self.is_pending)
    async def read_for_archive(self) -> None:
        self._read()

    def _read(self) -> None:
        state = self.redis.state
        assert state[b"request"], "a stream that is to be archived has no request"
        self.read.append(Read(state[b"unarchived"].decode(), int(state[b"ended"]), tuple(self.redis.log)))

    @move(4, lambda self: self.read, pick=PICK)
    async def write_to_archive(self, *, pick: int) -> None:
        self._write(self.read.pop(pick % len(self.read)))

    def _write(self, read: Read) -> None:
        """Write as the archive does: an older ending never replaces a later one."""
        if self.row is None or self.row.ended <= read.ended:
            self.row = read
        self.written.append(read)

    @move(4, lambda self: self.written, pick=PICK, fate=FATE)
    async def note_archived(self, *, pick: int, fate: str) -> None:
        await self._note(self.written.pop(pick % len(self.written)), fate)

    async def _note(self, read: Read, fate: str) -> None:
        reply = await self._faulty(self.scripts.archived(self.stream_id, DIGEST, read.mark), None, fate)
        if reply is Noted.DELETED:
            self.row = None
        if reply is Noted.OWED:
            for settlement in await read_owed(self.client, [self.stream_id]):
                await settle_ended(self.client, self.scripts, settlement)

    async def _check_settled(self) -> None:
        """Archive the stream if it waits, as a worker does without faults; then check the row."""
        while self.read:
            self._write(self.read.pop())
        while self.written:
            await self._note(self.written.pop(), "answered")
        self.redis = await self._look()
        looked = await look_at(self.client, [self.stream_id])
        if looked.waiting:
            self._read()
            self._write(self.read.pop())
            await self._note(self.written.pop(), "answered")
        if looked.deleted:
            self.row = None
        await super()._check_settled()
        assert not self.is_pending, "the stream waits for the archive for ever"
        if b"archive" in self.redis.state:
            assert self.row is not None, "the archive lacks the stream"
            assert self.row.log == tuple(self.redis.log), "the archive has another answer"
            assert b"request" not in self.redis.state, "its request stays"
        tombstone = self.redis.tombstone or b""
        if self.redis.missing and tombstone.startswith(b"deleted"):
            assert self.row is None, "the archive has a deleted stream"
        if self.is_archived and tombstone.startswith(b"dropped"):
            assert self.row is not None, "an answer was dropped that the archive lacks"
