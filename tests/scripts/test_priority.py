"""Classes of the queue: interactive streams before batch ones."""

from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import requeue
from shared.broker.desk_replies import Created, Full, Held, Parked, Requeued, Taken
from shared.broker.desk_requests import Place
from shared.broker.keys import QUEUE, TURNS, WAITING, provider_limit_keys, stream_of_job
from shared.broker.overview import read_overview
from shared.broker.queue import batch_and_oldest, class_commands, queue_positions
from shared.broker.scripts import StreamScripts
from shared.rate_limits import Demand, Limits, TargetLimits
from tests.scripts.stream import ROUTES, SCRIPTS, SETTINGS, Stream
from workers.jobs.claims import claim

BATCH = {"priority": "batch"}
#: Interactive streams that may pass a batch stream.
MOST_PASSING = 9


async def created(client: Client, account: str = "a", **fields: str) -> Stream:
    stream = Stream(client, key=False)
    new = stream.creation(demand=Demand(account, Limits(), 0), fields=fields)
    begun = await run_script(client, SCRIPTS.begin(stream.id, new.fields, "ff", None, new.demand))
    assert begun is not None
    reply = await run_script(client, SCRIPTS.desk.admit(_place(stream, account, fields)))
    assert isinstance(reply, Created)
    assert [reply.queue_position] == await queue_positions(client, [stream.id], [])
    return stream


def _place(stream: Stream, account: str, fields: dict[str, str]) -> Place:
    targets = fields.get("lanes", "")
    return Place(stream.id, Demand(account, Limits(), 0), 100, targets, is_batch=fields.get("priority") == "batch")


async def order(client: Client) -> list[str]:
    return [stream_of_job(job.decode()) for job in await client.zrange(QUEUE, 0, -1)]


async def test_interactive_streams_come_first_and_each_class_is_fair(client: Client) -> None:
    batch = [await created(client, account, **BATCH) for account in ("a", "a", "b")]
    interactive = [await created(client, account) for account in ("a", "a", "b")]
    fair = [each.id for a, b, c in (interactive, batch) for each in (*sorted((a, c), key=_id), b)]
    assert [sorted(part) for part in _parts(await order(client))] == [sorted(part) for part in _parts(fair)]
    assert batch_and_oldest(await run_commands(client, class_commands([])))[0] == 3
    assert await queue_positions(client, [interactive[1].id, batch[1].id], []) == [3, 6]


def _id(stream: Stream) -> str:
    return stream.id


def _parts(ids: list[str]) -> list[list[str]]:
    """The two rounds of each class: two streams, then one."""
    return [ids[0:2], ids[2:3], ids[3:5], ids[5:6]]


async def test_one_batch_stream_comes_after_nine_interactive_ones(client: Client) -> None:
    batch = [await created(client, "b", **BATCH) for _ in range(3)]
    taken = list[str]()
    for _ in range(30):  # each stream that is taken is followed by another interactive one
        await created(client)
        taken += [stream_of_job(job.decode()) for job, _ in await client.zpopmin(QUEUE, 1)]
    at = [taken.index(each.id) for each in batch]
    for n, place in enumerate(at, start=1):  # beside the ninth, and of one second the lower id goes first
        assert (MOST_PASSING + 1) * n - 2 <= place <= (MOST_PASSING + 1) * n


async def test_a_stream_that_lost_its_place_keeps_its_class(client: Client) -> None:
    first, second = [await created(client, **BATCH) for _ in range(2)]
    interactive = await created(client)
    await client.zrem(QUEUE, *[job for job in await client.zrange(QUEUE, 0, -1) if second.id in job.decode()])
    assert await run_script(client, SCRIPTS.desk.requeue(second.id)) is Requeued.QUEUED
    assert await order(client) == [interactive.id, second.id, first.id]
    assert await run_script(client, SCRIPTS.take(second.id, "w1.x")) == Taken("")
    await client.zpopmin(QUEUE, 3)
    assert await run_script(client, SCRIPTS.desk.leave(second.id, "w1.x", "", requeue=True))
    later = await created(client)
    assert await order(client) == [later.id, second.id]


