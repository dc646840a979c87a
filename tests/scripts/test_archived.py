"""Streams in Redis that wait for the archive: they are kept until they are there, with their requests."""

from functools import partial

import pytest
from pydantic import SecretStr

from shared.broker.client import Client, run_commands, run_script
from shared.broker.creation import create, requeue
from shared.broker.desk_replies import Created
from shared.broker.due_queues import enqueue_again
from shared.broker.keys import UNARCHIVED, account_keys
from shared.broker.outbox import settle_ended_streams
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.scripts import Archived, Delivery, StreamScripts
from shared.broker.settlement import read_owed, settle_ended
from shared.broker.sweep import Sweep
from tests.scripts.stream import (
    DONE,
    ENDING,
    INDEX,
    LATE_MS,
    LOG,
    REQUEST,
    RETENTION_MS,
    ROUTES,
    SCRIPTS,
    SETTINGS,
    STATE,
    TOMBSTONE,
    Stream,
    now_ms,
    some,
)

_DAY_MS = 86_400_000
_ARCHIVES = StreamScripts(SETTINGS.model_copy(update={"archive_url": SecretStr("sqlite:///a")}), ROUTES)
_DROPS = StreamScripts(SETTINGS.model_copy(update={"retention_min_s": 0}), ROUTES)
_WEBHOOK = {"webhook": "https://hooks.example/a", "webhook_by": "request"}
_LARGE = "x" * 600_000


async def ended(client: Client, request: str = '{"messages":[]}', **fields: str) -> Stream:
    """A stream after the first step of its ending; its worker has died."""
    stream = Stream(client)
    new = stream.creation(fields={"archive": "1", "request": request, **fields})
    rest, pieces = SCRIPTS.split_request(stream.id, new.fields)
    for piece in pieces:
        await run_script(client, piece)
    new = stream.creation(fields={**rest, **({"request": ""} if pieces else {})})
    assert isinstance(await create(client, SCRIPTS, new), Created)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.end(holder, 3, [DONE], ENDING)
    return stream


async def mark(stream: Stream) -> str:
    return (await stream.state()).get("unarchived", "")


async def note(stream: Stream, unarchived: str | None = None) -> Archived:
    since = unarchived if unarchived is not None else await mark(stream)
    return await run_script(stream.client, SCRIPTS.archived(stream.id, stream.idempotency, since))


async def deliver(stream: Stream, outcome: Delivery) -> bool:
    since = (await stream.state())["undelivered"]
    return await run_script(stream.client, SCRIPTS.deliver(stream.id, stream.idempotency, outcome, since))


async def settle(stream: Stream) -> None:
    await settle_ended_streams(stream.client, SCRIPTS, [stream.id])


async def life_ms(stream: Stream, key: int = STATE) -> int:
    at = (await stream.lives())[key]
    return at - now_ms() if at > 0 else at


async def stored(stream: Stream) -> tuple[int, int]:
    """The stream's bytes as its account is charged, and as its keys take them."""
    key = account_keys("an-account")["stored"]
    (charged,) = await run_commands(stream.client, [("HGET", key, stream.id)])
    state = await stream.state()
    taken = 5120 + len(state.get("request", "")) + int(state.get("request_bytes", 0))
    return int(charged), taken + sum(map(len, await stream.stored_log()))


@pytest.mark.parametrize("request_text", ['{"messages":[]}', _LARGE], ids=["small", "large"])
async def test_the_request_stays_until_the_stream_is_archived(client: Client, request_text: str) -> None:
    stream = await ended(client, request_text)
    assert await life_ms(stream) > 29 * _DAY_MS
    await settle(stream)
    charged, taken = await stored(stream)
    assert charged == taken > 5120 + len(request_text)
    assert await note(stream) is Archived.OWED
    await settle(stream)
    charged, taken = await stored(stream)
    assert charged == taken < 5400
    assert not {"request", "request_bytes", "unarchived", "owed", "counted"} & (await stream.state()).keys()
    assert (await stream.lives())[REQUEST] == -2
    for key in (STATE, LOG):
        assert 0 < await life_ms(stream, key) <= RETENTION_MS
    assert await life_ms(stream, TOMBSTONE) <= RETENTION_MS + SETTINGS.tombstone_s * 1000
    assert await stream.next_look() is None
    (encoding,) = await run_commands(client, [("OBJECT", "ENCODING", stream.keys[STATE])])
    assert encoding == b"listpack"


async def test_a_stream_that_can_be_continued_keeps_its_request(client: Client) -> None:
    stream = await ended(client, follow_up="0")
    await settle(stream)
    assert await note(stream) is Archived.ARCHIVED
    assert (await stream.state())["request"] == '{"messages":[]}'
    assert await stream.next_look() is None
    assert 0 < await life_ms(stream) <= RETENTION_MS


