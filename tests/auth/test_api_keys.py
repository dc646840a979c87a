"""An API key grants its scopes until it expires or is revoked; only its hash is stored."""

import asyncio
from typing import Any

import pytest

from tests.credentials import bearer, make_key, run_headrace, start_stream
from tests.fakes import Answer
from tests.responses import code_of
from tests.sse_client import Broken, open_sse, text_of
from tests.system import System, ask


async def test_keys_are_listed_without_their_secrets_and_stored_as_hashes(guarded: System) -> None:
    key = await make_key(guarded, "listed", "--scopes", "read,chat", "--expires-in", "90d")
    listed = (await asyncio.to_thread(run_headrace, guarded, "keys", "list")).stdout
    (line,) = [line for line in listed.splitlines() if " listed " in line]
    assert line.startswith(key.split("-")[1])
    assert "chat,read" in line
    secret = key.split("-", 2)[2]
    assert secret not in listed
    async with guarded.broker.client() as client:
        stored = b"".join([await client.get(name) or b"" async for name in client.scan_iter(match="hr:apikey:*")])
    assert secret.encode() not in stored


async def test_a_revoked_key_is_refused_and_its_connections_are_cut(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("revoked", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    key = await make_key(guarded, "revoked")
    rotated = await asyncio.to_thread(run_headrace, guarded, "keys", "create", "revoked")
    other = rotated.stdout.strip()
    assert rotated.stderr.startswith(f"revoked keeps key {key.split('-')[1]}; headrace keys revoke ends one\n")
    stream_id = (await start_stream(guarded, key, "revoked"))["stream_id"]
    url = f"{guarded.gateways[1].url}/chat/stream/{stream_id}"
    async with await open_sse("GET", url, headers=bearer(key)) as connection:
        await connection.next("token")
        assert (await asyncio.to_thread(run_headrace, guarded, "keys", "revoke", key.split("-")[1])).returncode == 0
        with pytest.raises(Broken):  # a clean end would look like the whole answer
            await connection.next("done")
    assert code_of(await guarded.http.get(url, headers=bearer(key))) == (401, "unauthenticated")
    gate.set()
    # Rotation: another key of the same name continues.
    async with await open_sse("GET", url, headers=bearer(other)) as connection:
        assert text_of(await connection.rest()) == "ab"


async def test_a_request_that_waits_for_an_answer_ends_with_its_key(guarded: System) -> None:
    """The dialects that send the status with the first output, or with the whole answer."""
    guarded.fake.play("awaited", Answer(deltas=[], end="hang"))
    key = await make_key(guarded, "awaited")
    body: dict[str, Any] = {"model": "openai/awaited", "max_tokens": 5}
    messages = [{"role": "user", "content": "hi"}]
    requests = [
        ("/v1/chat/completions", body | {"messages": messages}),
        ("/v1/chat/completions", body | {"messages": messages, "stream": True}),
        ("/v1/messages", body | {"messages": messages}),
        ("/v1/responses", {"model": "openai/awaited", "input": "hi"}),
    ]
    waiting = [
        asyncio.create_task(guarded.http.post(guarded.url + path, json=json, headers=bearer(key)))
        for path, json in requests
    ]
    await guarded.eventually(lambda: _has_streams(guarded, key, len(requests)))
    assert (await asyncio.to_thread(run_headrace, guarded, "keys", "revoke", key.split("-")[1])).returncode == 0
    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [401] * len(requests)


async def _has_streams(system: System, key: str, count: int) -> bool:
    listed = await system.http.get(f"{system.url}/chat", headers=bearer(key))
    return len(listed.json()["streams"]) == count


async def test_a_key_expires(guarded: System) -> None:
    key = await make_key(guarded, "short", "--expires-in", "2s")

    async def refused() -> bool:
        return (await guarded.http.get(f"{guarded.url}/v1/models", headers=bearer(key))).status_code == 401

    await guarded.eventually(refused)


async def test_a_key_does_only_what_its_scopes_allow(guarded: System) -> None:
    reads, chats = await make_key(guarded, "scoped", "--scopes", "read"), await make_key(guarded, "scoped")
    stream_id = (await start_stream(guarded, chats))["stream_id"]
    refused = [
        await guarded.http.post(f"{guarded.url}/chat", json=ask("echo"), headers=bearer(reads)),
        await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel", headers=bearer(reads)),
        await guarded.http.delete(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads)),
    ]
    assert [code_of(answer) for answer in refused] == [(403, "forbidden")] * 3
    assert "scope chat" in refused[0].json()["error"]["message"]
    assert (await guarded.http.get(f"{guarded.url}/chat/{stream_id}", headers=bearer(reads))).status_code == 200


async def test_credentials_that_cannot_be_a_key_are_not_looked_up(guarded: System) -> None:
    """Their sender needs no credentials; a gateway remembers for a while each id that it has looked up."""
    key = await make_key(guarded, "own-form")
    key_id, secret = key.split("-", 2)[1:]
    ids = (key_id.upper(), key_id[:-1], f"{key_id}0", f"{key_id}\u0661", "", "*", "f" * 31_000)
    secrets = (secret[:-1], f"{secret}A", f"{secret[:-1]}+", "x" * 31_000, "")
    forms = [f"hr-{wrong}-{secret}" for wrong in ids] + [f"hr-{key_id}-{wrong}" for wrong in secrets]
    async with guarded.broker.client() as client, client.monitor() as monitor:
        for form in (*forms, "hr-", f"hr-{key_id}", f"hr-{key}", f"{key}-"):
            answer = await guarded.http.get(f"{guarded.url}/v1/models", headers=[(b"X-Api-Key", form.encode())])
            assert answer.status_code == 401
        assert (await guarded.http.get(f"{guarded.url}/v1/models", headers=bearer(key))).status_code == 200
        command = ""
        while f"hr:apikey:{key_id}" not in command:
            command = (await monitor.next_command())["command"]
            assert "hr:apikey:" not in command or command.endswith(f"hr:apikey:{key_id}"), command[:100]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["create", "a b"], "NAME"),
        (["create", "a", "--scopes", "chat,fly"], "fly"),
        (["create", "a", "--scopes", ""], "--scopes"),
        (["create", "a", "--expires-in", "soon"], "--expires-in"),
        (["revoke", "0" * 12], "not found"),
        (["revoke", f"hr-{'0' * 12}-{'x' * 43}"], "use the id"),
    ],
)
async def test_the_command_line_names_the_problem(guarded: System, arguments: list[str], names: str) -> None:
    done = await asyncio.to_thread(run_headrace, guarded, "keys", *arguments)
    assert done.returncode != 0
    assert names in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_key_may_be_in_either_header_or_in_both(guarded: System) -> None:
    """Claude Code sends it in both if a program provides it."""
    key = await make_key(guarded, "either")
    body = {"model": "openai/echo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for headers in (bearer(key), {"x-api-key": key}, {**bearer(key), "x-api-key": key}):
        answer = await guarded.http.post(f"{guarded.url}/v1/messages", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
