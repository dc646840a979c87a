"""Workers can be added and removed under load: the queue shrinks, and nothing is lost."""

import asyncio
import signal
from functools import partial
from typing import Any

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.system import Process, System

WORDS = tuple(f"word{n} " for n in range(20))
TEXT = "".join(WORDS)
SLOTS = 4
STREAMS = 20


async def seen(system: System) -> dict[str, Any]:
    body: dict[str, Any] = (await system.http.get(f"{system.url}/ops/overview")).json()
    return body


async def holds(system: System, **expected: int) -> None:
    """Wait until so many streams wait, and so many run on so many workers."""

    async def look() -> bool:
        now = await seen(system)
        running = sum(worker["streams"] for worker in now["workers"])
        actual = {"waiting": now["waiting"], "running": running, "workers": len(now["workers"])}
        return expected.items() <= actual.items()

    await system.eventually(look, timeout_s=30)


def add_worker(system: System) -> Process:
    first = system.workers[0]
    name = f"worker.{len(system.workers) + 1}"
    worker = Process(name, ["worker"], first.environment, system.folder / f"{name}.log")
    worker.start()
    system.workers.append(worker)
    return worker


async def test_workers_can_be_added_and_removed_under_load(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, concurrency=SLOTS, drain_s=0.5)
    gate = asyncio.Event()
    system.fake.play("scaled", Answer(deltas=WORDS, gate=gate, gate_after=5))
    streams = [await system.post("scaled") for _ in range(STREAMS)]
    await holds(system, waiting=STREAMS - SLOTS, running=SLOTS, workers=1)

    added = [add_worker(system) for _ in range(2)]
    await holds(system, waiting=STREAMS - 3 * SLOTS, running=3 * SLOTS, workers=3)

    for worker in added:  # in the middle of their answers
        worker.signal(signal.SIGTERM)
    await asyncio.gather(*(worker.wait() for worker in added))
    await holds(system, running=SLOTS, workers=1)
    gate.set()
    for status in await asyncio.gather(*map(partial(system.ended, timeout_s=30), streams)):
        assert (status["text"], status["finish_reason"]) == (TEXT, "stop")
    await holds(system, waiting=0, running=0)
