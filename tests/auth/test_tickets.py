"""A ticket in a URL reads one stream, without other credentials, until the ticket ends."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.conftest import StartSystem
from tests.credentials import bearer, make_key, run_headrace, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.sse_client import Broken, open_sse, text_of
from tests.system import Gateway, System, ask


async def test_an_owner_can_create_a_link_for_others(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("shared", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    stream_id = (await start_stream(guarded, token(), "shared"))["stream_id"]
    url = f"{guarded.url}/chat/{stream_id}/tickets"
    assert code_of(await guarded.http.post(url, json={}, headers=bearer(token("bob")))) == (404, "stream_not_found")
    for wrong in ({"life_s": 0}, {"life_s": 1e9}, {"may_fly": True}):
        answer = await guarded.http.post(url, json=wrong, headers=bearer(token()))
        assert code_of(answer) == (422, "invalid_request")
    response = await guarded.http.post(url, json={"life_s": 60, "may_cancel": True}, headers=bearer(token()))
    link = response.json()
    ticket = link["stream_url"].partition("ticket=")[2]
    async with await open_sse("GET", guarded.gateways[1].url + link["stream_url"]) as connection:
        await connection.next("token")
        answer = await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel?ticket={ticket}")
        assert answer.status_code == 202
        assert (await connection.rest())[-1].data["finish_reason"] == "cancelled"
    gate.set()


async def test_a_ticket_reads_one_stream_and_nothing_else(guarded: System) -> None:
    started, other = (
        await start_stream(guarded, token(), prompt="with a ticket"),
        await start_stream(guarded, token()),
    )
    ticket = started["stream_url"].partition("ticket=")[2]
    async with await open_sse("GET", guarded.gateways[1].url + started["stream_url"]) as connection:
        assert text_of(await connection.rest()) == "with a ticket"
    status = await guarded.http.get(f"{guarded.url}{started['status_url']}?ticket={ticket}")
    assert status.json()["text"] == "with a ticket"
    elsewhere = await guarded.http.get(f"{guarded.url}/chat/{other['stream_id']}?ticket={ticket}")
    assert code_of(elsewhere) == (401, "invalid_ticket")
    cancel = await guarded.http.post(f"{guarded.url}/chat/{started['stream_id']}/cancel?ticket={ticket}")
    assert code_of(cancel) == (403, "forbidden")
    delete = await guarded.http.delete(f"{guarded.url}/chat/{started['stream_id']}?ticket={ticket}")
    assert code_of(delete) == (401, "unauthenticated")


async def test_a_link_ends_with_the_key_that_made_it(guarded: System) -> None:
    gate = asyncio.Event()
    guarded.fake.play("linked", Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    first, second = await make_key(guarded, "linked"), await make_key(guarded, "linked", "--scopes", "read")
    started = await start_stream(guarded, first, "linked")
    links = f"{guarded.url}/chat/{started['stream_id']}/tickets"
    response = await guarded.http.post(links, json={"life_s": 90 * 24 * 3600}, headers=bearer(second))
    link = guarded.gateways[1].url + response.json()["stream_url"]
    async with (
        await open_sse("GET", link) as by_link,
        await open_sse("GET", guarded.url + started["stream_url"]) as by_stream_url,
    ):
        await by_link.next("token")
        for key in (first, second):
            assert (
                await asyncio.to_thread(run_headrace, guarded, "keys", "revoke", key.split("-")[1])
            ).returncode == 0
        with pytest.raises(Broken):
            await by_link.next("done")
        assert code_of(await guarded.http.get(link)) == (401, "invalid_ticket")
        gate.set()
        assert text_of(await by_stream_url.rest()) == "ab"


async def test_a_link_ends_with_its_key_on_gateways_that_accept_no_keys(guarded: System) -> None:
    """A gateway on the same Redis that was switched from API keys to JWTs."""
    guarded.fake.play("migrated", Answer(deltas=["a"], end="hang"))
    key = await make_key(guarded, "migrated")
    stream_id = (await start_stream(guarded, key, "migrated"))["stream_id"]
    response = await guarded.http.post(f"{guarded.url}/chat/{stream_id}/tickets", json={}, headers=bearer(key))
    environment = guarded.gateways[0].environment | {"HEADRACE_AUTH": "jwt"}
    gateway = Gateway("gateway.jwt", environment, guarded.folder / "gateway.jwt.log")
    gateway.start()
    try:
        await guarded.eventually(lambda: _is_ready(guarded, gateway), timeout_s=100)
        link = gateway.url + response.json()["stream_url"]
        async with await open_sse("GET", link) as connection:
            await connection.next("token")
            done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke", key.split("-")[1])
            assert done.returncode == 0
            with pytest.raises(Broken):
                await connection.next("done")
        assert code_of(await guarded.http.get(link)) == (401, "invalid_ticket")
    finally:
        gateway.stop()


async def _is_ready(system: System, gateway: Gateway) -> bool:
    try:
        return (await system.http.get(f"{gateway.url}/readyz")).status_code == 200
    except httpx2.HTTPError:
        return False


async def test_a_connection_ends_with_its_ticket(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, ticket_life_s=5)
    system.fake.play("held", Answer(deltas=["a"], end="hang"))
    request: dict[str, Any] = {"json": ask("held"), "headers": {"Idempotency-Key": "held"}}
    stream_id = (await system.http.post(f"{system.url}/chat", **request)).json()["stream_id"]
    async with await system.read(stream_id) as connection:
        await connection.next("token")  # so that the next reader gets it at once
    started = (await system.http.post(f"{system.url}/chat", **request)).json()
    assert started["stream_id"] == stream_id
    async with await open_sse("GET", system.url + started["stream_url"]) as connection:
        await connection.next("token")
        with pytest.raises(Broken):
            await connection.next("done")
    assert code_of(await system.http.get(system.url + started["stream_url"])) == (401, "invalid_ticket")
    await system.http.post(f"{system.url}/chat/{started['stream_id']}/cancel")
