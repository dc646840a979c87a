"""A system with processes of this tree and of the previous release, and clients that live through both."""

import asyncio
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from tests.sse_client import Broken, Frame, text_of
from tests.system import REPOSITORY, Process, System


class MixedSystem(System):
    """``previous``: source tree of the previous release. ``old``: names of the processes that begin with it."""

    def __init__(self, folder: Path, previous: Path, *, old: Collection[str], **options: Any) -> None:
        super().__init__(folder, **{"providers": ("openai",), **options})
        self._previous, self._old = previous, frozenset(old)

    async def replace(self, process: Process, *, new: bool) -> None:
        """Replace a process as a rolling deploy does: it drains and exits, and one of the other tree starts."""
        process.signal(signal.SIGTERM)
        assert await process.wait(timeout_s=60) == 0, process.log.read_text()
        process.log.rename(process.log.with_suffix(f".{process.pid}.log"))
        process.trees = repeat(REPOSITORY if new else self._previous)
        process.start()
        await self.eventually(lambda: has_started(process), timeout_s=100)
        await self.ready()

    def _trees(self, name: str) -> Iterator[Path]:
        return repeat(self._previous if name in self._old else REPOSITORY)


async def has_started(process: Process) -> bool:
    return process.name.startswith("gateway") or "worker started" in process.log.read_text()


@dataclass
class Client:
    """A client that retries and resumes, at one gateway and the other, until its stream has ended. ``frames``: its
    events since the last reset."""

    system: System
    model: str
    key: str
    gateway: int
    stream_id: str = ""
    frames: list[Frame] = field(default_factory=list)
    resets: int = 0
    endings: int = 0

    async def run(self) -> None:
        while not self.endings:
            with suppress(Broken, OSError):
                await self._read()
            if not self.endings:
                self.gateway = 1 - self.gateway
                await asyncio.sleep(0.1)

    async def _read(self) -> None:
        if self.stream_id:
            cursor = self.frames[-1].id if self.frames else None
            connection = await self.system.read(self.stream_id, cursor, gateway=self.gateway)
        else:
            headers = {"Idempotency-Key": self.key}
            connection = await self.system.stream(self.model, self.key, gateway=self.gateway, headers=headers)
        async with connection:
            if connection.status != 200:
                assert connection.status == 503, connection.raw
                return
            self.stream_id = connection.stream_id
            async for frame in connection.frames():
                self._take(frame)

    def _take(self, frame: Frame) -> None:
        assert not self.endings, f"{frame} after the ending"
        if frame.data.get("reset"):
            self.resets += 1
            self.frames.clear()
        if frame.id is not None:
            self.frames.append(frame)
        self.endings += frame.event in ("done", "error")

    async def check(self, words: list[str]) -> None:
        """Nothing is lost, nothing is there twice, one call was answered, and both gateways replay the same."""
        assert self.endings == 1
        assert (self.frames[-1].event, self.frames[-1].data.get("finish_reason")) == ("done", "stop")
        ids = [frame.id for frame in self.frames]
        assert len(set(ids)) == len(ids)
        calls = [call for call in self.system.fake.calls if call.prompt == self.key]
        assert calls[-1].finished  # an earlier one may have sent its end to a worker that no longer read it
        assert text_of(self.frames) == f"call{calls[-1].number} " + "".join(words)
        for gateway in (0, 1):
            async with await self.system.read(self.stream_id, gateway=gateway) as replay:
                again = [frame for frame in await replay.rest() if frame.id is not None]
            assert [(f.id, f.event) for f in again[-len(ids) :]] == [(f.id, f.event) for f in self.frames]
            assert text_of(again) == text_of(self.frames)
