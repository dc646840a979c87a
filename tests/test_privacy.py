"""Content in Redis is sealed if there is a content key, and DELETE removes all of it."""

import asyncio
import os
import subprocess
import sys
import zlib

import pytest
from redis.asyncio import Redis

from shared.broker.sealing import Sealing, is_sealed
from shared.errors import ContentUnreadable
from tests.conftest import StartSystem
from tests.fakes.answer import Answer, ToolCall
from tests.sse_client import text_of
from tests.system import REPOSITORY, System, ask

FIRST, SECOND = "0f" * 32, "a1" * 32
WORDS = ("canary-answer ", *(f"w{n} " for n in range(30)))
ANSWER = "".join(WORDS)
SECRETS = (b"canary-prompt", b"canary-metadata", b"canary-answer", b"canary-tool")


async def everything(client: Redis) -> dict[str, bytes]:
    """Return all keys with their whole content, logs decompressed if they are not sealed."""
    found = {}
    async for key in client.scan_iter(count=1000):
        match await client.type(key):
            case b"string":
                content = [await client.get(key) or b""]  # gone since
            case b"list":
                content = [inflated(part) for part in await client.lrange(key, 0, -1)]  # type: ignore[misc]
            case b"hash":
                content = [part for pair in (await client.hgetall(key)).items() for part in pair]  # type: ignore[misc]
            case b"zset":
                content = await client.zrange(key, 0, -1)
            case b"stream":
                content = [value for _, fields in await client.xrange(key) for value in fields.values()]
            case b"none":  # gone since
                continue
            case other:
                raise AssertionError(other)
        found[key.decode()] = b"\n".join(content)
    return found


def inflated(stored: bytes) -> bytes:
    try:
        return zlib.decompress(stored)
    except zlib.error:
        return stored


async def canaries(system: System) -> set[bytes]:
    """Return the canaries that are readable in Redis."""
    async with system.broker.client() as client:
        content = b"\n".join((await everything(client)).values())
    return {secret for secret in SECRETS if secret in content}


async def post(system: System, model: str = "told") -> str:
    return await system.post(model, "canary-prompt", metadata={"m": "canary-metadata"})


async def restart(system: System, **settings: str) -> None:
    """Restart all gateways and workers with other settings."""
    for process in (*system.workers, *system.gateways):
        process.stop()
        process.environment |= {f"HEADRACE_{name.upper()}": value for name, value in settings.items()}
        process.start()
    await system.ready()


async def test_no_content_of_a_conversation_is_readable_in_redis(start_system: StartSystem) -> None:
    """Checked while the stream waits and runs, after its worker and Redis were lost, and after the end."""
    system = await start_system(gateways=2, workers=1, concurrency=1, content_keys=FIRST)
    gate = asyncio.Event()
    call = ToolCall("c", "tool", ('{"a": "canary-tool', '"}'))
    system.fake.play("told", Answer(deltas=WORDS, tools=[call], gate=gate, gate_after=20))
    running, waiting = await post(system), await post(system)
    async with await system.read(running, gateway=1) as reader:
        await reader.next("token")
        assert await canaries(system) == set()
        system.workers[0].stop()
        system.workers[0].start()
        gate.set()
        rest = await reader.rest()
    begun = next(n for n, frame in enumerate(rest) if frame.event == "start")
    assert text_of(rest[begun:]) == ANSWER
    for stream_id in (running, waiting):
        status = await system.ended(stream_id, timeout_s=90)
        assert status["text"] == ANSWER
        assert status["metadata"] == {"m": "canary-metadata"}
        assert "canary-tool" in str(status["tool_calls"])
    listed = (await system.http.get(f"{system.url}/chat")).json()["streams"]
    assert [stream["metadata"] for stream in listed] == [{"m": "canary-metadata"}] * 2
    async with await system.read(waiting, gateway=1) as again:
        assert text_of(await again.rest()) == ANSWER
    assert await canaries(system) == set()


async def test_a_stream_is_restored_sealed_after_a_flush(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=1, content_keys=FIRST)
    gate = asyncio.Event()
    system.fake.play("told", Answer(deltas=WORDS, gate=gate, gate_after=20))
    stream_id = await post(system)
    async with await system.read(stream_id) as reader:
        await reader.next("token")
        async with system.broker.client() as client:
            await client.flushall()

            async def restored() -> bool:
                return bool(await client.exists(*[k async for k in client.scan_iter("hr:*:tail")] or ["-"]))

            await system.eventually(restored)
        gate.set()
        await reader.rest()
    status = await system.ended(stream_id)
    assert (status["text"], status["metadata"]) == (ANSWER, {"m": "canary-metadata"})
    assert await canaries(system) == set()


