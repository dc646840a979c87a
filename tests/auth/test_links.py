"""Links end with the credentials that made them, at their expiry too, and all links of a principal at once."""

import asyncio
import time
from datetime import datetime

import pytest

from shared.broker.api_keys import revoke_api_key
from shared.broker.client import connect
from shared.broker.keys import REVOKED_LINKS
from shared.broker.link_revocations import revoke_links
from shared.rate_limits import account_of
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, bearer, make_key, run_headrace, start_stream, token
from tests.fakes import Answer
from tests.responses import code_of
from tests.sse_client import Broken, open_sse, text_of
from tests.system import Gateway, System, ask

DAYS_90 = 90 * 24 * 3600


async def make_link(system: System, stream_id: str, credentials: str, **options: object) -> dict[str, str]:
    """Call `POST /chat/{id}/tickets` and return the response."""
    url = f"{system.url}/chat/{stream_id}/tickets"
    answer = await system.http.post(url, json=options, headers=bearer(credentials))
    assert answer.status_code == 201, answer.text
    link: dict[str, str] = answer.json()
    return link


def expiry_of(link: dict[str, str]) -> float:
    return datetime.fromisoformat(link["expires_at"]).timestamp()


async def test_a_link_ends_when_the_credentials_that_made_it_expire(guarded: System) -> None:
    guarded.fake.play("outlived", Answer(deltas=["a"], end="hang"))
    key = await make_key(guarded, "outlived")
    stream_id = (await start_stream(guarded, key, "outlived"))["stream_id"]
    short = await make_key(guarded, "outlived", "--expires-in", "10s")
    link = await make_link(guarded, stream_id, short, life_s=DAYS_90, may_cancel=True)
    assert expiry_of(link) <= time.time() + 10
    async with await open_sse("GET", guarded.gateways[1].url + link["stream_url"]) as connection:
        await connection.next("token")
        with pytest.raises(Broken):
            await connection.next("done")
    assert code_of(await guarded.http.get(guarded.url + link["status_url"])) == (401, "invalid_ticket")
    await guarded.http.post(f"{guarded.url}/chat/{stream_id}/cancel", headers=bearer(key))


async def test_a_link_ends_when_the_token_that_made_it_expires(guarded: System) -> None:
    stream_id = (await start_stream(guarded, token()))["stream_id"]
    expires = int(time.time()) + 300
    for life in ({}, {"life_s": DAYS_90}):
        assert expiry_of(await make_link(guarded, stream_id, token(exp=expires), **life)) == expires
    assert expiry_of(await make_link(guarded, stream_id, token(exp=expires), life_s=60)) < expires


async def test_a_token_in_its_leeway_makes_no_link(start_system: StartSystem) -> None:
    system = await start_system(
        gateways=1, workers=1, auth="jwt", jwt_leeway_s=300, **JWT_SETTINGS, credentials=bearer(token())
    )
    stream_id = (await start_stream(system, token()))["stream_id"]
    late = token(exp=time.time() - 5)
    assert (await system.http.get(f"{system.url}/chat/{stream_id}", headers=bearer(late))).status_code == 200
    url = f"{system.url}/chat/{stream_id}/tickets"
    assert code_of(await system.http.post(url, json={}, headers=bearer(late))) == (401, "unauthenticated")


@pytest.mark.parametrize("kind", ["key", "jwt"])
async def test_all_links_of_a_principal_are_ended_at_once(guarded: System, kind: str) -> None:
    """Links and the stream_url, on all gateways, also those in use; not the credentials, nor others' links."""
    gate = asyncio.Event()
    model = f"all-links-{kind}"
    guarded.fake.play(model, Answer(deltas=["a", "b"], gate=gate, gate_after=1))
    name = f"{kind}.leaked@example"
    user = await make_key(guarded, name) if kind == "key" else token(name)
    other = await start_stream(guarded, token("other"), prompt="another's")
    started = await start_stream(guarded, user, model)
    link = await make_link(guarded, started["stream_id"], user, may_cancel=True)
    url = f"{guarded.gateways[1].url}/chat/stream/{started['stream_id']}"
    async with (
        await open_sse("GET", guarded.gateways[1].url + link["stream_url"]) as by_link,
        await open_sse("GET", guarded.url + started["stream_url"]) as by_stream_url,
        await open_sse("GET", url, headers=bearer(user)) as by_credentials,
    ):
        for connection in (by_link, by_stream_url, by_credentials):
            await connection.next("token")
        done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", f"{kind}:{name}")
        assert done.returncode == 0, done.stderr
        for connection in (by_link, by_stream_url):
            with pytest.raises(Broken):
                await connection.next("done")
        for method, path in (("GET", link["status_url"]), ("GET", started["stream_url"])):
            answer = await guarded.http.request(method, guarded.url + path)
            assert code_of(answer) == (401, "invalid_ticket")
        cancel = link["status_url"].replace("?", "/cancel?")
        assert code_of(await guarded.http.post(guarded.url + cancel)) == (401, "invalid_ticket")
        fresh = await make_link(guarded, started["stream_id"], user)
        assert (await guarded.http.get(guarded.url + fresh["status_url"])).status_code == 200
        gate.set()
        assert text_of(await by_credentials.rest()) == "b"
    assert (await guarded.http.get(guarded.url + other["stream_url"])).status_code == 200
    assert await guarded.keys_without_expiry() == []


