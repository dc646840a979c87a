"""Webhooks in Redis: what an ending owes to a receiver, and what becomes of it."""

from functools import partial

from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import create, requeue
from shared.broker.deliveries import count_owed, deliver_again, list_owed
from shared.broker.desk_replies import Created
from shared.broker.keys import DELIVERIES, state_key, sweep_keys
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.scripts import Delivery
from shared.broker.sweep import Sweep
from shared.broker.timeline import read_timeline
from tests.scripts.stream import DONE, ENDING, INDEX, SCRIPTS, SETTINGS, Stream, some

URL = "https://hooks.example/a"


async def ended(client: Client, *, webhook: str = URL) -> Stream:
    """A stream whose worker died after the first step of its ending."""
    stream = Stream(client)
    fields = {"webhook": webhook, "webhook_by": "request"} if webhook else {}
    assert isinstance(await create(client, SCRIPTS, stream.creation(fields=fields)), Created)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.end(holder, 3, [DONE], ENDING)
    return stream


async def undelivered(stream: Stream) -> str:
    value: bytes | None = await stream.client.hget(stream.keys[0], "undelivered")  # type: ignore[misc]
    return (value or b"").decode()


async def note(stream: Stream, outcome: Delivery, since: str, *, detail: str = "", again_ms: int = 0) -> bool:
    call = SCRIPTS.deliver(stream.id, stream.idempotency, outcome, since, detail=detail, again_ms=again_ms)
    return await run_script(stream.client, call)


async def sweep(client: Client) -> None:
    """Sweep once, with all streams due."""
    for index, _ in sweep_keys():
        for stream_id in await client.zrange(index, 0, -1):
            await client.zadd(index, {stream_id: 1})
    again = partial(requeue, client, SCRIPTS)
    await Sweep(client, SCRIPTS, SETTINGS, own_id="g1", requeue=again, count=lambda _: None).sweep()


async def test_an_ending_without_a_webhook_owes_nothing(client: Client) -> None:
    stream = await ended(client, webhook="")
    await sweep(client)
    assert await undelivered(stream) == ""
    assert await client.zcard(stream.keys[INDEX]) == 0
    assert await client.exists(DELIVERIES) == 0


async def test_the_sweep_queues_what_a_lost_process_owes(client: Client) -> None:
    stream = await ended(client)
    assert await client.exists(DELIVERIES) == 0
    for _ in range(2):  # the second time, when it is settled
        await sweep(client)
        assert await client.zrange(DELIVERIES, 0, -1) == [stream.id.encode()]
        assert await client.zscore(stream.keys[INDEX], stream.id) is not None
        await client.delete(DELIVERIES)
    assert await client.hexists(stream.keys[0], "owed") == 0  # type: ignore[misc]


async def test_a_delivered_webhook_is_owed_no_more(client: Client) -> None:
    stream = await ended(client)
    await sweep(client)
    since = await undelivered(stream)
    assert await note(stream, Delivery.DELIVERED, since)
    assert await undelivered(stream) == ""
    assert await client.zscore(stream.keys[INDEX], stream.id) is None
    assert not await note(stream, Delivery.DELIVERED, since)
    (timeline,) = await read_timeline(client, [stream.id])
    assert [each.detail for each in timeline.timeline() if each.what == "webhook"] == ["delivered"]
    await sweep(client)
    assert await client.zcard(stream.keys[INDEX]) == 0


async def test_a_delivery_before_the_settlement_keeps_the_stream_in_its_index(client: Client) -> None:
    stream = await ended(client)
    assert await note(stream, Delivery.DELIVERED, await undelivered(stream))
    assert await client.zscore(stream.keys[INDEX], stream.id) is not None
    await sweep(client)
    assert await client.zscore(stream.keys[INDEX], stream.id) is None
    assert await client.exists(DELIVERIES) == 0


async def test_a_failure_is_looked_after_once_its_next_try_has_passed(client: Client) -> None:
    stream = await ended(client)
    since = await undelivered(stream)
    assert await note(stream, Delivery.FAILED, since, detail="HTTP 500", again_ms=100_000)
    now, next_look = int(since), await client.zscore(stream.keys[INDEX], stream.id)
    assert next_look is not None
    assert now + 100_000 < next_look
    assert await undelivered(stream) == since
    command = ("HMGET", stream.keys[0], "delivery_failures", "delivery_error")
    assert await run_commands(client, [command]) == [[b"1", b"HTTP 500"]]


async def test_a_webhook_that_was_given_up_can_be_sent_again(client: Client) -> None:
    stream = await ended(client)
    await sweep(client)
    assert await note(stream, Delivery.GIVEN_UP, await undelivered(stream), detail="HTTP 410")
    await client.zrem(DELIVERIES, stream.id)
    assert await count_owed(client) == (0, 1)
    (owed,) = await list_owed(client, 10)
    assert (owed.stream_id, owed.url, owed.failures, owed.error, owed.next_at) == (
        stream.id,
        URL,
        1,
        "HTTP 410",
        None,
    )
    await sweep(client)
    assert await count_owed(client) == (0, 1)
    assert await deliver_again(client, SCRIPTS, stream.id)
    assert await count_owed(client) == (1, 0)
    (owed,) = await list_owed(client, 10)
    assert (owed.failures, owed.error, owed.next_at) == (0, "", 0)
    assert await note(stream, Delivery.DELIVERED, await undelivered(stream))


async def test_only_an_ended_stream_with_a_webhook_can_be_sent_again(client: Client) -> None:
    running, without = Stream(client, key=False), await ended(client, webhook="")
    new = running.creation(fields={"webhook": URL, "webhook_by": "key"})
    assert isinstance(await create(client, SCRIPTS, new), Created)
    for stream_id in (running.id, without.id, Stream(client, key=False).id):
        assert not await deliver_again(client, SCRIPTS, stream_id)
    assert await client.exists(DELIVERIES) == 0


async def test_the_answer_outlives_its_retention_until_it_is_delivered(client: Client) -> None:
    stream = await ended(client)
    await sweep(client)
    ttls = await run_commands(client, [("PTTL", key) for key in stream.keys[:2]])
    assert min(ttls) > SETTINGS.webhook_retry_s * 1000
    assert await drop_answer(client, SCRIPTS, stream.id) == 0
    assert await note(stream, Delivery.DELIVERED, await undelivered(stream))
    ttls = await run_commands(client, [("PTTL", key) for key in stream.keys[:2]])
    assert max(ttls) <= SETTINGS.retention_s * 1000


async def test_a_deleted_stream_owes_nothing(client: Client) -> None:
    stream = await ended(client)
    since = await undelivered(stream)
    assert await delete_stream(client, SCRIPTS, stream.id)
    assert not await note(stream, Delivery.FAILED, since)
    await sweep(client)
    assert await client.exists(state_key(stream.id)) == 0
    assert await client.zcard(stream.keys[INDEX]) == 0
    assert await list_owed(client, 10) == []


async def test_a_webhook_is_taken_once_in_a_lease(client: Client) -> None:
    await client.zadd(DELIVERIES, {"a": 1, "b": 2, "c": 4_000_000_000_000})
    take = SCRIPTS.desk.take_due(DELIVERIES, 1, 60_000)
    assert list(await run_script(client, take)) == ["a"]
    assert list(await run_script(client, take)) == ["b"]
    assert list(await run_script(client, take)) == []
