"""Administrative acts are recorded: who, what, when, from where, and the outcome. An act without a record does not
happen."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from shared.broker.keys import AUDIT
from tests.cli import Ended, finish, headrace
from tests.credentials import bearer, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.system import System

ADMIN = bearer(token("watcher", scope="admin"))


async def cli(system: System, *arguments: str) -> Ended:
    return await finish(await headrace(*arguments, HEADRACE_REDIS_URL=system.broker.url))


async def acts(system: System, *options: str) -> list[dict[str, Any]]:
    ended = await cli(system, "audit", "--json", *options)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_acts_of_the_command_line_and_of_operators_are_recorded(guarded: System) -> None:
    made = await cli(
        guarded, "keys", "create", "audited", "--scopes", "chat,read", "--webhook-url", "https://h.test/s3"
    )
    key = made.out.strip()
    key_id = key.split("-")[1]
    assert (await cli(guarded, "keys", "revoke", key_id)).code == 0
    again = await cli(guarded, "keys", "revoke", key_id)
    assert again.code == 1
    assert "not found" in again.err
    assert (await cli(guarded, "keys", "revoke-links", "key:audited")).code == 0
    guarded.fake.play("audited", Answer(deltas=["canary"] * 3, end="hang"))
    stream_id = (await start_stream(guarded, token("scoped"), "audited"))["stream_id"]
    headers = ADMIN | {"X-Request-Id": "audited-1", "X-Forwarded-For": "203.0.113.7"}
    answer = await guarded.http.post(f"{guarded.url}/ops/streams/{stream_id}/cancel", headers=headers)
    assert answer.status_code == 202
    cancel, links, missing, revoke, create = (await acts(guarded))[:5]
    assert [each["what"] for each in (create, revoke, missing, links, cancel)] == [
        *("key.create", "key.revoke", "key.revoke", "links.revoke", "stream.cancel"),
    ]
    assert [each["target"] for each in (create, missing, links, cancel)] == [key_id, key_id, "key:audited", stream_id]
    assert [each["outcome"] for each in (create, revoke, missing, cancel)] == ["done", "done", "refused", "done"]
    assert "not found" in missing["reason"]
    assert create["details"] == {"name": "audited", "scopes": "chat,read", "webhook": "h.test"}
    assert revoke["details"] == {"name": "audited"}
    assert create["who"].startswith("user:")
    assert (cancel["who"], cancel["origin"]) == ("jwt:watcher", "127.0.0.1")
    assert cancel["details"] == {"request_id": "audited-1", "forwarded_for": "203.0.113.7"}
    assert key.split("-", 2)[2] not in (await cli(guarded, "audit", "--json")).out
    table = (await cli(guarded, "audit", "--limit", "1", "--since", "1h")).out
    assert table.count("\n") == 1
    assert stream_id in table
    assert await acts(guarded, "--since", "2126-01-01") == []
    lines = [json.loads(line) for gateway in guarded.gateways for line in gateway.log.read_text().splitlines()]
    (line,) = [each for each in lines if each["logger"] == "audit" and each["target"] == stream_id]
    assert (line["what"], line["who"], line["outcome"]) == ("stream.cancel", "jwt:watcher", "done")


async def test_operators_read_the_log_in_pages(guarded: System) -> None:
    url = f"{guarded.url}/ops/audit"
    for _ in range(3):
        await cli(guarded, "keys", "revoke-links", "key:paged")
    whole = (await guarded.http.get(url, params={"limit": 1000}, headers=ADMIN)).json()["acts"]
    paged, before = list[dict[str, Any]](), None
    while before or not paged:
        page = await guarded.http.get(
            url, params={"limit": 2, **({"before": before} if before else {})}, headers=ADMIN
        )
        paged += page.json()["acts"]
        before = page.json()["next"]
    assert paged == whole
    later = await guarded.http.get(url, params={"since": whole[2]["at"]}, headers=ADMIN)
    assert later.json()["acts"] == whole[:3]
    for wrong in ({"before": "x"}, {"limit": 0}, {"since": "yesterday"}):
        assert (await guarded.http.get(url, params=wrong, headers=ADMIN)).status_code == 422


async def test_follow_prints_each_act_once(guarded: System) -> None:
    since = datetime.now(UTC).isoformat()  # the command takes some time to start
    process = await headrace("audit", "--json", "--follow", "--since", since, HEADRACE_REDIS_URL=guarded.broker.url)
    assert process.stdout is not None
    try:
        for _ in range(2):
            await cli(guarded, "keys", "revoke-links", "key:followed")
        lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 30)) for _ in range(2)]
        assert len({line["id"] for line in lines}) == 2
        assert {line["target"] for line in lines} == {"key:followed"}
    finally:
        process.terminate()
        await process.wait()


async def test_an_act_that_cannot_be_recorded_does_not_happen(guarded: System) -> None:
    """The log's key has a value of another type: Redis refuses to append."""
    guarded.fake.play("unrecorded", Answer(deltas=["on "] * 3, end="hang"))
    stream_id = (await start_stream(guarded, token("scoped"), "unrecorded"))["stream_id"]
    async with guarded.broker.client() as client:
        kept = await client.dump(AUDIT)
        await client.set(AUDIT, "not a stream", ex=600)
        try:
            made = await cli(guarded, "keys", "create", "unrecorded")
            cancel = await guarded.http.post(f"{guarded.url}/ops/streams/{stream_id}/cancel", headers=ADMIN)
        finally:
            await client.delete(AUDIT)
            if kept is not None:
                await client.restore(AUDIT, 600_000, kept)
    assert (made.code, made.out) == (1, "")
    assert "unrecorded" not in (await cli(guarded, "keys", "list")).out
    assert code_of(cancel)[0] == 503
    state = await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(token("scoped")))
    assert state.json()["status"] in {"queued", "running"}
    done = await guarded.http.post(f"{guarded.url}/ops/streams/{stream_id}/cancel", headers=ADMIN)
    assert done.status_code == 202
