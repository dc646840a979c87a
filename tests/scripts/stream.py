"""A stream in Redis for the tests of the scripts, and the values that they share."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

from msgspec.structs import replace

from shared.broker import declarations
from shared.broker.client import Client, run_script
from shared.broker.cluster.shard_channels import listen_to_shards
from shared.broker.creation import NewStream, create
from shared.broker.declarations import Call, Script
from shared.broker.desk_replies import Created, Held, OtherLanes
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.keys import of_key, stream_keys, worker_channel
from shared.broker.replies import Begun, Claimed, Code, Gone, Known, LogPage, LogPosition, Lost, Unstored, WriteReply
from shared.broker.routes import BY_BUCKET, ONE_SERVER
from shared.broker.scripts import Ending, Fields, Holder, StreamScripts
from shared.broker.settlement import settle_ended
from shared.protocol.chunks import compress, decompress, leaving, length_of
from shared.protocol.ids import START, EventId, new_stream_id
from shared.protocol.lifecycle import ACTIVE, Status
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from workers.writing.place import HeldPlace

CAP, WINDOW = 6, 4
#: The leases outlive a test, however busy its machine is.
SETTINGS = Settings.model_construct(cap=CAP, window=WINDOW, lease_s=60, reader_lease_s=60)
#: On a cluster of one node a script with keys of two slots fails.
ON_CLUSTER = bool(os.environ.get("HEADRACE_SCRIPTS_ON_CLUSTER"))
ROUTES = BY_BUCKET if ON_CLUSTER else ONE_SERVER
SCRIPTS = StreamScripts(SETTINGS, ROUTES)
LEASE_MS, RETENTION_MS = round(SETTINGS.lease_s * 1000), round(SETTINGS.retention_s * 1000)
#: Longest time between a write and the look at it.
LATE_MS = 30_000
DIGEST = "ab" * 32
#: Route of all streams here; it ends the names of channels.
ROUTE = ROUTES.of(DIGEST[:2])
TOKEN = f"w1{ROUTE}.token"
ANY = Demand("an-account", Limits(), 0)
ENDING = Ending(Status.COMPLETED, {"finish_reason": "stop", "reason": "", "usage": "null"}, 0)
NOBODY_WATCHES = Ending(
    Status.CANCELLED, {"finish_reason": "cancelled", "reason": "abandoned"}, 0, only_if_unwatched=True
)
STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, REQUEST, ANSWERS, IDEMPOTENCY = range(10)
LUA = Path(str(files("shared.broker") / "lua"))


def event(seq: int, text: str = "x") -> bytes:
    return b'token {"token":"%b","token_index":%d,"n":1}' % (text.encode(), seq)


def some(first: int, last: int, text: str = "x") -> list[bytes]:
    return [event(seq, text) for seq in range(first, last + 1)]


DONE = b'done {"finish_reason":"stop","reason":null,"usage":null}'


class Stream:
    """One stream in Redis, seen from outside the scripts too."""

    def __init__(self, client: Client, *, key: bool = True) -> None:
        self.client = client
        self.id = new_stream_id(DIGEST if key or ON_CLUSTER else None)
        self.idempotency = DIGEST if key else None
        self.keys = stream_keys(self.id, self.idempotency)

    async def create(self, **fields: str | int) -> "Stream":
        assert isinstance(await create(self.client, SCRIPTS, self.creation(fields=fields)), Created)
        return self

    def creation(self, *, demand: Demand = ANY, fields: Fields | None = None) -> NewStream:
        if fields and "expected_tokens" in fields:
            demand = dataclasses.replace(demand, tokens=int(fields["expected_tokens"]))
        all_fields: Fields = {
            "principal": "p",
            "provider": "fake",
            "model": "m",
            "request": '{"messages":[]}',
            "on_disconnect": "continue",
            "grace_ms": 0,
            "body_hash": "ff",
            **({"idempotency": DIGEST} if self.idempotency else {}),
            **(fields or {}),
        }
        return NewStream(self.id, all_fields, "ff", self.idempotency, demand)

    def begin(self) -> Call[Begun | Known | Unstored]:
        """The first step of a creation."""
        new = self.creation()
        return SCRIPTS.begin(self.id, new.fields, "ff", self.idempotency, new.demand)

    async def desk(self) -> dict[str, str]:
        """Return the desk's part of the stream."""
        stored: dict[bytes, bytes] = await self.client.hgetall(of_key(self.id))  # type: ignore[misc]
        return {name.decode(): value.decode() for name, value in stored.items()}

    async def claim(self, token: str = TOKEN) -> Holder:
        await run_script(self.client, SCRIPTS.take(self.id, token))
        claimed = await run_script(self.client, SCRIPTS.claim(self.id, token))
        assert isinstance(claimed, Claimed)
        return self.holder(claimed.epoch, token)

    async def take_over(self, token: str = f"w2{ROUTE}.token") -> Holder:
        """Once the lease has passed."""
        await self.expire_lease()
        return await self.claim(token)

    async def expire_lease(self) -> None:
        await self.set(lease_until=0)
        if await self.client.exists(of_key(self.id)):
            await self.client.hset(of_key(self.id), "until", "0")  # type: ignore[misc]
        await be_well(self)

    def holder(self, epoch: int, token: str = TOKEN) -> Holder:
        return Holder(self.id, epoch, token, self.idempotency)

    async def append(self, holder: Holder, first: int, events: list[bytes], *, resend: bool = False) -> WriteReply:
        """Append as a worker does, which packs the events of a full tail and goes on."""
        while True:
            reply = await self.append_once(holder, first, events, resend=resend)
            if reply.code is not Code.UNPACKED:
                return reply
            known, log = await self.packed(), await self.log()
            upto = known + leaving(CAP, log[known:], 1)
            assert await self.pack(holder, upto) == replace(reply, code=Code.PACKED, last_seq=upto)
            events, first = events[max(0, reply.last_seq + 1 - first) :], max(first, reply.last_seq + 1)

    async def append_once(
        self, holder: Holder, first: int, events: list[bytes], *, resend: bool = False
    ) -> WriteReply:
        return await run_script(self.client, SCRIPTS.append(holder, first, events, resend=resend))

    async def pack(self, holder: Holder, upto: int, before: int | None = None) -> WriteReply:
        """Move the events up to ``upto`` into chunks. ``before``: the end of those that the caller knows of."""
        known = await self.packed() if before is None else before
        return await run_script(self.client, SCRIPTS.pack(holder, known, (await self.log())[known:upto]))

    async def finish(self, holder: Holder, first: int, events: list[bytes], ending: Ending = ENDING) -> WriteReply:
        """End the stream in both steps, as a worker does."""
        reply = await self.end(holder, first, events, ending)
        if reply.code is Code.OK:
            account = (await self.state()).get("account", "")
            owed, digest = SCRIPTS.owed(ending, reply), self.idempotency or ""
            settlement = Settlement(self.id, account, Kind.ENDED, owed, digest, ledger=ending.ledger)
            await settle_ended(self.client, SCRIPTS, settlement)
        return reply

    async def end(self, holder: Holder, first: int, events: list[bytes], ending: Ending = ENDING) -> WriteReply:
        """The first step of an ending."""
        chunks = compress([*(await self.log())[: first - 1], *events])
        return await run_script(self.client, SCRIPTS.finish(holder, first, events, chunks, ending))

    async def restore(self, holder: Holder, events: list[bytes]) -> WriteReply:
        """Restore with the fields that a worker keeps."""
        fields: Fields = {
            "principal": "p",
            "account": "an-account",
            "request": '{"messages":[]}',
            "on_disconnect": "cancel",
            "grace_ms": 0,
            "created": now_ms() - 1000,
            "attempt": 1,
            "body_hash": "ff",
        }
        return await run_script(self.client, SCRIPTS.restore(holder, events, fields=fields, body_hash="ff"))

    async def renew(self, holder: Holder, lanes: str = "") -> tuple[WriteReply, Held | OtherLanes | None]:
        """Renew the lease, and hold the place at the desk as a worker does, also if the desk has lost it."""
        reply = await run_script(self.client, SCRIPTS.renew(holder))
        if reply.code is not Code.OK:
            return reply, None
        place = await self.place(holder, lanes)
        held = await run_script(self.client, place.hold(SCRIPTS, reply))
        if held is Held.UNKNOWN:
            held = await run_script(self.client, place.hold(SCRIPTS, reply, is_lost=True))
        return reply, held

    async def place(self, holder: Holder, lanes: str = "") -> HeldPlace:
        """Return what the holder has of the stream for the desk."""
        fields = {name: value.encode() for name, value in (await self.state()).items()}
        return HeldPlace(holder, {**fields, "lane": lanes.encode()})

    async def read(self, after: EventId = START, **limits: int) -> LogPage | Gone | Lost | None:
        return await run_script(self.client, SCRIPTS.read(self.id, after, **limits))

    async def page(self, after: EventId = START, **limits: int) -> LogPage:
        page = await self.read(after, **limits)
        assert isinstance(page, LogPage)
        return page

    async def acknowledge(self, lead: EventId = START, gateway: str = "g1") -> LogPosition | None:
        return await run_script(self.client, SCRIPTS.acknowledge(self.id, gateway, lead))

    # --- past the scripts

    async def state(self) -> dict[str, str]:
        stored: dict[bytes, bytes] = await self.client.hgetall(self.keys[STATE])  # type: ignore[misc]
        return {name.decode(): value.decode() for name, value in stored.items()}

    async def set(self, **fields: str | int) -> None:
        assert await self.client.exists(self.keys[STATE])
        await self.client.hset(self.keys[STATE], mapping=fields)  # type: ignore[misc]

    async def log(self) -> list[bytes]:
        """Return the events in the log: those in chunks, and until the end those in the tail."""
        events = [event for chunk in await self.stored_log() for event in decompress(chunk)]
        assert len(events) == await self.packed()
        if (await self.state()).get("status") in ACTIVE:
            tail = await self.tail()
            assert [int(at.split("-")[1]) for at, _ in tail] == [len(events) + i + 1 for i in range(len(tail))]
            events += [event for _, event in tail]
        return events

    async def packed(self) -> int:
        """Return the number of events in chunks."""
        chunks = (await self.state()).get("chunks")
        return length_of(chunks) if chunks else 0

    async def stored_log(self) -> list[bytes]:
        return await self.client.lrange(self.keys[LOG], 0, -1)  # type: ignore[no-any-return,misc]

    async def tail(self) -> list[tuple[str, bytes]]:
        return [(at.decode(), fields[b"e"]) for at, fields in await self.client.xrange(self.keys[TAIL])]

    async def lives(self) -> list[int]:
        async with self.client.pipeline(transaction=False) as pipe:
            for key in self.keys:
                pipe.pexpiretime(key)
            return list(await pipe.execute())

    async def next_look(self) -> float | None:
        score: float | None = await self.client.zscore(self.keys[INDEX], self.id)
        return score

    async def everything(self) -> list[object]:
        return [
            await self.state(),
            await self.desk(),
            await self.log(),
            await self.tail(),
            await self.lives(),
            await self.next_look(),
        ]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def be_well(stream: Stream, **fields: str | int) -> None:
    """Write the pulse of a Redis without an outage. It is of a time to come: a test may take longer for its next step
    than a pulse may stop."""
    run_id = (await stream.client.info("server"))["run_id"]
    mapping: dict[str, str | int] = {"at": now_ms() + 60_000, "run_id": run_id, **fields}
    await stream.client.delete(stream.keys[PULSE])
    await stream.client.hset(stream.keys[PULSE], mapping=mapping)  # type: ignore[misc]
    await stream.client.expire(stream.keys[PULSE], 60)


