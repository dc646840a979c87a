"""Appends of many streams in one call: each has its own reply, and a gateway gets one message."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.broker.client import Client, connect, run_scripts
from shared.broker.declarations import Call
from shared.broker.growth import Growth, growths_in
from shared.broker.keys import gateway_channel
from shared.broker.replies import Code, WriteReply
from shared.broker.scripts import Holder, StreamScripts
from shared.errors import BrokerFull, BrokerUnavailable
from shared.protocol.lineage import Lineage
from shared.settings import Settings
from tests.broker import Broker
from tests.scripts.stream import DONE, ROUTE, ROUTES, SCRIPTS, STATE, TAIL, WINDOW, Stream, event, messages_of, some


async def running(client: Client, *, on_disconnect: str = "continue") -> tuple[Stream, Holder]:
    """Return a stream with a reader and one event."""
    stream = await Stream(client, key=False).create(on_disconnect=on_disconnect, grace_ms=60_000)
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 1))
    return stream, holder


async def calls_to_redis(client: Client) -> int:
    return int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])


@asynccontextmanager
async def messages_to(client: Client, gateway: str = "g1") -> AsyncIterator[list[bytes]]:
    """Collect the messages published to a gateway meanwhile."""
    async with messages_of(client, gateway_channel(gateway, ROUTE)) as messages:
        yield messages


async def test_each_stream_has_the_reply_of_its_own_append(client: Client) -> None:
    good, holder = await running(client)
    closed, closed_holder = await running(client)
    await closed.finish(closed_holder, 2, [DONE])
    taken, old_holder = await running(client)
    await taken.take_over()
    _, full_holder = await running(client)
    short, short_holder = await running(client)
    missing = Stream(client)
    calls = [
        SCRIPTS.append(missing.holder(1), 1, some(1, 2)),
        SCRIPTS.append(closed_holder, 2, some(2, 2)),
        SCRIPTS.append(old_holder, 2, some(2, 3)),
        SCRIPTS.append(good.holder(holder.epoch + 1), 2, some(2, 2)),
        SCRIPTS.append(short_holder, 3, some(3, 3)),
        SCRIPTS.append(full_holder, 2, some(2, 9)),
        SCRIPTS.append(holder, 2, some(2, 4)),
    ]
    before = await calls_to_redis(client)
    replies = await run_scripts(client, calls)
    assert await calls_to_redis(client) == before + 1
    assert [(reply.code, reply.last_seq) for reply in replies if isinstance(reply, WriteReply)] == [
        (Code.MISSING, 0),
        (Code.CLOSED, 2),
        (Code.SUPERSEDED, 0),
        (Code.BEHIND, 0),
        (Code.GAP, 1),
        (Code.FULL, WINDOW),
        (Code.OK, 4),
    ]
    assert await good.log() == some(1, 4)
    assert await taken.log() == await short.log() == some(1, 1)


@pytest.mark.parametrize("broken_key", [STATE, TAIL])
async def test_a_broken_stream_fails_alone(client: Client, broken_key: int) -> None:
    """Before and after it, streams are written and answered."""
    streams = [await running(client) for _ in range(3)]
    broken = streams[1][0]
    await client.set(broken.keys[broken_key], "something else", px=600_000)
    replies = await run_scripts(client, [SCRIPTS.append(holder, 2, some(2, 2)) for _, holder in streams])
    assert isinstance(replies[1], BrokerUnavailable)
    for (stream, _), reply in (list(zip(streams, replies, strict=True)))[::2]:
        assert isinstance(reply, WriteReply)
        assert (reply.code, reply.last_seq) == (Code.OK, 2)
        assert await stream.log() == some(1, 2)


async def test_a_full_redis_refuses_all_and_takes_nothing(client: Client) -> None:
    streams = [await running(client) for _ in range(2)]
    calls = [SCRIPTS.append(holder, 2, some(2, 2)) for _, holder in streams]
    await client.config_set("maxmemory", "1")
    replies = await run_scripts(client, calls)
    await client.config_set("maxmemory", "0")
    assert [isinstance(reply, BrokerFull) for reply in replies] == [True, True]
    for stream, _ in streams:
        assert await stream.log() == some(1, 1)


async def test_a_large_batch_goes_in_several_calls(client: Client) -> None:
    streams = [await running(client) for _ in range(3)]
    await client.flushall()
    calls: list[Call[WriteReply]] = [SCRIPTS.append(holder, 1, some(1, 3000)) for _, holder in streams]
    before = await calls_to_redis(client)
    replies = await run_scripts(client, calls)
    assert await calls_to_redis(client) == before + 2
    assert [reply.code for reply in replies if isinstance(reply, WriteReply)] == [Code.MISSING] * 3


async def test_a_gateway_gets_one_message_with_all_new_events(client: Client) -> None:
    """Also of a first append, which takes the longer way through the script."""
    streams = [await running(client) for _ in range(2)]
    new = await Stream(client).create()
    new_holder = await new.claim()
    await new.acknowledge()
    await streams[1][0].acknowledge(gateway="g2")
    calls = [SCRIPTS.append(holder, 2, some(2, 3)) for _, holder in streams]
    calls.append(SCRIPTS.append(new_holder, 1, [event(1, "first\nline")]))
    async with messages_to(client, "g2") as to_g2, messages_to(client) as to_g1:
        await run_scripts(client, calls)
    growths = [Growth(stream.id, holder.epoch, 2, some(2, 3)) for stream, holder in streams]
    first = Growth(new.id, new_holder.epoch, 1, [event(1, "first\nline")])
    assert [growths_in(message) for message in to_g1] == [[*growths, first]]
    assert [growths_in(message) for message in to_g2] == [[growths[1]]]


async def test_an_ending_comes_in_a_message_too(client: Client) -> None:
    stream, holder = await running(client)
    async with messages_to(client) as messages:
        await stream.finish(holder, 2, [event(2), DONE])
    assert [growths_in(message) for message in messages] == [[Growth(stream.id, holder.epoch, 2, [event(2), DONE])]]


async def test_a_message_names_streams_whose_events_are_too_large_for_it(client: Client) -> None:
    streams = [await running(client) for _ in range(3)]
    texts = ["x" * 100_000, "x" * 200_000, "x"]
    calls = [SCRIPTS.append(holder, 2, [event(2, text)]) for (_, holder), text in zip(streams, texts, strict=True)]
    async with messages_to(client) as messages:
        await run_scripts(client, calls)
    (message,) = messages
    assert [(growth.stream_id, bool(growth.events)) for growth in growths_in(message)] == [
        (stream.id, has_events) for (stream, _), has_events in zip(streams, (True, False, True), strict=True)
    ]


async def test_a_message_does_not_bring_continued_events(client: Client) -> None:
    """Their ids are of another epoch than the append."""
    stream, first = await running(client)
    second = await stream.take_over()
    lineage = Lineage(f"{first.epoch}:1")
    await client.delete(stream.keys[TAIL])
    async with messages_to(client) as messages:
        calls = [SCRIPTS.append(second, 1, some(1, 2), resend=True, lineage=lineage)]
        calls += [SCRIPTS.append(second, 3, some(3, 3), lineage=lineage)]
        for call in calls:
            await run_scripts(client, [call])
    assert [growths_in(message) for message in messages] == [
        [Growth(stream.id, 0, 0, [])],
        [Growth(stream.id, second.epoch, 3, some(3, 3))],
    ]


async def test_a_message_has_events_as_they_are_stored(client: Client) -> None:
    scripts = StreamScripts(Settings.model_validate({"content_keys": "ab" * 32}), ROUTES)
    stream, holder = await running(client)
    async with messages_to(client) as messages:
        await run_scripts(client, [scripts.append(holder, 2, [event(2, "secret")])])
    (message,) = messages
    (growth,) = growths_in(message)
    assert growth.events == (await stream.log())[1:]
    assert b"secret" not in message


async def test_without_the_right_to_notify_streams_are_written_all_the_same(
    client: Client, scripts_broker: Broker
) -> None:
    """The error reaches the log, and a repetition is answered."""
    unread = await Stream(client, key=False).create()
    unread_holder = await unread.claim()
    stream, holder = await running(client)
    await client.execute_command("ACL", "SETUSER", "mute", "on", "nopass", "~*", "resetchannels", "+@all")  # type: ignore[no-untyped-call]
    mute = connect(scripts_broker.url.replace("redis://", "redis://mute:any@"))
    calls = [SCRIPTS.append(holder, 2, some(2, 2)), SCRIPTS.append(unread_holder, 1, some(1, 1))]
    refused, answered = await run_scripts(mute, calls)
    repeated, _ = await run_scripts(mute, calls)
    await mute.aclose()
    await client.execute_command("ACL", "DELUSER", "mute")  # type: ignore[no-untyped-call]
    assert isinstance(refused, BrokerUnavailable)
    for reply, last_seq in ((answered, 1), (repeated, 2)):
        assert isinstance(reply, WriteReply)
        assert (reply.code, reply.last_seq) == (Code.OK, last_seq)
    assert await stream.log() == some(1, 2)
