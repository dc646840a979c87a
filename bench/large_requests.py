"""Time for which a large request holds Redis up: ``python -m bench.large_requests`` takes half a minute.

A client of its own adds to a stream without a pause, on a Redis of its own. The figure is its longest wait while
requests of 32 MiB are stored, read and removed: once as one field of the state, and once in pieces.
"""

import asyncio
import multiprocessing as mp
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

import redis

from bench.markdown import aligned
from shared.broker.client import Client, connect, run_script
from shared.broker.creation import NewStream, create
from shared.broker.ending import holder_of
from shared.broker.replies import Claimed
from shared.broker.scripts import Ending, Fields, StreamScripts
from shared.broker.stored_request import read_request
from shared.protocol import events
from shared.protocol.chunks import compress
from shared.protocol.ids import new_stream_id
from shared.protocol.lifecycle import Status
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker

_REQUEST: Final = os.urandom(16 * 1024 * 1024).hex()
_ROUNDS: Final = 5
_SCRIPTS: Final = StreamScripts(Settings())
_HOLDER: Final = "w00112233.0123456789abcdef"


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder))
        await broker.start()
        client = connect(broker.url)
        try:
            rows = [["", "longest waits of others, ms", "own, ms"]]
            await _measure(client, broker.url, rows)
        finally:
            await client.aclose()
            broker.kill()
    print(aligned(rows))


async def _measure(client: Client, url: str, rows: list[list[str]]) -> None:
    rows.append(await _row("nothing", url, [lambda: asyncio.sleep(0.3)] * _ROUNDS))
    for name, in_pieces in (("one field", False), ("pieces", True)):
        ids = [new_stream_id() for _ in range(_ROUNDS)]
        claims: list[Claimed] = []
        rows.append(await _row(f"{name}: create", url, [_create(client, each, in_pieces) for each in ids]))
        rows.append(await _row(f"{name}: claim", url, [_claim(client, each, claims) for each in ids]))
        ends = [_finish(client, each, claim) for each, claim in zip(ids, claims, strict=True)]
        rows.append(await _row(f"{name}: finish", url, ends))


def _create(client: Client, stream_id: str, in_pieces: bool) -> Callable[[], Awaitable[Any]]:
    fields: Fields = {"principal": "p", "on_disconnect": "cancel", "grace_ms": 60_000, "request": _REQUEST}

    async def run() -> None:
        split, pieces = _SCRIPTS.split_request(stream_id, fields) if in_pieces else (fields, [])
        for piece in pieces:
            await run_script(client, piece)
        demand = Demand("an-account", Limits(), 0)
        await create(client, _SCRIPTS, NewStream(stream_id, split, "f", None, demand))

    return run


def _claim(client: Client, stream_id: str, claims: list[Claimed]) -> Callable[[], Awaitable[Any]]:
    async def run() -> None:
        claimed = await run_script(client, _SCRIPTS.claim(stream_id, _HOLDER))
        assert isinstance(claimed, Claimed)
        claims.append(claimed)
        if "request_bytes" in claimed.fields:
            await read_request(client, _SCRIPTS.sealing, stream_id, int(claimed.fields["request_bytes"]))

    return run


def _finish(client: Client, stream_id: str, claimed: Claimed) -> Callable[[], Awaitable[Any]]:
    holder, done = holder_of(stream_id, claimed, _HOLDER), events.encode(events.Done("stop", None, None))
    ending, chunks = Ending(Status.COMPLETED, {"reason": ""}, 0), compress([done])
    return lambda: run_script(client, _SCRIPTS.finish(holder, 1, [done], chunks, ending))


async def _row(name: str, url: str, calls: list[Callable[[], Awaitable[Any]]]) -> list[str]:
    begun, over = mp.Event(), mp.Event()
    waits: SimpleQueue[list[float]] = mp.SimpleQueue()
    other = mp.Process(target=_add_until, args=(url, begun, over, waits))
    other.start()
    await asyncio.to_thread(begun.wait)
    own = []
    for call in calls:
        started = time.perf_counter()
        await call()
        own.append(time.perf_counter() - started)
        await asyncio.sleep(0.1)
    over.set()
    longest = sorted(await asyncio.to_thread(waits.get))[-_ROUNDS:]
    other.join()
    return [name, " ".join(f"{s * 1e3:.0f}" for s in reversed(longest)), f"{sorted(own)[len(own) // 2] * 1e3:.0f}"]


def _add_until(url: str, begun: Event, over: Event, waits: "SimpleQueue[list[float]]") -> None:
    client, found = redis.Redis.from_url(url), [0.0]
    while not over.is_set():
        started = time.perf_counter()
        client.xadd("hr:others", {"e": "token"}, maxlen=100)
        found.append(time.perf_counter() - started)
        begun.set()
    waits.put(found)


if __name__ == "__main__":
    asyncio.run(main())