@asynccontextmanager
async def heard(client: Client, worker: str) -> AsyncIterator[list[str]]:
    """Collect the messages published to a worker meanwhile."""
    words: list[str] = []
    async with messages_of(client, worker_channel(worker, ROUTE)) as messages:
        yield words
    words += [message.decode() for message in messages]


@asynccontextmanager
async def messages_of(client: Client, channel: str) -> AsyncIterator[list[bytes]]:
    """Collect the messages of a channel; they are there after the scope."""
    messages: list[bytes] = []
    began, ended = asyncio.Event(), asyncio.Event()

    def hear(new: list[bytes]) -> None:
        messages.extend(new)
        if b"the end" in new:
            ended.set()

    listening = asyncio.create_task(
        listen_to_shards(client.servers, [channel], hear=hear, resumed=lambda _: began.set())
    )
    async with asyncio.timeout(60):
        await began.wait()
    yield messages
    await client.execute_command("SPUBLISH", channel, "the end")  # type: ignore[no-untyped-call]
    async with asyncio.timeout(60):
        await ended.wait()
    messages.remove(b"the end")
    listening.cancel()
    with suppress(asyncio.CancelledError):
        await listening


def all_scripts() -> dict[str, Script]:
    return {script.name: script for script in vars(declarations).values() if isinstance(script, Script)}


def source(name: str) -> str:
    return (LUA / f"{name}.lua").read_text()


async def lives_as_one(stream: Stream, *, ended: bool = False) -> None:
    state, log, tail, readers, index, tombstone, _, request, _, idempotency = await stream.lives()
    assert now_ms() + RETENTION_MS - LATE_MS < state <= now_ms() + RETENTION_MS + 1000
    assert {log, readers, request, idempotency} <= {state, -2}
    if ended:  # it has no readers any more, and is half the memory
        assert now_ms() + 60_000 - LATE_MS < tail <= now_ms() + 61_000
    else:
        assert tail in {state, -2}
    assert tombstone == state + round(SETTINGS.tombstone_s * 1000)
    assert index in {state, -2}
