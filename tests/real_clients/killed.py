"""An agent finishes its task while gateways are killed in the middle of answers."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from tests.fakes import Answer, Call
from tests.real_clients.cell import Cell
from tests.real_clients.failover import Failover
from tests.real_clients.program import Outcome, Program, Way
from tests.real_clients.scenarios import FINAL, TEXT
from tests.real_clients.settings import SETTINGS
from tests.real_clients.upstream import Upstream
from tests.system import System

LINES: Final = ("one", "two", "three", "four", "five", "six")
#: The steps, from 0, in whose answer the gateway is killed: after some words, before the call of the tool.
KILLED_IN: Final = (2, 4)
_WORDS: Final = tuple(f"word{number} " for number in range(8))


async def gateways_killed(program: Program, way: Way) -> None:
    """Run a task of six steps and an image. In two of its answers the gateway is killed; the other one takes over,
    and the killed one is started again."""
    upstream = Upstream()
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), gateways=2, workers=1, providers=("openai", "anthropic"), **SETTINGS)
        system.fake.director = upstream.answer
        try:
            await system.start()
            async with Failover([gateway.port for gateway in system.gateways]) as balancer:
                cell = Cell(program, way, mark="mark-1", url=balancer.url, upstream=upstream)
                await _run(cell, system, balancer)
        finally:
            await system.stop()


async def _run(cell: Cell, system: System, balancer: Failover) -> None:
    gates = {step: asyncio.Event() for step in KILLED_IN}
    answers = [_step(cell, step, gates.get(step)) for step in range(len(LINES))]
    cell.plays(*answers, Answer(deltas=(), tools=[cell.program.look("image", cell.image)]), FINAL)
    running = asyncio.create_task(cell.run("image"))
    try:
        for step, gate in gates.items():
            call = await _begun(cell, step, running)
            await call.wait_deltas(len(_WORDS) // 2)
            await _replace(system, balancer)
            gate.set()
        outcome = await running
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert outcome.error is None, outcome.error
    assert outcome.text == TEXT
    assert cell.lines == list(LINES), "every tool has to run exactly once"
    _check_repeats(cell)
    assert cell.play.images[-1]


async def _begun(cell: Cell, step: int, running: asyncio.Task[Outcome]) -> Call:
    """Wait for the request whose answer is that of ``step``. A program that ends before fails."""
    request = asyncio.create_task(cell.nth_call_with(step))
    try:
        await asyncio.wait([request, running], return_when=asyncio.FIRST_COMPLETED)
        assert request.done(), f"ended before step {step}: {await running}"
        return await request
    finally:
        request.cancel()


async def _replace(system: System, balancer: Failover) -> None:
    """Kill the gateway that has the connection, wait for the retry at the other one, and start the killed one."""
    killed = balancer.at
    system.gateways[killed].stop()

    async def other() -> bool:
        return balancer.at != killed

    await system.eventually(other, timeout_s=60)
    system.gateways[killed].start()
    await system.ready()


def _check_repeats(cell: Cell) -> None:
    """Check that only the killed answers were asked for again, each at most once."""
    requests = Counter(cell.play.results)
    for step in range(len(LINES) + 2):
        allowed = 2 if step in KILLED_IN else 1
        assert 1 <= requests[step] <= allowed, f"step {step} was requested {requests[step]} times"


def _step(cell: Cell, step: int, gate: asyncio.Event | None) -> Answer:
    call = cell.program.append(str(step), LINES[step])
    return Answer(deltas=_WORDS, tools=[call], gate=gate, gate_after=len(_WORDS) // 2 if gate else 0)
