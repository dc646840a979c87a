"""Load client, a process of its own: ``python -m bench.client`` reads a job as JSON and prints lines of JSON.

It prints ``{"event": "first"}`` once every stream has its first token (or will get none), and at the end
``{"event": "result", …}``, see ``bench/tally.py``.
"""

import asyncio
import json
import sys
import time
from itertools import cycle, islice
from typing import Any, ClassVar, Literal

import msgspec
import uvloop

from bench.http import request
from bench.stream import Stream, Wanted
from bench.tally import Tally


class JobRequest(msgspec.Struct):
    """Form of ``bench.targets.base.TargetRequest`` for JSON. ``end``: of its answer, if it is not the job's.
    ``text_end``: see ``bench.stream.Wanted``."""

    path: str
    body: str
    method: str = "POST"
    headers: dict[str, str] = {}
    end: str = ""
    text_end: str = ""


class Job(msgspec.Struct):
    """Work of a load client: ``count`` streams, started evenly over ``over_s``, with ``requests`` in turn.

    ``leave``: once all streams have their first token and ``hold_s`` has passed, ``cut`` all connections, or
    ``cancel`` all streams by Headrace's API. ``timeout_s``: for the whole job.
    """

    port: int
    requests: list[JobRequest]
    count: int
    over_s: float
    end: str
    tokens: int | None = None
    timeout_s: float = 120
    leave: Literal["cut", "cancel"] | None = None
    hold_s: float = 0
    forget_ramp: bool = False


class Client:
    """Runs one job."""

    stream_type: ClassVar[type[Stream]] = Stream

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tally = Tally()
        self._streams: list[Stream] = []
        self._without_first = self._unfinished = job.count
        self._all_first = asyncio.Event()
        self._all_over = asyncio.Event()
        self._all_first_us = self._left_us = 0

    async def run(self) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._job.timeout_s):
                opening = asyncio.create_task(self._open_all())
                await self._all_first.wait()
                self._all_first_us = time.monotonic_ns() // 1000
                print(json.dumps({"event": "first"}), flush=True)
                if self._job.forget_ramp:
                    del self._tally.latency_us[:]
                await opening
                await self._after_first()
                await self._all_over.wait()
        except TimeoutError:
            for stream in self._streams:
                stream.finish("timeout")
        return {**self.result(), "wall_s": time.monotonic() - begun, "cpu_s": time.process_time()}

    def result(self) -> dict[str, Any]:
        """Return the tally, and the times of the job in microseconds of CLOCK_MONOTONIC."""
        times = {"all_first_us": self._all_first_us, "left_us": self._left_us}
        return {**self._tally.result(), **times, "streams": self._job.count}

    async def _open_all(self) -> None:
        """Open each stream at its time, even if earlier ones are not connected yet."""
        job = self._job
        encoded = [self._encoded(each) for each in job.requests]
        begun = time.monotonic()
        opening = set()
        for number, (wire, wanted) in enumerate(islice(cycle(encoded), job.count)):
            ahead = begun + number * job.over_s / job.count - time.monotonic()
            if ahead > 0.001:
                await asyncio.sleep(ahead)
            stream = self.stream_type(wire, wanted, self._tally, self._has_first, self._is_over)
            self._streams.append(stream)
            opening.add(asyncio.create_task(self._open(stream)))
        await asyncio.wait(opening)

    def _encoded(self, wanted: JobRequest) -> tuple[bytes, Wanted]:
        job, body = self._job, wanted.body.encode()
        wire = request(job.port, wanted.method, wanted.path, wanted.headers, body)
        return wire, Wanted((wanted.end or job.end).encode(), job.tokens, wanted.text_end.encode())

    async def _open(self, stream: Stream) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", self._job.port)
        except OSError as error:
            stream.finish(f"cannot connect: {type(error).__name__}")

    def _has_first(self) -> None:
        self._without_first -= 1
        if not self._without_first:
            self._all_first.set()

    def _is_over(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._all_over.set()

    async def _after_first(self) -> None:
        """End the job early, if it says so, once all streams have begun."""
        if not self._job.leave:
            return
        await asyncio.sleep(self._job.hold_s)
        self._left_us = time.monotonic_ns() // 1000
        if self._job.leave == "cancel":
            await asyncio.gather(*(self._cancel(s.response.stream_id) for s in self._streams if not s.over))
        else:
            for stream in self._streams:
                stream.finish("")

    async def _cancel(self, stream_id: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._job.port)
        writer.write(request(self._job.port, "POST", f"/chat/{stream_id}/cancel", {}, b""))
        await reader.readline()
        writer.close()


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    result = uvloop.run(Client(job).run())
    print(json.dumps({"event": "result", **result}), flush=True)


if __name__ == "__main__":
    main()
