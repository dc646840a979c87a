"""CPU costs of the desk, the slot with everything per request: ``python -m bench.desk_costs`` takes a minute.

One server with an append-only file, without gateway and worker. CPU is the server's, from /proc. Requests go through
all steps of the desk in turn: many of a kind in a pipeline, one command alone, and many requests at once from
connections of their own, as gateways and workers send them.
"""

import asyncio
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

from bench.cpu import cpu_s
from bench.desk import KINDS, STEPS, Desk
from bench.tables_report import write
from shared.broker.client import Client, connect, run_script, run_scripts
from shared.broker.desk_requests import Place
from shared.broker.keys import QUEUE, job_id_of
from shared.broker.pipeline_connection import PipelineConnection, pack
from tests.broker import Broker

_TOGETHER: Final = 100
_ROUNDS: Final = 40
_ALONE: Final = 1500
#: Requests at once, over so many connections each.
_AT_ONCE: Final = (1, 8, 32)
_REQUESTS: Final = 4000
_UTILISATION: Final = 0.6
_POP: Final = ("BZPOPMIN", QUEUE, 1)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, int]]:
    """Start a server of its own, and return its address and its process."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(folder), "--hz", "5")
        await broker.start()
        try:
            async with broker.client() as client:
                pid = (await client.info("server"))["process_id"]
            yield broker.url, pid
        finally:
            broker.kill()


async def steps_together(desk: Desk) -> list[float]:
    """Return the server's µs for each step, in pipelines of ``_TOGETHER``."""
    async with server() as (url, pid):
        line = await _prepare(url, desk)
        spent = dict.fromkeys(STEPS, 0.0)
        for _ in range(_ROUNDS):
            places = [desk.place() for _ in range(_TOGETHER)]
            for step in STEPS:
                before = cpu_s(pid)
                await _send(line, desk, step, places)
                spent[step] += cpu_s(pid) - before
        await line.aclose()
    return [spent[step] / _ROUNDS / _TOGETHER * 1e6 for step in STEPS]


async def steps_alone(desk: Desk) -> list[float]:
    """Return the server's µs for each step, one command in an exchange."""
    async with server() as (url, pid):
        line = await _prepare(url, desk)
        spent = dict.fromkeys(STEPS, 0.0)
        places = [desk.place() for _ in range(_ALONE)]
        for step in STEPS:
            before = cpu_s(pid)
            for place in places:
                await _send(line, desk, step, [place])
            spent[step] = cpu_s(pid) - before
        await line.aclose()
    return [spent[step] / _ALONE * 1e6 for step in STEPS]


async def _send(line: PipelineConnection, desk: Desk, step: str, places: Sequence[Place]) -> None:
    if step == "pop":
        for reply in await line.exchange_packed(pack(_POP) * len(places), len(places)):
            assert reply is not None, "the queue is empty"
        return
    for reply in await run_scripts(line, [desk.call(step, place) for place in places]):
        assert not isinstance(reply, Exception), reply


async def requests_at_once(desk: Desk, count: int) -> tuple[float, float]:
    """Return the server's µs for a request (admit, pop, take, settle), and the requests a second, with ``count`` of
    them at once on connections of their own."""
    async with server() as (url, pid):
        clients = [connect(url) for _ in range(count)]
        left = iter(range(_REQUESTS))
        admitted: dict[str, Place] = {}

        async def serve(client: Client) -> None:
            line = PipelineConnection(url)
            for _ in left:
                new = desk.place()
                admitted[job_id_of(new.stream_id)] = new
                await run_script(client, desk.call("admit", new))
                ((_, job_id, _),) = await line.exchange_packed(pack(_POP), 1)
                place = admitted.pop(job_id.decode())  # perhaps of another task
                for step in ("take", "settle"):
                    await run_script(client, desk.call(step, place))
            await line.aclose()

        await (await _prepare(url, desk)).aclose()
        before, begun = cpu_s(pid), time.monotonic()
        await asyncio.gather(*map(serve, clients))
        spent, elapsed = cpu_s(pid) - before, time.monotonic() - begun
        for client in clients:
            await client.aclose()
    return spent / _REQUESTS * 1e6, _REQUESTS / elapsed


async def _prepare(url: str, desk: Desk) -> PipelineConnection:
    """Load the scripts, and fill the accounts. Return the connection."""
    line = PipelineConnection(url)
    await line.exchange([("PING",), *desk.minute_of_use()])
    for step in STEPS:
        await _send(line, desk, step, [desk.place()])
    return line


async def _steps(measure: Callable[[Desk], Awaitable[list[float]]]) -> list[list[str]]:
    rows = [["", *STEPS, "a request: admit, pop, take, settle", "requests/s at 60 % of a core"]]
    for name, make in KINDS.items():
        spent = dict(zip(STEPS, await measure(make()), strict=True))
        request = sum(us for step, us in spent.items() if step != "hold")
        rows.append([name, *(f"{us:.1f}" for us in spent.values()), f"{request:.0f}", _rate(request)])
    return rows


async def _at_once() -> list[list[str]]:
    rows = [["", "requests at once", "µs a request", "requests/s at 60 % of a core", "requests/s of this client"]]
    for name, make in KINDS.items():
        for count in _AT_ONCE:
            us, rate = await requests_at_once(make(), count)
            rows.append([name, f"{count}", f"{us:.0f}", _rate(us), f"{rate:,.0f}"])
    return rows


def _rate(us: float) -> str:
    return f"{_UTILISATION / us * 1e6:,.0f}"


async def _main() -> None:
    tables = {
        "together": (f"Server's µs a step, {_TOGETHER} in a pipeline", await _steps(steps_together)),
        "alone": ("Server's µs a step, one command in an exchange", await _steps(steps_alone)),
        "at_once": ("Requests from several connections", await _at_once()),
    }
    write("desk", shlex.join(["python", "-m", "bench.desk_costs", *sys.argv[1:]]), tables)


if __name__ == "__main__":
    uvloop.run(_main())
