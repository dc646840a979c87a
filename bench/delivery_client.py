"""Load client of ``bench/cluster_disturbance.py``, a process of its own: JSON in and out.

It reads streams over several gateways, and reports each token of each stream. A stream that breaks off is read again
from its last complete event, at the next gateway.
"""

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from typing import Any, Final

import msgspec
import uvloop

from bench.http import Response, request
from bench.pace import FIND_STAMPS

_FIND_IDS: Final = re.compile(rb"^id: (\S+)$", re.MULTILINE)
_PAUSE_S: Final = 0.05


class Delivery(msgspec.Struct):
    """Job: ``count`` streams of ``body``, begun over ``over_s``. Each has to end with ``tokens``."""

    ports: list[int]
    body: str
    count: int
    over_s: float
    tokens: int


class Reader:
    """One stream. ``received``: (time of arrival, latency) of each token, in µs of CLOCK_MONOTONIC."""

    def __init__(self, job: Delivery, number: int) -> None:
        self.stream_id = ""
        self.received: list[tuple[int, int]] = []
        self.refused = self.broken = self.wrong = 0
        self._job = job
        self._at = number % len(job.ports)
        self._cursor = ""
        self._has_ended = False

    async def run(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._has_ended:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._read()
            if not self._has_ended:
                self.broken += bool(self.stream_id)
                self._at = (self._at + 1) % len(self._job.ports)
                await asyncio.sleep(_PAUSE_S)

    async def _read(self) -> None:
        """Read until the connection ends."""
        port = self._job.ports[self._at]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if self.stream_id:
                headers = {"Last-Event-ID": self._cursor} if self._cursor else {}
                writer.write(request(port, "GET", f"/chat/stream/{self.stream_id}", headers, b""))
            else:
                writer.write(request(port, "POST", "/chat/stream", {}, self._job.body.encode()))
            response, rest = Response(), b""
            while not response.ended and (data := await reader.read(2**16)):
                rest += response.feed(data)
                if response.status not in {0, 200}:
                    self.refused += 1
                    return
                self.stream_id = response.stream_id or self.stream_id
                whole, _, rest = rest.rpartition(b"\n\n")
                self._take(whole)
        finally:
            writer.close()

    def _take(self, events: bytes) -> None:
        """Count the tokens of complete events."""
        now_us = time.monotonic_ns() // 1000
        for seq, sent in FIND_STAMPS.findall(events):
            self.wrong += int(seq) != len(self.received)
            self.received.append((now_us, now_us - int(sent)))
        if ids := _FIND_IDS.findall(events):
            self._cursor = ids[-1].decode()
        if b"event: done" in events:
            self._has_ended = True
            self.wrong += len(self.received) != self._job.tokens


async def run(job: Delivery) -> dict[str, Any]:
    readers = [Reader(job, number) for number in range(job.count)]
    tasks = [asyncio.create_task(each.run(n * job.over_s / job.count)) for n, each in enumerate(readers)]
    while not all(each.received for each in readers):
        await asyncio.sleep(_PAUSE_S)
    print(json.dumps({"event": "first", "ids": [each.stream_id for each in readers]}), flush=True)
    await asyncio.gather(*tasks)
    return {
        "refused": sum(each.refused for each in readers),
        "broken": sum(each.broken for each in readers),
        "wrong": sum(each.wrong for each in readers),
        "received": {each.stream_id: each.received for each in readers},
    }


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Delivery)
    print(json.dumps({"event": "result", **uvloop.run(run(job))}), flush=True)


if __name__ == "__main__":
    main()