async def test_a_stream_without_an_archive_is_not_kept(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.finish(holder, 3, [DONE])
    assert await mark(stream) == ""
    assert await stream.next_look() is None
    assert await client.exists(UNARCHIVED) == 0
    assert await life_ms(stream) <= RETENTION_MS
    assert await note(stream, "1") is Archived.OTHER


async def test_the_sweep_queues_what_a_lost_process_or_desk_owes(client: Client) -> None:
    stream = await ended(client)
    sweep = Sweep(
        client,
        SCRIPTS,
        SETTINGS,
        own_id="g1",
        requeue=partial(requeue, client, SCRIPTS),
        count=lambda _: None,
    )
    for _ in range(2):  # the second time, when it is settled
        await client.zadd(stream.keys[INDEX], {stream.id: 1})
        await sweep.sweep()
        assert await client.zrange(UNARCHIVED, 0, -1) == [stream.id.encode()]
        assert await stream.next_look() is not None
        await client.delete(UNARCHIVED)
    assert "owed" not in await stream.state()


async def test_the_longer_a_stream_waits_the_rarer_it_is_looked_at_and_it_lives_on(client: Client) -> None:
    stream = await ended(client)
    before = now_ms()
    await settle(stream)
    assert before + 30_000 <= (await stream.next_look() or 0) <= now_ms() + 30_000
    before = now_ms()
    await stream.set(unarchived=before - 600_000)
    await run_commands(client, [("PEXPIRE", key, LATE_MS) for key in stream.keys])
    await settle(stream)
    assert before + 600_000 <= (await stream.next_look() or 0) <= 2 * now_ms() - before + 600_000
    assert min([await life_ms(stream, key) for key in (STATE, LOG, INDEX)]) > 29 * _DAY_MS
    before = now_ms()
    await stream.set(unarchived=before - 10 * _DAY_MS)
    await settle(stream)
    assert before + 3_600_000 <= (await stream.next_look() or 0) <= now_ms() + 3_600_000


async def test_an_ending_that_is_not_settled_is_counted_once_when_it_is_archived_first(client: Client) -> None:
    stream = await ended(client)
    before = (await stream.state())["owed"]
    assert await note(stream) is Archived.OWED
    after = (await stream.state())["owed"]
    assert before.split()[0] == after.split()[0]
    assert int(after.split()[1]) == int(before.split()[1]) - len('{"messages":[]}')
    assert not await run_script(client, SCRIPTS.paid(stream.id, before))
    await settle(stream)
    assert await stream.next_look() is None
    assert (await stored(stream))[0] == int(after.split()[1])


async def test_a_pending_stream_is_not_dropped(client: Client) -> None:
    stream = await ended(client)
    await settle(stream)
    assert await drop_answer(client, _DROPS, stream.id) == 0
    assert await note(stream) is Archived.OWED
    await settle(stream)
    assert await drop_answer(client, _DROPS, stream.id) > 0


async def test_only_the_latest_ending_is_noted(client: Client) -> None:
    stream = await ended(client)
    since = await mark(stream)
    await stream.set(unarchived=int(since) + 1)  # Redis had lost the first ending
    assert await note(stream, since) is Archived.OTHER
    assert await mark(stream) == str(int(since) + 1)
    assert await note(stream) is Archived.OWED
    assert await note(stream, since) is Archived.OTHER


async def test_a_deleted_stream_must_not_be_archived(client: Client) -> None:
    stream = await ended(client)
    since = await mark(stream)
    assert await delete_stream(client, _ARCHIVES, stream.id)
    assert await note(stream, since) is Archived.DELETED
    assert await client.zrange(UNARCHIVED, 0, -1) == [stream.id.encode()], "the archive may have it already"
    await enqueue_again(client, [stream.id])
    assert await stream.next_look() is None


async def test_a_stream_of_which_nothing_is_left_is_gone(client: Client) -> None:
    assert await note(Stream(client), "1") is Archived.GONE


async def test_a_stream_is_forgotten_at_once_if_its_retention_has_passed_meanwhile(client: Client) -> None:
    stream = await ended(client)
    await settle(stream)
    await stream.set(ended=now_ms() - RETENTION_MS - 1000)
    assert await note(stream) is Archived.ARCHIVED
    assert [await client.exists(key) for key in stream.keys[:2]] == [0, 0]
    assert await stream.next_look() is None
    assert await life_ms(stream, TOMBSTONE) > 0


@pytest.mark.parametrize("outcome", [Delivery.DELIVERED, Delivery.GIVEN_UP])
async def test_a_delivered_stream_waits_for_the_archive(client: Client, outcome: Delivery) -> None:
    stream = await ended(client, **_WEBHOOK)
    await settle(stream)
    assert await deliver(stream, outcome)
    assert await stream.next_look() is not None
    assert await life_ms(stream) > 29 * _DAY_MS
    assert await note(stream) is Archived.OWED
    await settle(stream)
    assert await stream.next_look() is None
    assert RETENTION_MS - 60_000 < await life_ms(stream) <= RETENTION_MS


@pytest.mark.parametrize("outcome", [Delivery.DELIVERED, Delivery.GIVEN_UP])
async def test_an_archived_stream_waits_for_its_webhook(client: Client, outcome: Delivery) -> None:
    stream = await ended(client, **_WEBHOOK)
    await settle(stream)
    assert await note(stream) is Archived.OWED
    await settle(stream)
    assert await stream.next_look() is not None
    assert RETENTION_MS < await life_ms(stream) <= SETTINGS.webhook_retry_s * 1000 + 3_600_000
    assert await drop_answer(client, _DROPS, stream.id) == 0
    assert await deliver(stream, outcome)
    assert await stream.next_look() is None
    assert RETENTION_MS - 60_000 < await life_ms(stream) <= RETENTION_MS


async def test_a_late_settlement_does_not_count_the_request_again(client: Client) -> None:
    stream = await ended(client)
    (late,) = await read_owed(client, [stream.id])
    await settle(stream)
    assert await note(stream) is Archived.OWED
    await settle(stream)
    charged, taken = await stored(stream)
    await settle_ended(client, SCRIPTS, late)
    assert (await stored(stream))[0] == charged == taken