async def test_a_batch_stream_that_the_desk_lost_is_a_batch_stream_again(client: Client) -> None:
    stream = await Stream(client, key=False).create(**BATCH)
    names = [name async for name in client.scan_iter("hr:{desk}:*")]
    await client.delete(*names)
    assert await requeue(client, SCRIPTS, stream.id)
    interactive = await created(client)
    assert await order(client) == [interactive.id, stream.id]


async def test_a_batch_stream_that_the_desk_lost_while_it_ran_is_one_again(client: Client) -> None:
    stream = await Stream(client, key=False).create(**BATCH)
    holder = await stream.claim()
    await client.delete(*[name async for name in client.scan_iter("hr:{desk}:*")])
    assert (await stream.renew(holder))[1] is Held.OK
    interactive = await created(client)
    assert await run_script(client, SCRIPTS.desk.leave(stream.id, holder.token, "", requeue=True))
    assert await order(client) == [interactive.id, stream.id]


async def test_a_limit_is_given_to_interactive_streams_and_then_to_a_batch_one(client: Client) -> None:
    """A batch stream that was chosen may take the slot, though interactive ones with tokens wait."""
    limits = TargetLimits(concurrent_streams=1, tokens_per_minute=1_000_000)
    made = StreamScripts(SETTINGS, ROUTES)
    made.target_limits = {"a": limits}
    assert await claim(client, made, (await created(client, lanes="a")).id, "w1.token") is not None
    batch = await created(client, "b", lanes="a", **BATCH)
    interactive = [await created(client, lanes="a") for _ in range(11)]
    for stream in (batch, *interactive):
        assert isinstance(await run_script(client, made.take(stream.id, "w1.x")), Parked)
    await client.delete(QUEUE)
    running, parked, *_ = provider_limit_keys("a")
    assert (await queue_positions(client, [batch.id], ["a"])) == [12]
    released = list[str]()
    for _ in range(12):
        await client.delete(running)  # its stream has ended
        (stream_id,) = await run_script(client, made.desk.unpark("a", limits))
        assert await order(client) == [stream_id]
        assert isinstance(await run_script(client, made.take(stream_id, "w1.y")), Taken)
        await client.delete(QUEUE)
        released.append(stream_id)
    assert released.index(batch.id) == MOST_PASSING
    assert await client.zcard(parked) == 0


async def test_batch_streams_leave_half_of_the_queue_to_interactive_ones(client: Client) -> None:
    desk = StreamScripts(SETTINGS.model_copy(update={"queue_depth": 4}), ROUTES).desk
    for _ in range(2):
        await created(client, "b", **BATCH)
    another = Stream(client, key=False)
    assert isinstance(await run_script(client, desk.admit(_place(another, "c", BATCH))), Full)
    for _ in range(2):
        await created(client)
    assert isinstance(await run_script(client, desk.admit(_place(Stream(client, key=False), "a", {}))), Full)


async def test_gateways_without_classes_hold_nothing_up(client: Client) -> None:
    """They take a batch stream's round for the one that is taken now; the next interactive stream comes first."""
    batch = await created(client, "b", **BATCH)
    round_of_batch = int(float(await client.zscore(QUEUE, (await client.zrange(QUEUE, 0, 0))[0]))) >> 32
    account = "a"
    await client.hset(TURNS, account, str(round_of_batch))  # type: ignore[misc]
    interactive = await created(client, account)
    assert await order(client) == [interactive.id, batch.id]


async def test_operators_see_no_wait_of_batch_streams(client: Client) -> None:
    """A batch stream that waits for its provider calls for no more workers."""
    made = StreamScripts(SETTINGS, ROUTES)
    made.target_limits = {"a": TargetLimits(concurrent_streams=1)}
    batch = [await created(client, lanes="a", **BATCH) for _ in range(3)]
    assert await claim(client, made, batch[0].id, "w1.token") is not None
    assert isinstance(await run_script(client, made.take(batch[1].id, "w1.x")), Parked)
    await client.zadd(WAITING, {batch[1].id: 1000})
    seen = await read_overview(client, made.target_limits)
    assert (seen.waiting, seen.waiting_batch) == (2, 2)
    assert seen.oldest_ms is not None
    assert seen.at_ms - seen.oldest_ms < 60_000
