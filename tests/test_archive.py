"""Reads, lists, searches and deletions of streams that only the archive has."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from shared.broker.keys import principal_streams_key, tombstone_key
from tests.archive_databases import PostgresServer, SqliteFile
from tests.archived_system import ALICE, BOB, ArchivedSystem, wants_postgres
from tests.credentials import bearer, run_headrace, token
from tests.fakes.answer import Answer
from tests.openai_client import openai_client
from tests.sse_client import Frame, text_of
from tests.system import REPOSITORY

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
        system.database.remove()


async def test_the_answer_is_read_from_the_archive(system: ArchivedSystem) -> None:
    stream_id = await system.post("words", metadata={"order": "17"})
    before = await system.ended(stream_id)
    await system.forgotten(stream_id)
    assert await system.status(stream_id) == before
    assert before["text"] == TEXT
    assert (await system.get(f"/chat/{stream_id}", as_=BOB)).json()["error"]["code"] == "stream_not_found"


async def test_streams_without_cursors_have_only_their_answer(system: ArchivedSystem) -> None:
    stream_id = await system.archived("words")
    gone = await system.get(f"/chat/stream/{stream_id}")
    assert gone.status_code == 410
    assert gone.json()["error"]["code"] == "stream_archived"
    assert gone.json()["error"]["status_url"] == f"/chat/{stream_id}"
    response = await system.get(f"/v1/responses/resp_{stream_id}", stream=True)
    assert (response.status_code, response.json()["error"]["status_url"]) == (410, f"/v1/responses/resp_{stream_id}")


async def frames_of(system: ArchivedSystem, stream_id: str, cursor: str | None = None) -> list[Frame]:
    async with await system.events(stream_id, cursor, gateway=1) as connection:
        return await connection.rest()


async def test_every_row_of_the_cursor_table_holds_with_archived_events(system: ArchivedSystem) -> None:
    stream_id = await system.post("words", gateway=1)
    async with await system.events(stream_id, gateway=1) as live:
        await live.rest()
    async with await system.events(stream_id, gateway=1) as connection:
        expected = await connection.rest()
        raw = bytes(connection.raw)
    await system.forgotten(stream_id)
    for cursor in (None, "", "0", "0-0", "-1"):
        async with await system.events(stream_id, cursor, gateway=1) as connection:
            await connection.rest()
            assert bytes(connection.raw) == raw
    for number, frame in enumerate(expected[:-1]):
        assert [f.id for f in await frames_of(system, stream_id, frame.at)] == [f.id for f in expected[number + 1 :]]
    epoch, last = map(int, expected[-1].at.split("-"))
    for reset in (f"{epoch + 1}-2", f"{epoch - 1}-99", f"{epoch}-{last + 1}"):
        frames = await frames_of(system, stream_id, reset)
        assert frames[0].data == expected[0].data | {"reset": True}
        assert [f.id for f in frames] == [f.id for f in expected]
    path = f"/chat/stream/{stream_id}"
    for query, status in ((expected[-1].at, 204), ("junk", 400)):
        assert (await system.get(path, gateway=1, last_event_id=query)).status_code == status
    assert (await system.get(path, gateway=1, as_=BOB)).status_code == 404


async def test_a_ticket_reads_the_archive_until_its_owner_revokes_it(system: ArchivedSystem) -> None:
    stream_id = await system.archived("words", gateway=1)
    made = await system.http.post(f"{system.url}/chat/{stream_id}/tickets", json={})
    assert made.status_code == 201
    links = [made.json()["status_url"], made.json()["stream_url"]]
    for link in links:
        assert (await system.get(link, as_={"Authorization": ""})).status_code == 200
    revoked = await asyncio.to_thread(run_headrace, system, "keys", "revoke-links", "jwt:alice")
    assert revoked.returncode == 0, revoked.stderr

    async def is_refused(link: str) -> bool:
        return (await system.get(link, as_={"Authorization": ""})).status_code == 401

    for link in links:
        await system.eventually(partial(is_refused, link))


async def test_responses_continue_from_the_archive(system: ArchivedSystem) -> None:
    async with openai_client(system).with_options(api_key=token()) as client:
        first = await client.responses.create(model="openai/words", input="one", instructions="be brief")
        await system.forgotten(first.id.removeprefix("resp_"))
        again = await client.responses.retrieve(first.id)
        assert again.to_dict() == first.to_dict()
        items = await client.responses.input_items.list(first.id)
        assert [item.to_dict()["content"] for item in items.data] == [[{"type": "input_text", "text": "one"}]]
        second = await client.responses.create(model="openai/words", input="two", previous_response_id=first.id)
        assert second.output_text == TEXT
        assert [message["content"] for message in system.fake.calls[-1].messages] == ["one", TEXT, "two"]
        await client.responses.delete(first.id)
        with pytest.raises(openai.APIStatusError, match="410"):
            await client.responses.retrieve(first.id)


async def test_a_response_is_streamed_from_archived_events(system: ArchivedSystem) -> None:
    async with openai_client(system, gateway=1).with_options(api_key=token()) as client:
        started = await client.responses.create(model="openai/words", input="one", background=True)
        live = [event.to_dict() async for event in await client.responses.retrieve(started.id, stream=True)]
        await system.forgotten(started.id.removeprefix("resp_"))
        for after in (-1, 3, len(live) - 2):
            again = await client.responses.retrieve(started.id, stream=True, starting_after=after)
            assert [event.to_dict() async for event in again] == live[after + 1 :]


async def all_listed(system: ArchivedSystem, headers: dict[str, str], limit: int) -> list[str]:
    found, page = list[str](), None
    while True:
        query: dict[str, Any] = {"limit": limit} | ({"page": page} if page else {})
        body = (await system.get("/chat", as_=headers, **query)).json()
        assert "incomplete" not in body
        found += [stream["stream_id"] for stream in body["streams"]]
        page = body["next_page"]
        if page is None:
            return found


async def test_the_list_has_each_stream_once_in_one_order(system: ArchivedSystem) -> None:
    carol = bearer(token("carol"))
    posted = [await system.post_as(carol, "words") for _ in range(5)]
    await system.forgotten(posted[-1])
    posted += [await system.post_as(carol, "words") for _ in range(4)]
    for limit in (1, 2, 3, 4, 100):
        assert await all_listed(system, carol, limit) == posted[::-1]
    async with system.broker.client() as client:  # as after a long time
        await client.delete(principal_streams_key("jwt:carol"))
    for stream_id in posted:  # they end in any order
        await system.forgotten(stream_id)
    for limit in (2, 100):
        assert await all_listed(system, carol, limit) == posted[::-1]
    assert await all_listed(system, BOB, 10) == []


async def found_by(system: ArchivedSystem, headers: dict[str, str], **query: Any) -> list[str]:
    response = await system.get("/chat", as_=headers, **query)
    assert response.status_code == 200, response.text
    return [stream["stream_id"] for stream in response.json()["streams"]]


async def test_the_archive_is_searched(system: ArchivedSystem) -> None:
    dave = bearer(token("dave"))
    system.fake.play("percent", Answer(deltas=["Grüße: 100% of a_b, ", "C:\\temp"]))
    system.fake.play("plain", Answer(deltas=["100 and axb ", "and more"]))
    first, second = [await system.post_as(dave, model) for model in ("percent", "plain")]
    for stream_id in (first, second):
        await system.forgotten(stream_id)
    for text, expected in {
        "100": [second, first],
        "100%": [first],
        "A_B": [first],
        "axb": [second],
        "GRÜSSE": [],
        "GRÜẞE".lower(): [first],
        "grÜße": [first],
        ", c:\\T": [first],
        "of a_b, c": [first],
        "nowhere": [],
        "%": [first],
    }.items():
        assert await found_by(system, dave, q=text) == expected, text
    assert await found_by(system, BOB, q="100") == []
    assert await found_by(system, dave, model="openai/plain") == [second]
    assert await found_by(system, dave, model="plain", q="100") == [second]
    assert await found_by(system, dave, model="other") == []
    assert await found_by(system, dave, chat_id="none") == []
    [entry] = (await system.get("/chat", as_=dave, model="percent")).json()["streams"]
    created = entry["created_at"].replace("+00:00", "Z")
    assert await found_by(system, dave, **{"from": created}) == [second, first]
    assert await found_by(system, dave, to=created) == []
    window: dict[str, Any] = {"from": "2020-01-01", "to": "2020-02-01"}
    assert await found_by(system, dave, **window) == []
    page = (await system.get("/chat", as_=dave, q="100", limit=1)).json()
    assert await found_by(system, dave, q="100", page=page["next_page"]) == [first]
    assert (await system.get("/chat?from=soon", as_=dave)).status_code == 422
    assert (await system.get("/chat?page=1-%00", as_=dave)).status_code == 422
    extremes = {"from": "0001-01-01T00:00:00+14:00", "to": "9999-12-31T23:59:59.9999Z"}
    assert await found_by(system, dave, q="100", **extremes) == await found_by(system, dave, q="100")
    for name in ("q", "model", "chat_id"):
        assert await found_by(system, dave, **{name: "\0"}) == []


async def test_a_deletion_is_for_good(system: ArchivedSystem) -> None:
    archived = await system.archived("words")
    assert (await delete(system, archived, BOB)).status_code == 404
    assert (await delete(system, archived, ALICE)).status_code == 204
    assert (await system.get(f"/chat/{archived}")).status_code == 410
    assert (await delete(system, archived, ALICE)).status_code == 410
    ended = await system.post("words")
    await system.ended(ended)
    assert (await delete(system, ended, ALICE)).status_code == 204
    system.fake.play("slow", Answer(deltas=WORDS, delay_s=0.1))
    running = await system.post("slow")
    assert (await delete(system, running, ALICE)).status_code == 204
    missed = await system.archived("words")
    async with system.broker.client() as client:  # deleted while the gateway that did it knew of no archive
        await client.set(tombstone_key(missed), "deleted jwt:alice", ex=600)
    assert (await delete(system, missed, ALICE)).status_code == 410
    later = await system.archived("words")  # so that what was due before it has been written
    rows = await system.database.rows("SELECT stream_id FROM streams")
    found = {row["stream_id"] for row in rows}
    assert later in found
    assert not found & {archived, ended, running, missed}


async def test_an_archive_that_is_away_touches_no_live_stream(system: ArchivedSystem) -> None:
    """The third gateway's database has no schema."""
    erin = bearer(token("erin"))
    archived = await system.archived("words", headers=erin)
    gate = asyncio.Event()
    system.fake.play("live", Answer(deltas=WORDS, gate=gate, gate_after=5))
    live = await system.post_as(erin, "live", gateway=2)
    for path in (f"/chat/{archived}", f"/chat/stream/{archived}", f"/v1/responses/resp_{archived}"):
        refused = await system.get(path, gateway=2, as_=erin)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "archive_unavailable"), path
        assert refused.headers["Retry-After"]
    assert (await system.get("/chat", gateway=2, as_=erin, q="w1")).status_code == 503
    listed = (await system.get("/chat", gateway=2, as_=erin)).json()
    assert ([each["stream_id"] for each in listed["streams"]], listed["incomplete"]) == ([live], True)
    refused = await system.http.delete(f"{system.gateways[2].url}/chat/{live}", headers=erin)
    assert refused.status_code == 503
    async with await system.events(live, gateway=2, headers=erin) as connection:
        gate.set()
        assert text_of(await connection.rest()) == TEXT
    assert (await system.get("/readyz", gateway=2)).status_code == 200
    assert "start a worker of this version" in system.gateways[2].log.read_text()
    assert (await system.get(f"/chat/{archived}", as_=erin)).json()["text"] == TEXT


