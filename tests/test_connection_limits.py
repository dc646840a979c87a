"""Live connections are counted exactly for each principal, and given back however they end."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, start_stream, token
from tests.fakes import Answer
from tests.raw_client import connected
from tests.raw_requests import HOST, post
from tests.sse_client import SseConnection, open_sse
from tests.system import System, ask

MOST = 3
#: Requests that stream or wait for the end of a stream, in each dialect.
TALK: dict[str, Any] = {"model": "openai/unwanted", "messages": [{"role": "user", "content": "hi"}]}
UI_TALK = {"id": "c", "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/chat/stream", ask("unwanted")),
    "openai chat": ("/v1/chat/completions", TALK | {"stream": True}),
    "openai chat, whole": ("/v1/chat/completions", TALK),
    "anthropic": ("/v1/messages", TALK | {"max_tokens": 5, "stream": True}),
    "anthropic, whole": ("/v1/messages", TALK | {"max_tokens": 5}),
    "openai responses": ("/v1/responses", {"model": "openai/unwanted", "input": "hi", "stream": True}),
    "ai sdk": ("/api/chat", UI_TALK | {"model": "openai/unwanted"}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bounded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One gateway with :data:`MOST` connections for each principal."""
    settings = JWT_SETTINGS | {"auth": "jwt", "jwt_leeway_s": 0, "connections": MOST}
    system = System(tmp_path_factory.mktemp("bounded"), gateways=1, workers=1, providers=("openai",), **settings)
    try:
        system.http.headers.update(boot_credentials())
        await system.start()
        del system.http.headers["Authorization"]
        yield system
    finally:
        await system.stop()


