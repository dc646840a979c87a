"""Streams that only the archive has: what their owners can still do with them."""

from collections.abc import AsyncIterator

import pytest

from tests.archive_databases import PostgresServer, SqliteFile
from tests.archived_system import BOB, ArchivedSystem, wants_postgres
from tests.fakes.answer import Answer

WORDS = [f"w{i} " for i in range(20)]
TEXT = "".join(WORDS)
DATABASES = [SqliteFile, *([PostgresServer] if wants_postgres() else [])]


@pytest.fixture(scope="module", params=DATABASES, ids=lambda kind: kind.__name__)
async def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ArchivedSystem]:
    folder = tmp_path_factory.mktemp("archived")
    system = ArchivedSystem(folder, request.param(folder))
    try:
        await system.start()
        system.fake.play("words", Answer(deltas=WORDS))
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def test_the_answer_is_read_from_the_archive(system: ArchivedSystem) -> None:
    stream_id = await system.post("words", metadata={"order": "17"})
    before = await system.ended(stream_id)
    await system.forgotten(stream_id)
    assert await system.status(stream_id) == before
    assert before["text"] == TEXT
    assert (await system.get(f"/chat/{stream_id}", as_=BOB)).json()["error"]["code"] == "stream_not_found"
