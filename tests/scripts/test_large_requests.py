"""Large requests, which are stored in pieces before their stream is created."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from shared.broker import creation
from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import NewStream
from shared.broker.declarations import Call
from shared.broker.desk_replies import Created, Stored
from shared.broker.ending import restorable
from shared.broker.keys import request_key
from shared.broker.removal import delete_stream
from shared.broker.replies import Claimed, Code, Unstored, WriteReply
from shared.broker.scripts import Fields, StreamScripts
from shared.broker.stored_request import PIECE_BYTES, read_request
from shared.rate_limits import Demand, Limits
from tests.scripts.stream import ANY, DONE, ROUTES, SCRIPTS, SETTINGS, TOKEN, Stream, now_ms, some

_STREAM_BYTES = 5120
REQUEST = "".join(map(str, range(150_000)))  # four pieces, all different


async def send(client: Client, calls: Sequence[Call[WriteReply]]) -> None:
    for call in calls:
        assert (await run_script(client, call)).code is Code.STORED


def split(stream: Stream, scripts: StreamScripts = SCRIPTS) -> tuple[Fields, list[Call[WriteReply]]]:
    fields = {"principal": "p", "account": "an-account", "request": REQUEST, "on_disconnect": "continue"}
    return scripts.split_request(stream.id, {**fields, "grace_ms": 0, "body_hash": "ff"})


async def create(stream: Stream, fields: Fields, demand: Demand = ANY) -> Created | Stored | Unstored | object:
    new = NewStream(stream.id, fields, "ff", None, demand)
    return await creation.create(stream.client, SCRIPTS, new)


async def expires_at(stream: Stream) -> int:
    (at,) = await run_commands(stream.client, [("PEXPIRETIME", request_key(stream.id))])
    return int(at)


async def total(client: Client) -> int:
    stored: bytes | None = await client.hget("hr:{desk}:stored:an-account", "total")  # type: ignore[misc]
    return int(stored or 0)


@pytest.mark.parametrize("keys", [(), ("ab" * 32,)])
async def test_a_large_request_is_kept_in_pieces_until_the_end(client: Client, keys: tuple[str, ...]) -> None:
    scripts = StreamScripts(SETTINGS.model_copy(update={"content_keys": tuple(map(SecretStr, keys))}), ROUTES)
    stream = Stream(client, key=False)
    fields, pieces = split(stream, scripts)
    assert max(len(argument) for call in pieces for argument in map(str, call.arguments[:-1])) < 100
    assert [len(bytes(call.arguments[-1])) <= PIECE_BYTES for call in pieces] == [True] * 4  # type: ignore[arg-type]
    await send(client, pieces)
    left_ms: int = await expires_at(stream) - now_ms()
    assert 0 < left_ms <= 61_000, "pieces without a stream stay only shortly"
    assert isinstance(await create(stream, fields), Created)
    size = int(fields["request_bytes"])
    assert await total(client) == _STREAM_BYTES + size
    assert await expires_at(stream) == (await stream.lives())[0]
    claimed = await run_script(client, scripts.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    assert "request" not in claimed.fields
    assert await read_request(client, scripts.sealing, stream.id, size) == REQUEST.encode()
    await stream.finish(stream.holder(claimed.epoch), 1, [DONE])
    assert not await client.exists(request_key(stream.id))
    assert "request_bytes" not in await stream.state()
    assert await total(client) == _STREAM_BYTES + sum(map(len, await stream.stored_log()))


async def test_nothing_is_created_while_a_piece_is_missing(client: Client) -> None:
    stream = Stream(client, key=False)
    fields, pieces = split(stream)
    for present in ([], pieces[:-1], pieces[1:]):
        await client.delete(request_key(stream.id))
        await send(client, present)
        assert await create(stream, fields) == Unstored()
        assert await stream.state() == {}
    await send(client, [*pieces, *pieces])  # a piece may be sent twice
    assert isinstance(await create(stream, fields), Created)


async def test_a_large_request_counts_against_the_limit(client: Client) -> None:
    stream = Stream(client, key=False)
    fields, pieces = split(stream)
    await send(client, pieces)
    needed = _STREAM_BYTES + len(REQUEST)
    refused = await create(stream, fields, Demand("an-account", Limits(stored_bytes=needed - 1), 0))
    assert refused == Stored(0, needed)
    fits = Demand("an-account", Limits(stored_bytes=needed), 0)
    assert isinstance(await create(stream, fields, fits), Unstored), "a refused stream leaves nothing"
    await send(client, split(stream)[1])
    assert isinstance(await create(stream, fields, fits), Created)


async def test_a_large_request_is_restored(client: Client) -> None:
    stream = Stream(client, key=False)
    fields, pieces = split(stream)
    await send(client, pieces)
    await create(stream, fields)
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    holder = stream.holder(claimed.epoch)
    await client.flushdb()
    kept = restorable({**claimed.fields, "request": REQUEST.encode()})
    fields, pieces = SCRIPTS.split_request(stream.id, kept)
    restore = SCRIPTS.restore(holder, some(1, 2), fields=fields, body_hash="ff")
    assert (await run_script(client, restore)).code is Code.UNSTORED
    assert await stream.state() == {}
    await send(client, pieces)
    reply = await run_script(client, restore)
    assert reply.code is Code.OK
    assert await read_request(client, SCRIPTS.sealing, stream.id, len(REQUEST)) == REQUEST.encode()
    assert await expires_at(stream) > now_ms() + 100_000
    assert reply.size == _STREAM_BYTES + len(REQUEST) + sum(map(len, some(1, 2)))


async def test_pieces_go_with_a_deleted_stream(client: Client) -> None:
    stream = Stream(client, key=False)
    fields, pieces = split(stream)
    await send(client, pieces)
    await create(stream, {**fields, "follow_up": "0"})
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    await stream.finish(stream.holder(claimed.epoch), 1, [DONE])
    assert await client.exists(request_key(stream.id)), "a later request may continue the stream"
    await delete_stream(client, SCRIPTS, stream.id)
    assert not await client.exists(request_key(stream.id))
    assert await total(client) == 0