async def test_links_are_ended_after_a_revocation_with_a_clock_that_was_ahead(guarded: System) -> None:
    """The first revocation is written as Redis would with a clock that is a year ahead. It hides no later one, and
    its principal can make links again."""

    async def revoke(name: str) -> None:
        done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", f"jwt:{name}")
        assert done.returncode == 0, done.stderr

    async def statuses(link: dict[str, str]) -> set[int]:
        """Return the statuses that the gateways respond with."""
        urls = [gateway.url + link["status_url"] for gateway in guarded.gateways]
        return {(await guarded.http.get(url)).status_code for url in urls}

    async def is_refused(link: dict[str, str]) -> bool:
        return await statuses(link) == {401}

    early, late = token("early"), token("late")
    of_early, of_late = [(await start_stream(guarded, user))["stream_id"] for user in (early, late)]
    ended, before = await make_link(guarded, of_early, early), await make_link(guarded, of_late, late)
    async with guarded.broker.client() as client:
        ahead = round(time.time() + 365 * 86_400) * 1000
        await client.zadd(REVOKED_LINKS, {account_of("jwt:early"): ahead})
    await guarded.eventually(lambda: is_refused(ended))

    after = await make_link(guarded, of_late, late)
    assert await statuses(await make_link(guarded, of_early, early)) == {200}
    assert await statuses(after) == await statuses(before) == {200}
    await revoke("late")
    for link in (before, after):
        await guarded.eventually(lambda link=link: is_refused(link))  # type: ignore[misc]
    again = await make_link(guarded, of_early, early)
    await revoke("early")
    await guarded.eventually(lambda: is_refused(again))
    assert await guarded.keys_without_expiry() == []


async def test_a_link_that_is_made_after_a_revocation_is_valid_at_once(guarded: System) -> None:
    user = token("renews")
    stream_id = (await start_stream(guarded, user))["stream_id"]
    await make_link(guarded, stream_id, user)
    done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", "jwt:renews")
    assert done.returncode == 0, done.stderr
    link = await make_link(guarded, stream_id, user)
    for gateway in guarded.gateways:
        assert (await guarded.http.get(gateway.url + link["status_url"])).status_code == 200


async def test_a_revoked_key_makes_no_link_that_outlives_the_revocation_of_links(guarded: System) -> None:
    """The key's user goes on until all gateways refuse the key. Its links are revoked right after it."""
    key = await make_key(guarded, "leaky")

    made: dict[str, list[str]] = {gateway.url: [] for gateway in guarded.gateways}

    async def make_links(gateway: Gateway) -> None:
        """Start streams at one gateway until it refuses the key."""
        while True:
            answer = await guarded.http.post(f"{gateway.url}/chat", json=ask("echo"), headers=bearer(key))
            if answer.status_code == 401:
                return
            made[gateway.url].append(answer.json()["stream_url"])
            await asyncio.sleep(0.05)

    async def have_all_made_one() -> bool:
        return all(made.values())

    users = [asyncio.create_task(make_links(gateway)) for gateway in guarded.gateways]
    await guarded.eventually(have_all_made_one)
    client = connect(guarded.broker.url)
    try:
        assert await revoke_api_key(client, key.split("-")[1])
        await revoke_links(client, account_of("key:leaky"))
    finally:
        await client.aclose()
    await asyncio.gather(*users)

    async def are_all_refused() -> bool:
        answers = [
            await guarded.http.get(guarded.url + url.replace("/stream", "", 1))
            for urls in made.values()
            for url in urls
        ]
        return {answer.status_code for answer in answers} == {401}

    await guarded.eventually(are_all_refused)


@pytest.mark.parametrize("principal", ["alice", "key:a b", "jwt:"])
async def test_revoke_links_names_an_invalid_principal(guarded: System, principal: str) -> None:
    done = await asyncio.to_thread(run_headrace, guarded, "keys", "revoke-links", principal)
    assert done.returncode != 0
    assert "key:NAME" in done.stderr
    assert "Traceback" not in done.stderr
