"""The archive gets every stream that has ended, once, and nothing that was deleted."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from shared.archive.archive import Archive, open_archive
from shared.archive.records import ArchivedStream
from shared.broker.client import Client, connect, run_commands
from shared.broker.due_queues import put_off
from shared.broker.keys import UNARCHIVED, state_key
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.scripts import StreamScripts
from shared.protocol import events
from shared.schemas.stored_request import decode_request
from shared.settings import Settings
from tests.archive_databases import PostgresServer, SqliteFile, has_postgres
from tests.fakes.answer import Answer, ToolCall
from tests.system import System
from workers.archiving.loop import Archiving
from workers.archiving.record import look_at, read_records

WORDS = [f"w{i} " for i in range(20)]
TEXT = "".join(WORDS)
LARGE = "large " * 100_000
CONTENT_KEY = "ab" * 32
NIGHTLY = bool(os.environ.get("HEADRACE_NIGHTLY"))
#: The fields of the view that are the same before and after the archive.
VIEW = (
    *(
        "stream_id",
        "status",
        "text",
        "reasoning",
        "refusal",
        "tool_calls",
        "json",
        "finish_reason",
        "reason",
        "usage",
    ),
    *("error", "model", "provider", "attempt", "metadata", "created_at", "started_at", "ended_at"),
)


@asynccontextmanager
async def opened(database: SqliteFile, **settings: Any) -> AsyncIterator[Archive]:
    of_database = Settings.model_construct(archive_url=SecretStr(database.url), **settings)
    async with open_archive(of_database, migrates=False) as archive:
        yield archive


async def archived(system: System, database: SqliteFile, stream_id: str) -> ArchivedStream:
    """Wait until the archive has a stream and Redis waits for it no more, and return it."""

    async def look() -> ArchivedStream | None:
        if await system.field(stream_id, "unarchived") is not None:
            return None
        async with opened(database) as archive:
            return await archive.find(stream_id)

    return await system.eventually(look)


@contextmanager
def locked(database: SqliteFile) -> Iterator[None]:
    """Lock the database for all writers."""
    connection = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None, timeout=60)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


def assert_same(archived: ArchivedStream, status: dict[str, Any]) -> None:
    assert {name: archived.view[name] for name in VIEW} == {name: status[name] for name in VIEW}
    assert archived.status == status["status"]
    assert archived.end == status["last_event_id"]


# --- one worker and a database that is well


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> SqliteFile:
    return SqliteFile(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, database: SqliteFile) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("system"),
        gateways=1,
        workers=1,
        providers=("openai",),
        archive_url=database.url,
        retention_min_s=0,
        lease_s=2,
    )
    await system.start()
    yield system
    assert await system.keys_without_expiry() == []
    await system.stop()


async def test_an_ended_stream_is_in_the_archive(system: System, database: SqliteFile) -> None:
    tools = (ToolCall("c1", "look", ('{"a"', ": 1}")),)
    system.fake.play("whole", Answer(reasoning=("I ", "think"), deltas=WORDS, tools=tools))
    stream_id = await system.post("whole", "What is this?", metadata={"order": "17"})
    status = await system.ended(stream_id)
    found = await archived(system, database, stream_id)
    assert_same(found, status)
    assert decode_request(found.request).messages[0].text == "What is this?"
    assert found.text == TEXT
    assert not found.has_cursors
    kinds = [each.partition(b" ")[0] for each in found.events]
    assert kinds.count(b"token") == 1, "deltas are joined"
    assert kinds[-1] == b"done"
    assert await system.field(stream_id, "request") is None
    assert await system.status(stream_id) == status, "Redis still has the answer"


async def test_a_large_request_is_archived_whole(system: System, database: SqliteFile) -> None:
    system.fake.play("large", Answer(deltas=WORDS))
    stream_id = await system.post("large", LARGE)
    found = await archived(system, database, stream_id)
    assert decode_request(found.request).messages[0].text == LARGE


async def test_endings_without_an_answer_are_archived_too(system: System, database: SqliteFile) -> None:
    gate = asyncio.Event()
    system.fake.play("cancelled", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("cancelled") as connection:
        await connection.next("token")
        await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
        cancelled = str(connection.stream_id)
    gate.set()
    system.fake.play("failing", Answer(status=400))
    failed = await system.post("failing", fallbacks=[])
    for stream_id, status in ((cancelled, "cancelled"), (failed, "failed")):
        found = await archived(system, database, stream_id)
        assert found.status == status
        assert_same(found, await system.status(stream_id))
    assert found.view["error"]["code"]


async def test_a_stream_that_never_ran_is_archived(system: System, database: SqliteFile) -> None:
    system.workers[0].stop()
    stream_id = await system.post("never", "hi")
    await system.http.post(f"{system.url}/chat/{stream_id}/cancel")
    system.workers[0].start()
    found = await archived(system, database, stream_id)
    assert (found.status, found.text) == ("cancelled", "")
    assert_same(found, await system.status(stream_id))


async def test_responses_are_archived_unless_they_are_not_to_be_stored(system: System, database: SqliteFile) -> None:
    system.fake.play("stored", Answer(deltas=WORDS))
    client = openai.AsyncOpenAI(base_url=f"{system.url}/v1", api_key="x")
    kept = await client.responses.create(model="openai/stored", input="hi", instructions="be brief")
    other = await client.responses.create(model="openai/stored", input="hi", store=False)
    await client.close()
    found = await archived(system, database, kept.id.removeprefix("resp_"))
    assert found.fields["follow_up"] == "1"
    assert "response" in found.fields
    assert await system.field(found.stream_id, "request") is not None, "a later request may continue it"
    stream_id = other.id.removeprefix("resp_")
    assert await system.field(stream_id, "archive") is None
    async with opened(database) as archive:
        assert await archive.find(stream_id) is None


async def test_a_count_of_tokens_is_not_archived(system: System, database: SqliteFile) -> None:
    body = {"model": "openai/counted", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}
    answer = await system.http.post(f"{system.url}/v1/messages/count_tokens", json=body)
    assert answer.status_code == 200, answer.text
    system.fake.play("later", Answer(deltas=WORDS))
    await archived(system, database, await system.post("later"))
    assert await database.rows("SELECT stream_id FROM streams WHERE model LIKE '%counted'") == []


async def test_a_worker_that_dies_after_its_write_leaves_the_stream_once(
    system: System, database: SqliteFile
) -> None:
    """Another worker writes it again, which changes nothing."""
    system.fake.play("twice", Answer(deltas=WORDS))
    client = connect(system.redis_url)
    scripts = StreamScripts(Settings.model_construct(archive_url=SecretStr(database.url), lease_s=2))
    with locked(database):
        stream_id = await system.post("twice")
        await system.ended(stream_id)
        system.workers[0].stop()
    await put_off(client, UNARCHIVED, [stream_id], 0)

    class Dies(StreamScripts):
        def archived(self, *_: object) -> Any:
            raise KeyboardInterrupt  # no handler may go on after it

    async with opened(database) as archive:
        dying = Dies(Settings.model_construct(lease_s=2))
        with pytest.raises(KeyboardInterrupt):
            await Archiving(client, dying, archive)._turn()
        assert await archive.find(stream_id) is not None
        assert await system.field(stream_id, "unarchived") is not None
        await put_off(client, UNARCHIVED, [stream_id], 0)  # the lease has passed
        await asyncio.gather(*(Archiving(client, scripts, archive)._turn() for _ in range(3)))
        assert await system.field(stream_id, "unarchived") is None
    rows = await database.rows(f"SELECT count(*) AS n FROM streams WHERE stream_id = '{stream_id}'")
    assert rows == [{"n": 1}]
    system.workers[0].start()
    await client.aclose()
    await system.ready()


async def test_a_stream_that_cannot_be_archived_holds_up_no_other(system: System, database: SqliteFile) -> None:
    system.fake.play("poison", Answer(deltas=WORDS))
    system.fake.play("fine", Answer(deltas=WORDS))
    with locked(database):
        async with system.broker.client() as client:
            # The worker waits for the lock with this one, and does not read the next before its data is damaged.
            first = await system.post("fine")
            await system.eventually(lambda: is_taken(client, first))
            poison = await system.post("poison")
            await system.ended(poison)
            key = state_key(poison).replace(":state", ":log")
            await client.delete(key)
            await client.rpush(key, b"no chunk")  # type: ignore[misc]
            await client.expire(key, 3600)
            await client.delete(state_key(poison).replace(":state", ":tail"))
    fine = await system.post("fine")
    await archived(system, database, fine)

    async def is_reported() -> bool:
        return "stream cannot be archived" in system.workers[0].log.read_text()

    await system.eventually(is_reported)
    assert await system.field(poison, "unarchived") is not None
    async with system.broker.client() as client:
        assert await client.zscore(UNARCHIVED, poison) > 0


async def is_taken(client: Redis, stream_id: str) -> bool:
    """Return True once a worker has taken a stream, to archive it."""
    due_ms = await client.zscore(UNARCHIVED, stream_id)
    return due_ms is not None and due_ms > (await client.time())[0] * 1000 + 60_000


async def test_streams_with_large_logs_are_not_held_together(system: System, database: SqliteFile) -> None:
    system.fake.play("pair", Answer(deltas=WORDS))
    scripts = StreamScripts(Settings.model_construct(archive_url=SecretStr(database.url)))
    client = connect(system.redis_url)
    try:
        with locked(database):
            ids = [await system.post("pair") for _ in range(2)]
            for stream_id in ids:
                await system.ended(stream_id)
            waiting = (await look_at(client, ids)).waiting
            for most_bytes, sizes in ((1, [1, 1]), (1_000_000, [2])):
                read = [records async for _, records in read_records(client, scripts, waiting, most_bytes=most_bytes)]
                assert [len(records) for records in read] == sizes
                assert [
                    each.stream_id for records in read for each in records if isinstance(each, ArchivedStream)
                ] == ids
    finally:
        await client.aclose()
    for stream_id in ids:
        await archived(system, database, stream_id)


# --- a database that is away


async def test_an_archive_that_is_away_holds_nothing_up_and_loses_nothing(tmp_path: Path) -> None:
    database = SqliteFile(tmp_path)
    system = await with_two_workers(tmp_path, database, content_keys=CONTENT_KEY)
    system.fake.play("away", Answer(deltas=WORDS))
    scripts = StreamScripts(Settings.model_construct(archive_url=SecretStr(database.url), retention_min_s=0))
    client = connect(system.redis_url)
    try:
        with locked(database):
            ids = [await system.post("away", f"prompt-of-{i}", metadata={"n": str(i)}) for i in range(20)]
            views = [await system.ended(stream_id) for stream_id in ids]
            deleted = ids.pop(0)
            del views[0]
            assert await delete_stream(client, scripts, deleted)
            await retention_passes(client, ids)
            for stream_id in ids:
                assert await drop_answer(client, scripts, stream_id) == 0
            await system.eventually(lambda: is_unavailable(system), timeout_s=40)
            async with await system.stream("away") as connection:
                await connection.next("done")
                ids.append(str(connection.stream_id))
        for stream_id in ids:
            await gone(client, stream_id)
        for stream_id, view in zip(ids, views, strict=False):
            async with opened(database, content_keys=(SecretStr(CONTENT_KEY),)) as archive:
                found = await archive.find(stream_id)
            assert found is not None
            assert_same(found, view)
            assert found.has_cursors
            assert [events.decode(each) for each in found.events][-1] == events.decode(found.events[-1])
        async with opened(database) as archive:
            assert await archive.find(deleted) is None
        assert (await database.rows("SELECT count(*) AS n FROM streams"))[0]["n"] == len(ids)
        stored = b"".join(file.read_bytes() for file in tmp_path.glob("archive.db*"))
        assert stored
        assert not {word for word in (TEXT, "prompt-of") if word.encode() in stored}, "sealed content stays sealed"
        assert await system.keys_without_expiry() == []
    finally:
        await client.aclose()
        await system.stop()


@pytest.mark.skipif(not (NIGHTLY and has_postgres()), reason="HEADRACE_NIGHTLY=1 makes it, with a PostgreSQL")
async def test_postgresql_that_is_killed_in_the_middle_of_batches_has_each_stream_once(tmp_path: Path) -> None:
    database = PostgresServer(tmp_path)
    await database.start()
    system = await with_two_workers(tmp_path, database)
    system.fake.play("killed", Answer(deltas=WORDS))
    client = connect(system.redis_url)
    try:
        ids = list[str]()
        for _ in range(4):
            ids += [await system.post("killed", LARGE[: 200_000 * (i % 3 == 0)] + "x") for i in range(50)]
            await system.eventually(lambda: client.zcard(UNARCHIVED), timeout_s=30)
            await database.kill()
            await asyncio.sleep(0.5)
            await database.start()
        for stream_id in ids:
            await gone(client, stream_id, within_s=180)
        rows = await database.rows("SELECT stream_id, count(*) AS n, min(text) AS text FROM streams GROUP BY 1")
        assert {row["stream_id"]: (row["n"], row["text"]) for row in rows} == dict.fromkeys(ids, (1, TEXT))
    finally:
        await client.aclose()
        await system.stop()
        await database.stop()
        database.remove()


async def with_two_workers(folder: Path, database: SqliteFile, **settings: str) -> System:
    system = System(
        folder,
        gateways=1,
        workers=2,
        providers=("openai",),
        archive_url=database.url,
        archive_events=True,
        retention_s=2,
        retention_min_s=0,
        lease_s=2,
        **settings,  # type: ignore[arg-type]
    )
    await system.start()
    return system


async def retention_passes(client: Client, stream_ids: list[str]) -> None:
    """Wait until the streams would be forgotten, and check that they are not."""
    keys = [state_key(stream_id) for stream_id in stream_ids]
    ended = await run_commands(client, [("HGET", key, "ended") for key in keys])
    while (await client.time())[0] * 1000 < max(map(int, ended)) + 3000:
        await asyncio.sleep(0.1)
    assert await client.exists(*keys) == len(keys)


async def is_unavailable(system: System) -> bool:
    return any("archive unavailable" in worker.log.read_text() for worker in system.workers)


async def gone(client: Client, stream_id: str, *, within_s: float = 60) -> None:
    """Wait until Redis has forgotten a stream, which it does once that is archived."""
    async with asyncio.timeout(within_s):
        while await client.exists(state_key(stream_id)):
            await asyncio.sleep(0.05)
