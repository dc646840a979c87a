"""Memory for request bodies: a gateway reads no more of them at once than HEADRACE_BODY_MEMORY_BYTES."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.intake.body_memory import BodyMemory
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, token
from tests.fakes.answer import Answer
from tests.raw_client import RawAnswer, RawConnection, connected
from tests.raw_requests import CHUNKED, HOST, post
from tests.system import System, ask

MIB = 1024 * 1024
#: One body of this size fits into the part for large bodies, two do not.
LARGE = json.dumps(ask("waits", "x" * (2 * MIB - 1000))).encode()
LIMITS: dict[str, Any] = {"max_body_bytes": 2 * MIB, "body_memory_bytes": 4 * MIB}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("narrow"), gateways=1, workers=1, providers=("openai",), **LIMITS)
    try:
        await system.start()
        system.fake.play("waits", Answer())
        yield system
    finally:
        await system.stop()


async def taken(system: System) -> int:
    metrics = (await system.http.get(f"{system.url}/metrics")).text
    (line,) = [line for line in metrics.splitlines() if line.startswith("headrace_body_memory_bytes")]
    return round(float(line.split()[-1]))


async def has_taken(system: System, at_least: int) -> None:
    async def look() -> bool:
        return await taken(system) >= at_least

    await system.eventually(look)


async def is_free(system: System) -> None:
    async def look() -> bool:
        return await taken(system) == 0

    await system.eventually(look)


async def answer_to(connection: RawConnection, body: bytes) -> RawAnswer:
    await connection.send(post(HOST, f"Content-Length: {len(body)}", body=body))
    return await connection.answer()


async def test_a_body_without_room_waits_until_another_client_leaves(narrow: System) -> None:
    port = narrow.gateways[0].port
    async with connected(port) as waiting, connected(port) as later, connected(port) as small:
        async with connected(port) as half_sent:
            await half_sent.send(post(HOST, f"Content-Length: {len(LARGE)}", body=LARGE[:MIB]))
            await has_taken(narrow, len(LARGE))
            others = [asyncio.create_task(answer_to(each, LARGE)) for each in (waiting, later)]
            chat = json.dumps(ask("waits")).encode()
            assert (await answer_to(small, chat)).status == 202, "a small body waits for no large one"
            assert not any(other.done() for other in others)
            assert await taken(narrow) == len(LARGE)
        assert [(await other).status for other in others] == [202, 202]
    await is_free(narrow)


async def test_two_half_read_bodies_of_unknown_length_do_not_wait_for_each_other(narrow: System) -> None:
    port = narrow.gateways[0].port
    half, rest = LARGE[:MIB], LARGE[MIB:]
    async with connected(port) as first, connected(port) as second:
        for connection in (first, second):
            await connection.send(post(HOST, CHUNKED, body=b"%x\r\n%b\r\n" % (len(half), half)))
        await has_taken(narrow, 2 * MIB)
        ends = [
            asyncio.create_task(connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)))
            for connection in (second, first)
        ]
        assert [(await connection.answer()).status for connection in (first, second)] == [202, 202]
        await asyncio.gather(*ends)
    await is_free(narrow)


@pytest.mark.parametrize("body", [LARGE[:-2], LARGE.replace(b'"model"', b'"medol"')], ids=["no JSON", "a bad field"])
async def test_a_refused_body_gives_its_memory_back(narrow: System, body: bytes) -> None:
    for _ in range(3):
        async with connected(narrow.gateways[0].port) as connection:
            assert (await answer_to(connection, body)).status in {400, 422}
    await is_free(narrow)


PATHS = {
    "/chat": ["error", "code"],
    "/chat/stream": ["error", "code"],
    "/v1/chat/completions": ["error", "code"],
    "/v1/responses": ["error", "code"],
    "/v1/messages": ["error", "type"],
    "/api/chat": ["error", "code"],
    "/ag-ui": ["error", "code"],
}


async def test_a_body_that_finds_no_room_in_time_is_refused(start_system: StartSystem) -> None:
    """Redis hangs, so that one request keeps its memory: until Redis is given up after five seconds."""
    system = await start_system(gateways=1, workers=1, request_deadline_s=2, **LIMITS)
    headers = {"Content-Type": "application/json"}
    system.broker.freeze()
    try:
        holder = asyncio.create_task(system.http.post(f"{system.url}/chat", content=LARGE, headers=headers))
        await has_taken(system, len(LARGE))
        calls = [system.http.post(system.url + path, content=LARGE, headers=headers) for path in PATHS]
        answers = dict(zip(PATHS, await asyncio.gather(*calls), strict=True))
        assert not holder.done()
    finally:
        system.broker.thaw()
    for path, place in PATHS.items():
        answer, error = answers[path], answers[path].json()
        assert answer.status_code == 503, path
        assert int(answer.headers["retry-after"]) > 0
        code = error[place[0]][place[1]]
        assert code == ("overloaded_error" if path == "/v1/messages" else "overloaded")
        assert "HEADRACE" not in answer.text
    await holder
    metrics = (await system.http.get(f"{system.url}/metrics")).text
    assert 'headrace_refusals_total{code="overloaded"} 7.0' in metrics
    assert "HEADRACE_BODY_MEMORY_BYTES" in system.gateways[0].log.read_text()
    assert (await system.http.post(f"{system.url}/chat", content=LARGE, headers=headers)).status_code == 202


async def test_a_body_beyond_the_limit_tells_the_size_and_the_setting(narrow: System) -> None:
    """Also if the client sends the whole body before it reads the response."""
    body = json.dumps(ask("waits", "x" * (3 * MIB))).encode()
    async with connected(narrow.gateways[0].port) as connection:
        answer = await answer_to(connection, body)
    assert (answer.status, answer.code) == (413, "body_too_large")
    message = json.loads(answer.body)["error"]["message"]
    assert str(len(body)) in message
    assert str(2 * MIB) in message
    assert "HEADRACE" not in message
    assert "HEADRACE_MAX_BODY_BYTES" in narrow.gateways[0].log.read_text()


async def test_a_principal_that_sends_slowly_leaves_half_of_the_memory_to_others(tmp_path: Path) -> None:
    """Seven MiB are for large bodies."""
    settings = JWT_SETTINGS | LIMITS | {"auth": "jwt", "body_memory_bytes": 8 * MIB}
    system = System(tmp_path, gateways=1, workers=1, providers=("openai",), **settings)
    system.http.headers.update(boot_credentials())
    slow, other = (f"Authorization: {bearer(token(name))['Authorization']}" for name in ("alice", "bob"))
    length = f"Content-Length: {len(LARGE)}"
    try:
        await system.start()
        system.fake.play("waits", Answer())
        port = system.gateways[0].port
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(connected(port)) for _ in range(4)]
            for connection in held:
                await connection.send(post(HOST, slow, length, body=LARGE[:MIB]))
            await has_taken(system, len(LARGE))
            async with connected(port) as connection:
                await connection.send(post(HOST, other, length, body=LARGE))
                assert (await connection.answer()).status == 202
            assert await taken(system) == len(LARGE)
            for connection in held:  # one after another, each finds room when the one before is stored
                await connection.send(LARGE[MIB:])
                assert (await connection.answer()).status == 202
        await is_free(system)
    finally:
        await system.stop()


async def test_a_share_gives_back_all_that_several_takes_at_once_took() -> None:
    memory = BodyMemory(4 * MIB, wait_s=60)
    other, share = memory.begin(None), memory.begin("somebody")
    await other.take(memory.large.size)
    takes = [asyncio.create_task(share.take(3 * MIB // 4)) for _ in range(2)]
    await asyncio.sleep(0)
    other.release()
    await asyncio.gather(*takes)
    share.release()
    assert memory.large.is_unused
    assert memory.of_principal("somebody").is_unused
