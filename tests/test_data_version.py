"""Processes of different data versions never share a database, and an emptied Redis stops no process."""

import pytest

from shared.broker.keys import DATA_VERSION, DATA_VERSION_KEY, index_key
from shared.exit_codes import CONFIGURATION_ERROR
from tests.conftest import StartSystem
from tests.sse_client import text_of
from tests.system import Process, System

OURS = str(DATA_VERSION).encode()
ANOTHER = DATA_VERSION + 1
UNVERSIONED_STREAM = "aa" + "0" * 32


async def stored_version(system: System) -> bytes | None:
    async with system.broker.client() as client:
        version: bytes | None = await client.get(DATA_VERSION_KEY)
    return version


def processes(system: System) -> list[Process]:
    return [*system.gateways, *system.workers]


async def all_exit(system: System, words: str) -> None:
    for process in processes(system):
        assert await process.wait() == CONFIGURATION_ERROR
        log = process.log.read_text()
        assert words in log
        assert "HEADRACE_REDIS_URL" in log


async def test_a_start_sets_the_version_for_good(system: System) -> None:
    assert await stored_version(system) == OURS
    async with system.broker.client() as client:
        assert await client.ttl(DATA_VERSION_KEY) == -1


@pytest.mark.parametrize(
    ("version", "index"),
    [(None, index_key(UNVERSIONED_STREAM)), (ANOTHER, index_key(UNVERSIONED_STREAM)), (6, "hr:{aa}:index")],
)
async def test_a_start_refuses_the_data_of_another_version(
    start_system: StartSystem, version: int | None, index: str
) -> None:
    system = await start_system(gateways=1, workers=1)
    for process in processes(system):
        process.stop()
    async with system.broker.client() as client:
        await client.flushall()
        await client.zadd(index, {UNVERSIONED_STREAM: 1})
        await client.pexpire(index, 100_000)
        if version is not None:
            await client.set(DATA_VERSION_KEY, version)
        before = await client.keys()
    for process in processes(system):
        process.start()
    await all_exit(system, f"version {version or 0}")
    async with system.broker.client() as client:
        assert sorted(await client.keys()) == sorted(before), "a process wrote to a database that it refused"


async def test_a_start_takes_a_database_whose_other_version_left_no_data(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    for process in processes(system):
        process.stop()
    async with system.broker.client() as client:
        await client.flushall()
        await client.set(DATA_VERSION_KEY, ANOTHER)
    for process in processes(system):
        process.start()
    await system.ready()
    assert await stored_version(system) == OURS


async def test_an_emptied_redis_gets_the_version_again_and_stops_nobody(start_system: StartSystem) -> None:
    system = await start_system(gateways=2, workers=1)
    async with system.broker.client() as client:
        await client.flushall()
    system.gateways[1].stop()
    system.gateways[1].start()  # it may meet new data before the version

    async def is_set() -> bool:
        return await stored_version(system) == OURS

    await system.eventually(is_set)
    await system.ready()
    assert all(process.alive for process in processes(system))
    async with await system.stream("echo", "as before", gateway=1) as after:
        assert text_of(await after.rest()) == "as before"


async def test_a_running_process_leaves_an_emptied_redis_that_another_version_took(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    async with system.broker.client() as client, client.pipeline(transaction=True) as pipe:
        pipe.flushall()
        pipe.set(DATA_VERSION_KEY, ANOTHER)
        await pipe.execute()
    await all_exit(system, f"version {ANOTHER}")
