"""Load client of the resume storm, a process of its own: ``python -m bench.resuming``, JSON in and out.

It reads every stream for a while, cuts all of them, and requests each again from its last complete id.
"""

import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import Callable
from typing import Any, Final

import msgspec
import uvloop

from bench.client import Client, Job
from bench.http import Response, request
from bench.pace import FIND_STAMPS
from bench.stream import Stream
from bench.tally import percentiles

_FIND_IDS: Final = re.compile(rb"^id: (\S+)$", re.MULTILINE)


class Storm(Job):
    """Job of the storm. ``read_s``: from the last stream's first token to the cut. ``away_s``: from the cut to the
    return."""

    read_s: float = 1
    away_s: float = 1


class ResumingStream(Stream):
    """Stream that is cut and resumed. ``resumed_us``: from the second request to its first token; None until then."""

    resumed_us: int | None = None
    on_resumed: Callable[[], None]
    _body = b""
    _is_away = False
    _has_returned = False

    def cut(self) -> None:
        """Disconnect, and drop the incomplete event at the end."""
        self._is_away = True
        if self.transport is not None:
            self.transport.abort()
        self._body = self._body[: self._body.rfind(b"\n\n") + 2]
        self._received = self._expected = len(FIND_STAMPS.findall(self._body))
        self._tail = b""
        self.response, self._stream_id = Response(), self.response.stream_id

    async def resume(self, port: int) -> None:
        self._is_away = False
        self._has_returned = True
        headers = {"Last-Event-ID": _FIND_IDS.findall(self._body)[-1].decode()}
        self._request = request(port, "GET", f"/chat/stream/{self._stream_id}", headers, b"")
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        except OSError as error:
            self.finish(f"cannot return: {type(error).__name__}")

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_away:
            super().connection_lost(error)

    def finish(self, verdict: str) -> None:
        if not self._is_away:
            super().finish(verdict)
            if self._has_returned and self.resumed_us is None:
                self.resumed_us = 0
                self.on_resumed()

    def _read(self, body: bytes, now_us: int) -> None:
        if not self._has_returned:
            self._body += body
        before = self._received
        super()._read(body, now_us)
        if self._has_returned and self.resumed_us is None and self._received > before:
            self.resumed_us = now_us - self._sent_us
            self.on_resumed()


class StormClient(Client):
    """Runs the job of a storm."""

    stream_type = ResumingStream

    def __init__(self, job: Storm) -> None:
        super().__init__(job)
        self._storm = job
        self._away = 0
        self._all_back = asyncio.Event()
        self._storm_us = (0, 0)

    async def _after_first(self) -> None:
        await asyncio.sleep(self._storm.read_s)
        streams = [s for s in self._streams if isinstance(s, ResumingStream) and not s.over]
        self._away = len(streams)
        for stream in streams:
            stream.on_resumed = self._has_resumed
            stream.cut()
        await asyncio.sleep(self._storm.away_s)
        begun = time.monotonic_ns() // 1000
        await asyncio.gather(*(stream.resume(self._storm.port) for stream in streams))
        await self._all_back.wait()
        self._storm_us = begun, time.monotonic_ns() // 1000

    def _has_resumed(self) -> None:
        self._away -= 1
        if not self._away:
            self._all_back.set()

    def result(self) -> dict[str, Any]:
        resumed = array("q", [s.resumed_us for s in self._streams if isinstance(s, ResumingStream) and s.resumed_us])
        return {**super().result(), "resumed_ms": percentiles(resumed), "storm_us": self._storm_us}


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Storm)
    print(json.dumps({"event": "result", **uvloop.run(StormClient(job).run())}), flush=True)


if __name__ == "__main__":
    main()