async def test_the_examples_copy_answers_into_a_table_of_its_own(system: ArchivedSystem, tmp_path: Path) -> None:
    """The program in examples/, and the blocks of docs/integration.md."""
    stream_id = await system.archived("words", metadata={"order": "4711"})
    if isinstance(system.database, PostgresServer):
        await system.database.execute(block_with("CREATE VIEW"))
        rows = await system.database.rows("SELECT * FROM answers WHERE order_id = '4711'")
        assert [(row["stream_id"], row["text"]) for row in rows] == [(stream_id, TEXT)]
        return
    file = system.database.url.removeprefix("sqlite:///")
    (tmp_path / "headrace.db").symlink_to(file)
    example = str(REPOSITORY / "examples/python/read_archive.py")
    for program in ([example, file], ["-c", block_with("ATTACH")], [example]):
        command = [sys.executable, *program]
        done = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True)
        assert f"{stream_id} 4711 {TEXT}" in done.stdout, done.stderr
    with closing(sqlite3.connect(tmp_path / "shop.db")) as own:
        assert own.execute("SELECT count(*) FROM answers WHERE order_id = '4711'").fetchall() == [(1,)]


def block_with(text: str) -> str:
    """Return the block of docs/integration.md that has a text."""
    blocks = re.findall(r"```(?:python|sql)\n(.*?)```", (REPOSITORY / "docs/integration.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if text in block]
    return str(block)


async def delete(system: ArchivedSystem, stream_id: str, headers: dict[str, str]) -> httpx2.Response:
    return await system.http.delete(f"{system.url}/chat/{stream_id}", headers=headers)
