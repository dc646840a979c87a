"""Gaps between the two steps of a creation: what is left, and what one requeue makes of it."""

import asyncio
from typing import Any

from shared.broker.batches import batches_of
from shared.broker.client import Client, run_script
from shared.broker.creation import NewStream, create, requeue
from shared.broker.declarations import Call
from shared.broker.desk_replies import Created, Full, Limited, Requeued, Stored
from shared.broker.desk_requests import Place
from shared.broker.keys import QUEUE, of_key, principal_streams_key, stream_of_job
from shared.broker.replies import Begun
from shared.broker.scripts import StreamScripts
from shared.broker.size import size_of
from shared.rate_limits import Demand, Limits
from tests.scripts.stream import ANY, DONE, SCRIPTS, SETTINGS, STATE, Stream

LIMITED = Demand("an-account", Limits(concurrent_streams=1), 10)


async def begun(client: Client, demand: Demand = LIMITED, *, key: bool = False) -> Stream:
    """A stream whose gateway died after the first step."""
    stream = Stream(client, key=key)
    new = stream.creation(demand=demand)
    reply = await run_script(client, SCRIPTS.begin(stream.id, new.fields, "ff", stream.idempotency, demand))
    assert isinstance(reply, Begun)
    assert reply.size == size_of(new.fields), "both languages count alike"
    return stream


async def queued(client: Client) -> list[str]:
    return [stream_of_job(job_id.decode()) for job_id in await client.zrange(QUEUE, 0, -1)]


async def counted(client: Client) -> int:
    count: int = await client.zcard("hr:{desk}:streams:an-account")
    return count


async def test_a_stream_without_its_second_step_is_counted_and_queued(client: Client) -> None:
    """Whatever its account has: the client has no answer, and the stream runs."""
    await create(client, SCRIPTS, Stream(client, key=False).creation(demand=LIMITED))
    stream = await begun(client)
    assert await stream.desk() == {}
    assert await stream.next_look() is not None, "the sweep will find it"
    assert await requeue(client, SCRIPTS, stream.id) is True
    assert stream.id in await queued(client)
    assert await counted(client) == 2
    assert await requeue(client, SCRIPTS, stream.id) is False
    holder = await stream.claim()
    await stream.finish(holder, 1, [DONE])
    assert await counted(client) == 1


async def test_a_retry_makes_the_second_step(client: Client) -> None:
    stream = await begun(client, key=True)
    again = Stream(client)
    known = await create(client, SCRIPTS, again.creation(demand=LIMITED))
    assert getattr(known, "stream_id", "") == stream.id
    assert await queued(client) == [stream.id]
    assert await counted(client) == 1


async def test_a_refused_stream_whose_gateway_died_leaves_nothing(client: Client) -> None:
    await create(client, SCRIPTS, Stream(client, key=False).creation(demand=LIMITED))
    stream = await begun(client, key=True)
    place = Place(stream.id, LIMITED, 1)
    first = await run_script(client, SCRIPTS.desk.admit(place, final=()))
    assert isinstance(first, Limited)
    assert set(await stream.desk()) == {"undecided"}, "it may be admitted yet"
    refused = await run_script(client, SCRIPTS.desk.admit(place))
    assert isinstance(refused, Limited)
    assert await run_script(client, SCRIPTS.desk.requeue(stream.id)) is Requeued.REFUSED
    assert await requeue(client, SCRIPTS, stream.id) is False
    assert await client.exists(*stream.keys[:4], *stream.keys[5:6], stream.keys[-1]) == 0
    assert await stream.next_look() is None
    assert await client.zscore(principal_streams_key("p"), stream.id) is None


async def test_all_requests_with_a_key_have_one_verdict(client: Client) -> None:
    stream = await begun(client, Demand("an-account", Limits(requests_per_minute=1), 0), key=True)
    place = Place(stream.id, Demand("an-account", Limits(requests_per_minute=1), 0), 5)
    replies = [await run_script(client, SCRIPTS.desk.admit(place)) for _ in range(3)]
    assert all(isinstance(reply, Created) for reply in replies)
    assert [reply.used.requests for reply in replies if isinstance(reply, Created) and reply.used] == [1, 1, 1]
    full = StreamScripts(SETTINGS.model_copy(update={"queue_depth": 0})).desk
    other = await begun(client, Demand("another", Limits(), 0))
    place = Place(other.id, Demand("another", Limits(), 0), 5)
    assert await run_script(client, full.admit(place)) == Full(1)
    assert await run_script(client, SCRIPTS.desk.admit(place)) == Full(1), "the first verdict stands"


async def test_a_stream_without_room_waits_for_the_last_try(client: Client) -> None:
    stream = Stream(client, key=False)
    new = stream.creation(demand=Demand("an-account", Limits(stored_bytes=1), 0))
    assert isinstance(await create(client, SCRIPTS, new, is_final=False), Stored)
    assert await client.exists(stream.keys[STATE]) == 1
    assert isinstance(await create(client, SCRIPTS, new), Stored)
    assert await client.exists(stream.keys[STATE]) == await client.exists(of_key(stream.id)) == 0


async def test_requests_at_once_never_exceed_a_limit(client: Client) -> None:
    """Sixty of one account with ten slots."""
    demand = Demand("an-account", Limits(concurrent_streams=10), 0)
    news: list[NewStream] = [Stream(client, key=False).creation(demand=demand) for _ in range(60)]
    replies = await asyncio.gather(*(create(client, SCRIPTS, new, is_final=False) for new in news))
    assert sum(isinstance(reply, Created) for reply in replies) == 10
    assert len(await queued(client)) == await counted(client) == 10


async def test_a_stream_is_queued_only_with_its_state_while_redis_lacks_scripts(client: Client) -> None:
    """The sweep has loaded `admit` into a Redis that restarted; then both steps of another stream come at once."""
    lost = await begun(client)
    await client.script_flush()
    assert await requeue(client, SCRIPTS, lost.id)
    stream = Stream(client, key=False)
    steps: list[Call[Any]] = [stream.begin(), SCRIPTS.desk.admit(Place(stream.id, ANY, 5000))]
    await client.exchange([batch.command() for batch in batches_of(steps)])
    assert (stream.id in await queued(client)) == bool(await stream.state())
