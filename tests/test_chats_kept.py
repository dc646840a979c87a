"""Chats with an archive, sealed content and several owners: who may read them, and how long they go on."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from shared.broker.keys import state_key, tombstone_key
from tests.archive_databases import SqliteFile
from tests.archived_system import ALICE, BOB, ArchivedSystem
from tests.credentials import bearer, token
from tests.fakes.answer import Answer
from tests.responses import code_of
from tests.test_privacy import FIRST, everything

#: Part of each id and text of the chats here.
WORD = "canary"


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArchivedSystem]:
    folder: Path = tmp_path_factory.mktemp("kept")
    system = ArchivedSystem(folder, SqliteFile(folder), content_keys=FIRST)
    try:
        await system.start()
        system.fake.play("kept", Answer(deltas=["canary ", "answer"]))
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def post(
    system: ArchivedSystem, chat_id: str, text: str, *, as_: dict[str, str] = ALICE, model: str = "kept"
) -> httpx2.Response:
    body: dict[str, Any] = {
        "model": f"openai/{model}",
        "chat_id": chat_id,
        "messages": [{"role": "user", "content": text}],
    }
    return await system.http.post(f"{system.url}/chat", json=body, headers=as_)


async def say(system: ArchivedSystem, chat_id: str, text: str, *, is_forgotten: bool = True) -> dict[str, Any]:
    """Add a turn, and wait until only the archive has it."""
    answer = await post(system, chat_id, text)
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()
    await (system.forgotten if is_forgotten else system.ended)(accepted["stream_id"])
    return accepted


async def forget_chats(system: ArchivedSystem) -> None:
    """Let Redis forget all chats, as it does with their tombstones."""
    async with system.broker.client() as client:
        async for name in client.scan_iter("hr:chat*"):
            await client.delete(name)


def asked(system: ArchivedSystem) -> list[str]:
    return [message["content"] for message in system.fake.calls[-1].request["messages"]]


@pytest.mark.parametrize("is_known", [True, False], ids=["known to Redis", "forgotten by Redis"])
async def test_a_chat_goes_on_from_the_archive(system: ArchivedSystem, is_known: bool) -> None:
    chat_id = f"canary/{is_known}"
    ids = []
    for n in range(3):
        accepted = await say(system, chat_id, f"canary-{n}")
        assert accepted["history"] == ("added" if n else None)
        ids.append(accepted["stream_id"])
        if not is_known:
            await forget_chats(system)
    answer = "canary answer"
    assert asked(system) == ["canary-0", answer, "canary-1", answer, "canary-2"]
    path, turns, page = f"/chats/{chat_id.replace('/', '%2F')}", [], None
    while True:
        found = (await system.get(path, limit=2, **({"page": page} if page else {}))).json()
        assert found["title"] == "canary-0"
        turns += found["turns"]
        if (page := found["next_page"]) is None:
            break
    assert [turn["stream_id"] for turn in turns] == ids
    assert [turn["messages"][0]["content"] for turn in turns] == ["canary-0", "canary-1", "canary-2"]
    assert {turn["answer"]["text"] for turn in turns} == {answer}
    assert turns[0]["answer"] == (await system.get(f"/chat/{ids[0]}")).json()
    (listed,) = [chat for chat in (await system.get("/chats")).json()["chats"] if chat["chat_id"] == chat_id]
    assert (listed["title"], listed["streams"], listed["last_stream_id"]) == ("canary-0", 3, ids[-1])
    assert (await system.http.delete(system.url + path, headers=ALICE)).status_code == 204
    assert code_of(await system.get(path)) == (404, "chat_not_found")
    assert code_of(await system.get(f"/chat/{ids[0]}"))[0] in {404, 410}
    assert (await say(system, chat_id, "canary-new"))["history"] is None


async def test_a_turn_that_joined_after_its_creation_is_listed_once(system: ArchivedSystem) -> None:
    """And the turns between its creation and its joining still come first."""
    await forget_chats(system)
    ids = [(await say(system, "canary-late", "canary"))["stream_id"] for _ in range(3)]
    async with system.broker.client() as client:
        (members,) = {name async for name in client.scan_iter("hr:chat:*:streams")}
        await client.zrem(members, ids[1])
        for stream_id in (ids[0], ids[2]):
            await client.zincrby(members, 60_000, stream_id)
    first = (await system.get("/chats/canary-late", limit=1)).json()
    rest = (await system.get("/chats/canary-late", limit=2, page=first["next_page"])).json()
    assert [turn["stream_id"] for turn in (*first["turns"], *rest["turns"])] == [ids[1], ids[0], ids[2]]
    assert rest["next_page"] is None


async def test_an_archived_turn_whose_confirmation_was_lost_is_continued(system: ArchivedSystem) -> None:
    await forget_chats(system)
    ids = [(await say(system, "canary-lost", f"canary-{n}"))["stream_id"] for n in range(2)]
    async with system.broker.client() as client:
        (latest,) = {name async for name in client.scan_iter("hr:chat:*:latest")}
        await client.hset(latest, mapping={"pending": ids[1], "pending_until": 1})  # type: ignore[misc]
    await say(system, "canary-lost", "canary-2")
    assert asked(system)[::2] == ["canary-0", "canary-1", "canary-2"]


async def test_an_archived_turn_that_redis_has_as_deleted_is_deleted_with_its_chat(system: ArchivedSystem) -> None:
    await forget_chats(system)
    stream_id = (await say(system, "canary-undead", "canary"))["stream_id"]
    async with system.broker.client() as client:
        _, principal = (await client.get(tombstone_key(stream_id))).decode().split(" ", 1)
        await client.set(tombstone_key(stream_id), f"deleted {principal}", keepttl=True)
    url = f"{system.url}/chats/canary-undead"
    assert (await system.http.delete(url, headers=ALICE)).status_code == 204
    assert await system.database.rows("SELECT 1 AS n FROM streams WHERE stream_id = '" + stream_id + "'") == []
    assert code_of(await system.get("/chats/canary-undead")) == (404, "chat_not_found")


async def test_each_chat_is_listed_once(system: ArchivedSystem) -> None:
    """Its last stream is in Redis or in the archive; pages have one."""
    names = [f"canary-listed-{n}" for n in range(3)]
    for name in names[:2]:
        await say(system, name, "canary")
    await forget_chats(system)
    await say(system, names[1], "canary again")
    await say(system, names[2], "canary", is_forgotten=False)
    listed, page = [], None
    while True:
        found = (await system.get("/chats", limit=1, **({"page": page} if page else {}))).json()
        listed += [chat["chat_id"] for chat in found["chats"]]
        if (page := found["next_page"]) is None:
            break
    assert sorted(name for name in listed if name in names) == names
    assert len(set(listed)) == len(listed)


async def test_chats_belong_to_their_owner(system: ArchivedSystem) -> None:
    first = await say(system, "canary-own", "canary", is_forgotten=False)
    assert code_of(await system.get("/chats/canary-own", as_=BOB)) == (404, "chat_not_found")
    assert (await system.get("/chats", as_=BOB)).json() == {"chats": [], "next_page": None, "unreadable": 0}
    deleted = await system.http.delete(f"{system.url}/chats/canary-own", headers=BOB)
    assert code_of(deleted) == (404, "chat_not_found")
    accepted = await post(system, "canary-own", "canary of Bob", as_=BOB)
    assert accepted.json()["history"] is None
    # A ticket opens its stream only.
    ticket = first["stream_url"].partition("?")[2]
    anonymous: dict[str, str] = {"Authorization": ""}
    for path in ("/chats", "/chats/canary-own"):
        refused = await system.http.get(f"{system.url}{path}?{ticket}", headers=anonymous)
        assert code_of(refused) == (401, "unauthenticated")
    # The content goes to a model, so that adding to it needs the scope that reads.
    only_chats = bearer(token("alice", scope="chat"))
    refused = await post(system, "canary-own", "canary", as_=only_chats)
    assert code_of(refused) == (403, "forbidden")


async def test_a_chat_that_cannot_be_read_leaves_the_others(system: ArchivedSystem) -> None:
    """The key of one chat in Redis is missing, and so is that of one in the archive."""
    carol, gate = bearer(token("carol")), asyncio.Event()
    system.fake.play("kept-open", Answer(gate=gate))
    ids = {}
    for name, model in (("old", "kept"), ("old-lost", "kept"), ("new", "kept-open"), ("new-lost", "kept-open")):
        accepted = (await post(system, f"canary-{name}", "canary", model=model, as_=carol)).json()
        ids[name] = accepted["stream_id"]
        if model == "kept":
            await system.forgotten(ids[name])
    lost = b"\x01" + bytes(60)
    async with system.broker.client() as client:
        await client.hset(state_key(ids["new-lost"]), mapping={"chat": lost, "metadata": lost})  # type: ignore[misc]
    await system.database.execute(
        f"UPDATE streams SET fields = '{b64encode(lost).decode()}' WHERE stream_id = '{ids['old-lost']}'"
    )
    chats = (await system.get("/chats", as_=carol)).json()
    assert [chat["chat_id"] for chat in chats["chats"]] == ["canary-new", "canary-old"]
    assert (chats["unreadable"], chats["next_page"]) == (2, None)
    streams = (await system.get("/chat", as_=carol)).json()["streams"]
    readable = {each["stream_id"]: each["chat_id"] for each in streams}
    assert {name: readable[stream_id] for name, stream_id in ids.items()} == {
        "old": "canary-old",
        "old-lost": None,
        "new": "canary-new",
        "new-lost": None,
    }
    assert code_of(await system.get("/chats/canary-new-lost", as_=carol)) == (503, "content_unreadable")
    gate.set()


async def test_nothing_of_a_chat_is_readable_in_a_sealed_redis(system: ArchivedSystem) -> None:
    await say(system, "canary-sealed", "canary", is_forgotten=False)
    async with system.broker.client() as client:
        found = await everything(client)
    assert [key for key, content in found.items() if WORD.encode() in key.encode() + content] == []
    assert "canary" not in "".join(process.log.read_text() for process in (*system.gateways, *system.workers))
