"""Measures enqueue → job start, with an idle worker and with 300 jobs in progress on another.

    make bench-queue            (or: python -m bench.queue_latency --samples 300)

It uses real processes and a real broker. The worker under test runs its real queue in this process, so that one clock
times both ends. The jobs in progress run in a worker process of their own, and fill its slots. Beside it, the times
that a client sees: POST sent → provider called, and POST sent → first token received.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from shared.broker.client import connect
from shared.broker.keys import QUEUE, job_id_of
from shared.protocol.ids import new_stream_id
from shared.settings import Settings
from tests.fakes.answer import Answer
from tests.system import System
from workers.jobs.queue import StreamQueue

BUSY = 300
PACE_S = 0.02


async def queue_hops(redis_url: str, samples: int) -> list[float]:
    """Return the seconds from the addition to the queue to the first line of the job."""
    settings = Settings(redis_url=redis_url)
    client = connect(redis_url)

    async def put(stream_id: str) -> bool:
        return bool(await client.zadd(QUEUE, {job_id_of(stream_id): 1}))

    started: dict[str, asyncio.Future[float]] = {}

    async def job(stream_id: str) -> None:
        started[stream_id].set_result(time.perf_counter())

    queue = StreamQueue(client.servers, settings, "bench", job, put)
    taking = asyncio.create_task(queue.main())
    hops = []
    for _ in range(samples):
        stream_id = new_stream_id()
        started[stream_id] = asyncio.get_running_loop().create_future()
        await asyncio.sleep(PACE_S)
        begun = time.perf_counter()
        await put(stream_id)
        hops.append(await started[stream_id] - begun)
    queue.quiet()
    await taking
    await queue.drained()
    await queue.close()
    await client.aclose()
    return hops


async def whole_path(system: System, samples: int) -> tuple[list[float], list[float]]:
    """Return the seconds from sending the POST to the call of the provider, and to the first token."""
    called, first_token = [], []
    for _ in range(samples):
        await asyncio.sleep(PACE_S)
        count = len(system.fake.calls)
        begun = time.perf_counter()
        opening = asyncio.create_task(system.stream("one-token"))
        await system.fake.wait_calls(count + 1)
        called.append(time.perf_counter() - begun)
        async with await opening as connection:
            await connection.next("token")
            first_token.append(time.perf_counter() - begun)
            await connection.rest()
    return called, first_token


async def fill(system: System) -> None:
    """Occupy every slot of the system's worker."""
    system.fake.play("for-ever", Answer(deltas=["…"], end="hang"))
    for start in range(0, BUSY, 50):
        await asyncio.gather(*(system.post("for-ever") for _ in range(start, start + 50)))
    await system.fake.wait_calls(BUSY, timeout_s=60)


def row(name: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return f"{name:<46} p50 {statistics.median(ordered) * 1000:7.2f} ms   p99 {p99 * 1000:7.2f} ms"


async def main(samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=1, workers=1, concurrency=BUSY)
        try:
            await system.start()
            system.fake.play("one-token", Answer(deltas=["x"]))
            called, first_token = await whole_path(system, samples)
            print(row("whole path, POST sent → provider called", called))
            print(row("whole path, POST sent → first token received", first_token))
            system.workers[0].stop()
            print(row("enqueue → job start, no other job", await queue_hops(system.broker.url, samples)))
            system.workers[0].start()
            system.fake.calls.clear()
            await fill(system)
            name = f"enqueue → job start, {BUSY} in progress elsewhere"
            print(row(name, await queue_hops(system.broker.url, samples)))
        finally:
            await system.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=300)
    asyncio.run(main(parser.parse_args().samples))
