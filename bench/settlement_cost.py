"""Share of settlement in the CPU of a short answer: ``python -m bench.settlement_cost`` takes two minutes.

The last two exchanges of an ending, ``settle`` and ``paid``, are made here as a worker makes them, on a server of
their own. Their CPU is compared with that of an answer of one token of a whole Headrace, measured before and after in
the same run.
"""

import asyncio
import os
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import mean
from typing import Final

import uvloop

from bench.children import ProviderProcess
from bench.cpu import cpu_s
from bench.desk_costs import server
from bench.idle_system import SETTLE_S, Cost, answer_cost, idle_cost
from bench.load import Load
from bench.stage import Stage
from bench.tables_report import write
from bench.targets.headrace import Headrace
from shared.broker.client import Client, connect, run_script
from shared.broker.creation import NewStream, create
from shared.broker.ending import Outcome, holder_of
from shared.broker.replies import Claimed
from shared.broker.scripts import StreamScripts
from shared.broker.settlement import read_owed, settle_ended
from shared.protocol import events
from shared.protocol.chunks import compress
from shared.protocol.ids import new_stream_id
from shared.rate_limits import Demand, Limits
from shared.settings import Settings

_ANSWERS: Final = 400
_PER_S: Final = 50
_IDLE_S: Final = 15
_HOLDER: Final = "w00112233.0123456789abcdef"
_SCRIPTS: Final = StreamScripts(Settings())
Spent = tuple[float, float]


async def _main() -> None:
    provider, target = ProviderProcess(), Headrace()
    await provider.start()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            await target.start(provider.url, Path(folder))
            stage = Stage(target, provider, 1)
            await stage.warm_up()
            await asyncio.sleep(SETTLE_S)
            idle = await idle_cost(stage, _IDLE_S)
            answers = [await _answer(stage, idle)]
            settlement = await _settlement()
            answers.append(await _answer(stage, idle))
        finally:
            await target.stop()
            await provider.stop()
    write(
        "settlement",
        shlex.join(["python", *sys.argv]),
        {"settlement": ("CPU ms of an answer", _rows(answers, settlement))},
    )


async def _answer(stage: Stage, idle: Cost) -> Cost:
    cost, _ = await answer_cost(stage, Load(_ANSWERS, None, _ANSWERS / _PER_S, tokens=1), idle)
    return cost


async def _settlement() -> Spent:
    """Return the CPU ms of one settlement: the server's, and ours."""
    async with server() as (url, pid):
        client = connect(url)
        ids = [await _ended(client) for _ in range(_ANSWERS + 1)]
        owed = iter([owed for stream_id in ids for owed in await read_owed(client, [stream_id])])
        await settle_ended(client, _SCRIPTS, next(owed))  # loads the scripts

        async def settle() -> None:
            await settle_ended(client, _SCRIPTS, next(owed))

        async def nothing() -> None:
            pass

        idle = await _at_a_rate(nothing, pid)
        spent = await _at_a_rate(settle, pid)
        await client.aclose()
    return spent[0] - idle[0], spent[1] - idle[1]


async def _at_a_rate(do: Callable[[], Awaitable[None]], pid: int) -> Spent:
    """Return the CPU ms of each call. Calls come at the rate of the answers, so that both processes sleep between."""
    before = cpu_s(pid), cpu_s(os.getpid())
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(_ANSWERS):
        await asyncio.sleep(begun + number / _PER_S - loop.time())
        await do()
    spent = cpu_s(pid) - before[0], cpu_s(os.getpid()) - before[1]
    return spent[0] * 1000 / _ANSWERS, spent[1] * 1000 / _ANSWERS


async def _ended(client: Client) -> str:
    """Create a stream, claim it and end it after one token; nothing settles it."""
    stream_id = new_stream_id()
    fields: dict[str, str | bytes | int] = {"principal": "p", "on_disconnect": "cancel", "grace_ms": 60_000}
    fields |= {"body_hash": "0" * 64, "provider": "openai", "model": "gpt-some", "request": "r" * 600}
    demand = Demand("an-account", Limits(stored_bytes=2**29), 0)
    await create(client, _SCRIPTS, NewStream(stream_id, fields, "0" * 64, None, demand))
    await run_script(client, _SCRIPTS.take(stream_id, _HOLDER))
    claimed = await run_script(client, _SCRIPTS.claim(stream_id, _HOLDER))
    assert isinstance(claimed, Claimed)
    outcome = Outcome("stop")
    log = [events.encode(events.Start(stream_id, "gpt-some", "openai", 1)), events.encode(events.Token(" x", 1, 1))]
    log += outcome.closing_events(None)
    holder = holder_of(stream_id, claimed, _HOLDER)
    await run_script(client, _SCRIPTS.finish(holder, 1, log, compress(log), outcome.ending(None)))
    return stream_id


def _rows(answers: list[Cost], settlement: Spent) -> list[list[str]]:
    whole = {role: mean(cost[role] for cost in answers) for role in answers[0]}
    parts = {"gateway": 0.0, "worker": settlement[1], "redis": settlement[0]}
    rows = [["", *whole, "all"]]
    rows.append(
        ["a whole answer of one token", *(f"{ms:.2f}" for ms in whole.values()), f"{sum(whole.values()):.2f}"]
    )
    rows.append(["its settle and paid", *(f"{parts[role]:.3f}" for role in whole), f"{sum(parts.values()):.3f}"])
    shares = [parts[role] / whole[role] for role in whole]
    rows.append(["share", *(f"{share:.1%}" for share in shares), f"{sum(parts.values()) / sum(whole.values()):.1%}"])
    by_round = [f"{sum(cost.values()):.2f}" for cost in answers]
    rows.append(["a whole answer, before and after", *[""] * len(whole), " ".join(by_round)])
    return rows


if __name__ == "__main__":
    uvloop.run(_main())
