"""Outages of Redis."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.broker.client import Client, connect, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.keys import sweep_keys
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.removal import delete_stream
from shared.broker.replies import (
    Begun,
    Code,
    LogPage,
    LogPosition,
    Refused,
    WriteReply,
)
from shared.errors import BrokerUnavailable
from shared.protocol.ids import START
from shared.protocol.lifecycle import Status
from tests.broker import Broker
from tests.scripts.stream import (
    DONE,
    SCRIPTS,
    TOKEN,
    Stream,
    some,
)


async def test_a_full_redis_takes_endings_but_nothing_new(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    await broker.start()
    client = connect(broker.url)
    streams = [await Stream(client, key=False).create() for _ in range(5)]
    running, cancelled, deleted, released, waiting = streams
    holders = {stream.id: await stream.claim() for stream in (running, cancelled, deleted, released)}
    holder = holders[running.id]
    await running.append(holder, 1, some(1, 2))
    await client.config_set("maxmemory", "1")
    new = Stream(client)
    refused: list[Call[Any]] = [
        SCRIPTS.append(holder, 3, some(3, 3)),
        SCRIPTS.claim(waiting.id, TOKEN),
        SCRIPTS.restore(new.holder(1), [], fields={"principal": "p"}, body_hash="ff"),
        SCRIPTS.desk.requeue(waiting.id),
        new.begin(),
    ]
    for call in refused:
        with pytest.raises(BrokerUnavailable):
            await run_script(client, call)
    assert (await run_script(client, SCRIPTS.renew(holder))).code is Code.OK
    assert await running.acknowledge() == LogPosition(Status.RUNNING, holder.epoch, 2, "more")
    assert (await running.page()).events == some(1, 2)
    assert await run_script(client, SCRIPTS.cancel(cancelled.id, "cancelled")) is Refused.HELD
    assert await delete_stream(client, SCRIPTS, deleted.id) is True
    assert (await run_script(client, SCRIPTS.release(holders[released.id]))).code is Code.OK
    await run_script(client, SCRIPTS.sweep(sweep_keys()[:2]))
    assert (await running.finish(holder, 3, [DONE])).code is Code.OK
    assert (await running.page()).events == [*some(1, 2), DONE]
    await client.config_set("maxmemory", "0")
    assert isinstance(await run_script(client, refused[-1]), Begun)
    assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []
    await client.aclose()
    broker.kill()


async def test_forgotten_scripts_are_loaded_again(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await client.script_flush()
    assert (await stream.append(holder, 1, some(1, 1))).code is Code.OK
    await client.script_flush()
    calls: list[Call[object]] = [
        SCRIPTS.append(holder, 2, some(2, 2)),
        SCRIPTS.append(holder, 2, some(2, 3)),
        SCRIPTS.renew(holder),
        SCRIPTS.read(stream.id, START),
    ]
    answers = await run_scripts(client, calls)
    first, second, renewed, page = answers
    assert [reply.last_seq for reply in (first, second, renewed) if isinstance(reply, WriteReply)] == [2, 3, 3]
    assert isinstance(page, LogPage)
    assert page.events == some(1, 3)
    assert await stream.log() == some(1, 3)


async def test_an_empty_exchange_sends_nothing(client: Client, scripts_broker: Broker) -> None:
    line = PipelineConnection(scripts_broker.url)
    async with asyncio.timeout(20):
        assert await client.exchange([]) == await line.exchange([]) == []
    await line.aclose()


async def test_redis_is_away(client: Client, tmp_path: Path) -> None:
    away = connect(Broker(tmp_path).url)
    calls: list[Call[Any]] = [SCRIPTS.claim("0" * 34, TOKEN), SCRIPTS.delete("0" * 34)]
    assert [type(answer) for answer in await run_scripts(away, calls)] == [BrokerUnavailable] * 2
    with pytest.raises(BrokerUnavailable):
        await run_script(away, calls[0])
    await away.aclose()
