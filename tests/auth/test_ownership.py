"""A stream belongs to the principal that created it: others get the same 404 as for a stream that does not exist."""

import asyncio
from typing import Any

from tests.credentials import bearer, make_key, start_stream, token
from tests.responses import code_of
from tests.system import System, ask


async def test_a_stream_is_visible_to_its_owner_alone(guarded: System) -> None:
    alice, bob = token("alice"), token("bob")
    stream_id = (await start_stream(guarded, alice, prompt="for alice"))["stream_id"]
    base = guarded.gateways[1].url
    nowhere = f"{base}/chat/{'00' * 17}"
    while (await guarded.http.get(nowhere, headers=bearer(bob))).status_code == 503:
        await asyncio.sleep(0.1)  # a Redis that has just started may have lost it
    for method, path in (
        ("GET", f"/chat/{stream_id}"),
        ("GET", f"/chat/stream/{stream_id}"),
        ("POST", f"/chat/{stream_id}/cancel"),
        ("DELETE", f"/chat/{stream_id}"),
    ):
        theirs = await guarded.http.request(method, base + path, headers=bearer(bob))
        nobodys = await guarded.http.request(method, base + path.replace(stream_id, "00" * 17), headers=bearer(bob))
        assert code_of(theirs) == (404, "stream_not_found")
        assert theirs.json() == nobodys.json()  # not even its existence is visible
    status = (await guarded.http.get(f"{base}/chat/{stream_id}", headers=bearer(alice))).json()
    assert status["text"] == "for alice"


async def test_a_key_and_a_token_of_one_name_are_different_owners(guarded: System) -> None:
    key = await make_key(guarded, "alice")
    stream_id = (await start_stream(guarded, key))["stream_id"]
    answer = await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(token("alice")))
    assert code_of(answer) == (404, "stream_not_found")


async def test_an_idempotency_key_belongs_to_its_principal(guarded: System) -> None:
    headers = {"Idempotency-Key": "the-same"}
    ids = []
    for user in ("alice", "bob", "alice"):
        answer = await guarded.http.post(
            f"{guarded.url}/chat", json=ask("echo", user[0]), headers=headers | bearer(token(user))
        )
        ids.append(answer.json()["stream_id"])
    assert ids[0] == ids[2] != ids[1]


async def listed(system: System, user: str, **query: Any) -> dict[str, Any]:
    answer = await system.http.get(f"{system.url}/chat", params=query, headers=bearer(token(user)))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_principal_lists_its_own_streams_newest_first(guarded: System) -> None:
    assert await listed(guarded, "carol") == {"streams": [], "next_page": None}
    made = [(await start_stream(guarded, token("carol"), metadata={"n": str(n)}))["stream_id"] for n in range(7)]
    await start_stream(guarded, token("dave"))
    pages, page = [], None
    while True:
        body = await listed(guarded, "carol", limit=3, **({"page": page} if page else {}))
        pages.append([(s["stream_id"], s["metadata"]["n"]) for s in body["streams"]])
        if (page := body["next_page"]) is None:
            break
    whole = [(stream_id, str(n)) for n, stream_id in enumerate(made)][::-1]
    assert [entry for part in pages for entry in part] == whole
    assert [len(part) for part in pages[:2]] == [3, 3]
    await guarded.http.delete(f"{guarded.url}/chat/{made[3]}", headers=bearer(token("carol")))
    left = await listed(guarded, "carol")
    assert [s["stream_id"] for s in left["streams"]] == [s for s in made[::-1] if s != made[3]]
    assert "text" not in left["streams"][0]
    bad = await guarded.http.get(f"{guarded.url}/chat?page=rubbish", headers=bearer(token("carol")))
    assert code_of(bad) == (422, "invalid_request")


async def test_chats_of_the_same_id_belong_to_their_principals(guarded: System) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "mine"}]}
    body = {"id": "chat-1", "model": "openai/echo", "messages": [message]}
    url = f"{guarded.url}/api/chat"
    alice, bob = ({"Authorization": f"Bearer {token(name)}"} for name in ("alice", "bob"))
    assert (await guarded.http.post(url, json=body)).status_code == 401
    assert "mine" in (await guarded.http.post(url, json=body, headers=alice)).text
    for path in ("stream", "stream?ended=true"):
        assert (await guarded.http.get(f"{url}/chat-1/{path}", headers=bob)).status_code == 204
    assert "mine" in (await guarded.http.get(f"{url}/chat-1/stream?ended=true", headers=alice)).text
    assert (await guarded.http.post(f"{url}/chat-1/stop", headers=bob)).json()["stream_id"] is None


async def test_items_of_a_response_may_be_referenced_by_its_owner_alone(guarded: System) -> None:
    url = f"{guarded.url}/v1/responses"
    alice, bob = bearer(token("alice")), bearer(token("bob"))
    first = await guarded.http.post(url, json={"model": "openai/echo", "input": "mine"}, headers=alice)
    named = [{"type": "item_reference", "id": item["id"]} for item in first.json()["output"]]
    body = {"model": "openai/echo", "input": [*named, {"role": "user", "content": "and?"}]}
    assert (await guarded.http.post(url, json=body, headers=alice)).status_code == 200
    theirs = await guarded.http.post(url, json=body, headers=bob)
    assert theirs.status_code == 400
    assert "input.0.id: no such item" in theirs.json()["error"]["message"]