@pytest.fixture
def gate(bounded: System) -> asyncio.Event:
    """Hold every answer of the model ``held`` after its first delta, until the event is set."""
    gate = asyncio.Event()
    bounded.fake.play("held", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    return gate


async def opened(system: System, subject: str, number: int = MOST) -> list[SseConnection]:
    """Open connections that last until the gate opens."""
    url, headers = f"{system.url}/chat/stream", bearer(token(subject))
    connections = [await open_sse("POST", url, headers=headers, json=ask("held")) for _ in range(number)]
    assert [each.status for each in connections] == [200] * number
    return connections


async def has_room(system: System, subject: str, number: int = MOST) -> None:
    """Wait until so many connections can be open at once, and close them."""

    async def try_all() -> bool:
        url, headers = f"{system.url}/chat/stream", bearer(token(subject))
        found = [await open_sse("POST", url, headers=headers, json=ask("held")) for _ in range(number)]
        for each in found:
            each.cut()
        return all(each.status == 200 for each in found)

    await system.eventually(try_all)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_connection_too_many_is_refused_in_each_dialect(
    bounded: System, gate: asyncio.Event, route: str
) -> None:
    path, body = ROUTES[route]
    subject = f"alice of {route}"
    connections = await opened(bounded, subject)
    answer = await bounded.http.post(bounded.url + path, json=body, headers=bearer(token(subject)))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
    error = answer.json()["error"]
    if path == "/v1/messages":
        assert error["type"] == "rate_limit_error"
    else:
        assert error["code"] == "too_many_connections"
    assert "limit of 3 open connections reached" in error["message"]
    if path.startswith("/v1/"):
        assert answer.headers["x-should-retry"] == "true"
    gate.set()
    for connection in connections:
        assert (await connection.rest())[-1].event == "done"
    assert "unwanted" not in {call.model for call in bounded.fake.calls}


async def test_others_and_other_requests_are_not_affected(bounded: System, gate: asyncio.Event) -> None:
    connections = await opened(bounded, "busy")
    for connection in await opened(bounded, "calm"):
        connection.cut()
    headers = bearer(token("busy"))
    stream_id = connections[0].stream_id
    for _ in range(2):
        assert (await bounded.http.get(f"{bounded.url}/chat/{stream_id}", headers=headers)).status_code == 200
        assert (await bounded.http.post(f"{bounded.url}/chat", json=ask("held"), headers=headers)).status_code == 202
    gate.set()
    for connection in connections:
        connection.cut()


async def test_readers_by_ticket_are_limited_and_take_no_place_of_the_owner(
    bounded: System, gate: asyncio.Event
) -> None:
    started = await start_stream(bounded, token("owner"), "held")
    url = bounded.url + started["stream_url"]
    readers = [await open_sse("GET", url) for _ in range(MOST)]
    assert [reader.status for reader in readers] == [200] * MOST
    assert (await bounded.http.get(url)).status_code == 429
    own = await opened(bounded, "owner")
    gate.set()
    for reader in (*readers, *own):
        assert (await reader.rest())[-1].event == "done"
    await has_room(bounded, "owner")


async def test_a_hundred_at_once_are_counted_exactly(bounded: System, gate: asyncio.Event) -> None:
    url, headers = f"{bounded.url}/chat/stream", bearer(token("eager"))
    tries = [open_sse("POST", url, headers=headers, json=ask("held")) for _ in range(100)]
    connections = await asyncio.gather(*tries)
    assert Counter(each.status for each in connections) == {200: MOST, 429: 100 - MOST}
    gate.set()
    for connection in connections:
        connection.cut()
    await has_room(bounded, "eager")


# --- every way in which a connection ends


async def ended(system: System, subject: str, gate: asyncio.Event) -> None:
    connections = await opened(system, subject)
    gate.set()
    for connection in connections:
        assert (await connection.rest())[-1].event == "done"


async def cut(system: System, subject: str, _gate: asyncio.Event) -> None:
    for connection in await opened(system, subject):
        connection.cut()


async def cancelled(system: System, subject: str, _gate: asyncio.Event) -> None:
    for connection in await opened(system, subject):
        url = f"{system.url}/chat/{connection.stream_id}/cancel"
        assert (await system.http.post(url, headers=bearer(token(subject)))).status_code == 202
        assert (await connection.rest())[-1].event == "done"


async def refused(system: System, subject: str, _gate: asyncio.Event) -> None:
    for path, _body in ROUTES.values():
        for content in (b"{", b"{}"):
            answer = await system.http.post(system.url + path, content=content, headers=bearer(token(subject)))
            assert answer.status_code in {400, 422}, answer.text


async def failed(system: System, subject: str, _gate: asyncio.Event) -> None:
    system.fake.play("failing", Answer(deltas=[], status=400))
    url, body = f"{system.url}/v1/chat/completions", TALK | {"model": "openai/failing"}
    for _ in range(MOST + 2):
        answer = await system.http.post(url, json=body, headers=bearer(token(subject)))
        assert answer.status_code == 400, answer.text


async def cut_before_the_body(system: System, subject: str, _gate: asyncio.Event) -> None:
    fields = (HOST, f"Authorization: Bearer {token(subject)}", "Content-Length: 100", "Expect: 100-continue")
    for _ in range(MOST):
        async with connected(system.gateways[0].port) as connection:
            await connection.send(post(*fields, target="/chat/stream"))
            assert (await connection.head())[0] == 100  # the gateway waits for the body


async def cut_before_the_response(system: System, subject: str, _gate: asyncio.Event) -> None:
    body = json.dumps(TALK | {"model": "openai/held"}).encode()
    fields = (HOST, f"Authorization: Bearer {token(subject)}", f"Content-Length: {len(body)}")
    for _ in range(MOST):
        calls = len(system.fake.calls)
        async with connected(system.gateways[0].port) as connection:
            await connection.send(post(*fields, target="/v1/chat/completions", body=body))
            await system.fake.wait_calls(calls + 1)


WAYS = (ended, cut, cancelled, refused, failed, cut_before_the_body, cut_before_the_response)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_connection_is_given_back_however_it_ends(
    bounded: System, gate: asyncio.Event, way: Callable[[System, str, asyncio.Event], Awaitable[None]]
) -> None:
    subject = f"subject of {way.__name__}"
    await way(bounded, subject, gate)
    await has_room(bounded, subject)