async def test_content_keys_are_added_rotated_and_removed_without_losing_an_answer(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    system.fake.play("told", Answer(deltas=WORDS))
    plain = await post(system)
    await system.ended(plain)
    assert await canaries(system) == {b"canary-answer", b"canary-metadata"}  # the request is deleted at the end
    await restart(system, content_keys=FIRST)
    first = await post(system)
    await system.ended(first)
    await restart(system, content_keys=f"{SECOND},{FIRST}")
    second = await post(system)
    for stream_id in (plain, first, second):
        assert (await system.ended(stream_id))["text"] == ANSWER
    await restart(system, content_keys=SECOND)
    for stream_id in (plain, second):
        assert (await system.status(stream_id))["text"] == ANSWER
    for path in (f"/chat/{first}", f"/chat/stream/{first}"):
        answer = await system.http.get(system.url + path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "content_unreadable")
    listed = (await system.http.get(f"{system.url}/chat")).json()["streams"]
    assert {each["stream_id"]: each["metadata"] for each in listed} == {
        plain: {"m": "canary-metadata"},
        second: {"m": "canary-metadata"},
        first: {},
    }
    assert (await system.http.get(f"{system.url}/readyz")).status_code == 200
    await restart(system, content_keys=f"{SECOND},{FIRST}")
    assert (await system.status(first))["text"] == ANSWER


async def test_a_worker_without_the_key_fails_streams_that_it_cannot_read(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, concurrency=1, content_keys=FIRST)
    system.fake.play("held", Answer(end="hang"))
    await system.post("held")
    stream_id = await post(system, "echo")
    system.workers[0].stop()
    system.workers[0].environment |= {"HEADRACE_CONTENT_KEYS": SECOND, "HEADRACE_CONCURRENCY": "5"}
    system.workers[0].start()
    await system.ended_unwatched(stream_id)
    assert await system.field(stream_id, "reason") == "internal_error"


@pytest.mark.parametrize("keys", ["short", FIRST[:-1], f"{FIRST},{'zz' * 32}", f"{FIRST}{SECOND}"])
def test_an_invalid_key_stops_the_start_and_is_not_shown(keys: str) -> None:
    environment = os.environ | {"HEADRACE_CONTENT_KEYS": keys, "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0"}
    left = subprocess.run(
        [sys.executable, "-m", "headrace", "worker"],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert left.returncode != 0
    assert "HEADRACE_CONTENT_KEYS" in left.stderr
    assert "openssl rand -hex 32" in left.stderr
    assert not any(key in left.stderr + left.stdout for key in keys.split(","))


def test_sealed_content_opens_only_unchanged_and_in_its_own_stream() -> None:
    sealing = Sealing([bytes.fromhex(FIRST), bytes.fromhex(SECOND)])
    sealed = sealing.seal("a-stream", b"token {}")
    assert is_sealed(sealed)
    assert sealed != sealing.seal("a-stream", b"token {}")
    assert sealing.open("a-stream", sealed) == b"token {}"
    assert Sealing([bytes.fromhex(SECOND), bytes.fromhex(FIRST)]).open("a-stream", sealed) == b"token {}"
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(1, len(sealed))]
    for stream_id, stored in (
        ("another", sealed),
        *(("a-stream", other) for other in changed),
        *(("a-stream", sealed[:length]) for length in range(1, len(sealed))),
    ):
        with pytest.raises(ContentUnreadable):
            sealing.open(stream_id, stored)
    with pytest.raises(ContentUnreadable):
        Sealing([bytes.fromhex(SECOND)]).open("a-stream", sealed)
    assert Sealing([]).seal("a-stream", b"token {}") == b"token {}"


async def test_delete_leaves_only_a_tombstone(start_system: StartSystem) -> None:
    """Deletes a stream that has ended, one that runs and one that waits: no content, no id in a list and no log line
    remains."""
    system = await start_system(gateways=1, workers=1, concurrency=1, requests_per_minute=100)
    call = ToolCall("c", "tool", ('{"a": "canary-tool"}',))
    system.fake.play("told", Answer(deltas=WORDS, tools=[call]))
    ended = await post(system)
    await system.ended(ended)
    system.fake.play("told", Answer(deltas=WORDS, end="hang"))
    running = await post(system)
    await system.eventually(lambda: system.field(running, "started"))
    body = ask("told", "canary-prompt")
    waiting = (await system.http.post(f"{system.url}/chat", json=body, headers={"Idempotency-Key": "k"})).json()
    ids = [ended, running, waiting["stream_id"]]
    assert await canaries(system) >= {b"canary-prompt", b"canary-answer"}
    for stream_id in ids:
        assert (await system.http.delete(f"{system.url}/chat/{stream_id}")).status_code == 204

    async def is_clean() -> bool:
        async with system.broker.client() as client:
            now = await everything(client)
        marks = {key for key, content in now.items() if content == b"refused\nGONE"}  # of the desk, for a minute
        left = {key for key, content in now.items() for i in ids if i in key or i.encode() in content} - marks
        return all(key.endswith(":tombstone") or ":removed:" in key or ":idem:" in key for key in left)

    await system.eventually(is_clean)
    assert await canaries(system) == set()
    for log in system.folder.glob("*.log"):
        assert b"canary" not in log.read_bytes()
