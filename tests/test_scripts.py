"""Each script on a real Redis: its replies, its writes, and the expiry of its keys (docs/protocol-rules.md)."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from arq.constants import job_key_prefix

from shared.broker import declarations
from shared.broker.catalog import ProviderModels, publish
from shared.broker.client import Client, connect, run_script, run_scripts
from shared.broker.declarations import STREAM_KEYS, Call, Script
from shared.broker.ending import restorable
from shared.broker.keys import breaker_key, idempotency_entry_key, job_key, stream_keys, sweep_keys, worker_channel
from shared.broker.overview import MOST_LIVE, read_overview
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.replies import (
    Claimed,
    Code,
    Created,
    Due,
    Full,
    Gone,
    Known,
    Limited,
    LogPage,
    LogPosition,
    Lost,
    Refused,
    WriteReply,
    parse_claim,
    parse_write,
)
from shared.broker.scripts import Ending, Fields, Holder, StreamScripts, enqueue
from shared.broker.timeline import read_timeline
from shared.errors import BrokerUnavailable
from shared.metrics import ILLEGAL_TRANSITIONS
from shared.protocol.ids import START, EventId, new_stream_id
from shared.protocol.lifecycle import ACTIVE, STEPS, TERMINAL, Status, froms_and_tos, is_allowed
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker

CAP, WINDOW = 6, 4
SETTINGS = Settings.model_construct(cap=CAP, window=WINDOW)
SCRIPTS = StreamScripts(SETTINGS)
LEASE_MS, RETENTION_MS = round(SETTINGS.lease_s * 1000), round(SETTINGS.retention_s * 1000)
DIGEST = "ab" * 32
TOKEN = "w1.token"
ANY = Demand("an-account", Limits(), 0)
ENDING = Ending(Status.COMPLETED, {"finish_reason": "stop", "reason": "", "usage": "null"}, 0)
NOBODY_WATCHES = Ending(
    Status.CANCELLED, {"finish_reason": "cancelled", "reason": "abandoned"}, 0, only_if_unwatched=True
)
STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, IDEMPOTENCY = range(8)
LUA = Path(str(files("shared.broker") / "lua"))


@pytest.fixture(scope="session")
async def scripts_broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("scripts"))
    await broker.start()
    yield broker
    broker.kill()


@pytest.fixture
async def client(scripts_broker: Broker) -> AsyncIterator[Client]:
    """A client of an empty Redis, in which no test may leave a key without expiry."""
    client = connect(scripts_broker.url)
    await client.flushall()
    yield client
    assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []
    await client.aclose()


def event(seq: int, text: str = "x") -> bytes:
    return b'token {"token":"%b","token_index":%d,"n":1}' % (text.encode(), seq)


def some(first: int, last: int, text: str = "x") -> list[bytes]:
    return [event(seq, text) for seq in range(first, last + 1)]


DONE = b'done {"finish_reason":"stop","reason":null,"usage":null}'


class Stream:
    """One stream in Redis, seen from outside the scripts too."""

    def __init__(self, client: Client, *, key: bool = True) -> None:
        self.client = client
        self.id = new_stream_id(DIGEST if key else None)
        self.idempotency = DIGEST if key else None
        self.keys = stream_keys(self.id, self.idempotency)

    async def create(self, **fields: str | int) -> "Stream":
        assert isinstance(await run_script(self.client, self.creation(fields=fields)), Created)
        return self

    def creation(
        self, *, demand: Demand = ANY, fields: Fields | None = None
    ) -> Call[Created | Known | Limited | Full]:
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
        return SCRIPTS.create(
            self.id, fields=all_fields, body_hash="ff", idempotency=self.idempotency, demand=demand, job=b"job"
        )

    async def claim(self, token: str = TOKEN) -> Holder:
        claimed = await run_script(self.client, SCRIPTS.claim(self.id, token))
        assert isinstance(claimed, Claimed)
        return self.holder(claimed.epoch, token)

    async def take_over(self, token: str = "w2.token") -> Holder:
        """Once the lease has passed."""
        await self.set(lease_until=0)
        await be_well(self)
        return await self.claim(token)

    def holder(self, epoch: int, token: str = TOKEN) -> Holder:
        return Holder(self.id, epoch, token, self.idempotency)

    async def append(self, holder: Holder, first: int, events: list[bytes], *, resend: bool = False) -> WriteReply:
        return await run_script(self.client, SCRIPTS.append(holder, first, events, resend=resend))

    async def finish(self, holder: Holder, first: int, events: list[bytes], ending: Ending = ENDING) -> WriteReply:
        return await run_script(self.client, SCRIPTS.finish(holder, first, events, ending))

    async def restore(self, holder: Holder, events: list[bytes]) -> WriteReply:
        """Restore with the fields that a worker keeps."""
        fields: Fields = {
            "principal": "p",
            "request": '{"messages":[]}',
            "on_disconnect": "cancel",
            "grace_ms": 0,
            "created": now_ms() - 1000,
            "attempt": 1,
            "body_hash": "ff",
        }
        return await run_script(self.client, SCRIPTS.restore(holder, events, fields=fields, body_hash="ff"))

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
        return [await self.state(), await self.log(), await self.tail(), await self.lives(), await self.next_look()]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def be_well(stream: Stream, **fields: str | int) -> None:
    """Write the pulse of a Redis without an outage."""
    run_id = (await stream.client.info("server"))["run_id"]
    mapping: dict[str, str | int] = {"at": now_ms(), "run_id": run_id, **fields}
    await stream.client.delete(stream.keys[PULSE])
    await stream.client.hset(stream.keys[PULSE], mapping=mapping)  # type: ignore[misc]
    await stream.client.expire(stream.keys[PULSE], 60)


@asynccontextmanager
async def heard(client: Client, worker: str) -> AsyncIterator[list[str]]:
    """Collect the messages published to a worker meanwhile."""
    words: list[str] = []
    async with client.pubsub() as channel:
        await channel.subscribe(worker_channel(worker))
        await channel.get_message(timeout=5)
        yield words
        await client.publish(worker_channel(worker), "the end")
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is None or message["data"] == b"the end":
                return
            words.append(message["data"].decode())


# --- the files


def all_scripts() -> dict[str, Script]:
    return {script.name: script for script in vars(declarations).values() if isinstance(script, Script)}


def test_every_file_is_a_script() -> None:
    assert {path.stem for path in LUA.glob("[a-z]*.lua")} == set(all_scripts())
    assert {path.suffix for path in LUA.iterdir()} == {".lua"}


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("[a-z]*.lua")))
def test_a_script_and_its_declaration_agree(name: str) -> None:
    """The header of the file, the names its code uses and the declaration in scripts.py are the same."""
    script, text = all_scripts()[name], (LUA / f"{name}.lua").read_text()
    first, *lines = text.splitlines()
    assert first.startswith("#!lua")
    assert script.source.startswith(first + "\n")
    assert script.source.count("#!lua") == 1
    assert re.search(r"^-- .*\b[Rr]epl(y|ies)", text, re.M), "no word on the reply"
    keys = named_in(lines, "KEYS")
    if keys[0] == "1-8 stream":
        keys[:1] = [f"{i} {key}" for i, key in enumerate(STREAM_KEYS, 1)]
    assert keys == [f"{i} {key}" for i, key in enumerate(script.keys, 1)]
    fixed = [arg for arg in script.args if not arg.endswith("…")]
    tails = [*script.args[len(fixed) :]]
    numbered = [f"{i} {arg}" for i, arg in enumerate([*fixed, *tails[:1]], 1)]
    assert named_in(lines, "ARGV") == [*numbered, *tails[1:]]
    assert local_names(script.source, "ARGV", 1, len(fixed)) == fixed
    assert not re.search(r"KEYS\[\d", re.sub(r"local [A-Z_]+ = KEYS\[\d+\]\n", "", text)), "a key without a name"
    assert not re.search(r"ARGV\[\d", re.sub(r"local \w+ = ARGV\[1\]\n", "", text)), "an argument without a name"


def test_the_keys_of_lua_are_those_of_the_declarations() -> None:
    assert [
        name.lower() for name in re.findall(r"^local (.*) = unpack\(KEYS\)$", source("_stream"), re.M)[0].split(", ")
    ] == [*STREAM_KEYS]
    for script in all_scripts().values():
        after = len(script.keys) - len(script.own_keys)
        for names, begin, end in re.findall(
            r"^local ([A-Z_, ]+) = unpack\(KEYS, (\d+), (\d+)\)$", script.source, re.M
        ):
            of_declaration = script.own_keys[int(begin) - after - 1 : int(end) - after]
            assert tuple(name.lower() for name in names.split(", ")) == of_declaration, script.name
        for name, at in re.findall(r"^local ([A-Z_]+) = KEYS\[(\d+)\]$", script.source, re.M):
            assert script.own_keys[int(at) - after - 1] == name.lower(), script.name


def test_a_call_takes_just_the_declared_arguments() -> None:
    script = all_scripts()["release"]
    assert script.call([], bool, holder="w1.x", epoch=7).arguments == [7, "w1.x"]
    for arguments in ({"epoch": 7}, {"epoch": 7, "holder": "w1.x", "cap": 1}):
        with pytest.raises(TypeError):
            script.call([], bool, **arguments)
    with pytest.raises(KeyError):
        script.call([], bool, epoch=7, token="w1.x")


def test_the_positional_append_is_as_declared() -> None:
    holder = Holder(new_stream_id(), 7, "w1.x", None)
    values = {"epoch": 7, "holder": "w1.x", "first_seq": 3, "window": WINDOW, "cap": CAP, "events": [b"a", b"b"]}
    call = all_scripts()["append"].call(holder.keys, parse_write, **values)
    assert SCRIPTS.append(holder, 3, [b"a", b"b"]) == call


def source(name: str) -> str:
    return (LUA / f"{name}.lua").read_text()


def named_in(lines: list[str], table: str) -> list[str]:
    """The items of a header's list: `1 epoch`, `6 events…`; remarks in parentheses are left out."""
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"-- {table}: "))
    end = next(i for i in range(begin + 1, len(lines)) if not lines[i].startswith("--  "))
    text = " ".join(line.removeprefix("--").strip() for line in lines[begin:end]).removeprefix(f"{table}: ")
    while (plain := re.sub(r"\s*\([^()]*\)", "", text)) != text:
        text = plain
    return text.split(", ")


def local_names(source: str, table: str, begin: int, end: int) -> list[str]:
    """The names that the code gives to these arguments."""
    if end == 1 and (match := re.search(rf"^local (\w+) = {table}\[1\]$", source, re.M)):
        return [match[1]]
    match = re.search(rf"^local ([a-z_,\s]+?) =\s+unpack\({table}, {begin}, {end}\)$", source, re.M)
    assert match is not None, f"no unpack({table}, {begin}, {end})"
    return re.split(r",\s+", match[1])


def test_which_scripts_run_when_redis_is_full() -> None:
    """Those that end, release or only look; not those that bring something new (rule S10)."""
    flags = {
        name: script.source.partition("\n")[0].removeprefix("#!lua").strip() for name, script in all_scripts().items()
    }
    assert {name for name, flag in flags.items() if flag == "flags=allow-oom"} == {
        *("renew", "finish", "cancel", "delete", "acknowledge", "release", "sweep"),
    }
    assert {name for name, flag in flags.items() if flag == "flags=no-writes"} == {"read"}
    assert {name for name, flag in flags.items() if flag == ""} == {
        *("create", "claim", "append", "restore", "enqueue", "unpark", "note"),
    }


def test_the_amount_of_lua_is_limited() -> None:
    """Lines of code: for streams, for limits and the queue, and for operators."""
    lines = {
        path.stem: sum(bool(line) and not line.startswith("--") for line in path.read_text().splitlines())
        for path in LUA.glob("*.lua")
    }
    operators = sum(lines.pop(name) for name in ("_endings", "note"))
    admission = sum(lines.pop(name) for name in ("_rate_limits", "_queue", "_provider_limit", "create", "unpark"))
    assert sum(lines.values()) < 360
    assert operators < 30
    assert admission < 180


def test_lua_and_the_lifecycle_agree_on_what_is_active() -> None:
    line = next(x for x in (LUA / "_stream.lua").read_text().splitlines() if x.startswith("local function active"))
    assert {status for status in Status if f"'{status}'" in line} == ACTIVE


# --- the table of transitions


@pytest.mark.parametrize("name", sorted(name for name, script in all_scripts().items() if "state" in script.keys))
def test_the_header_names_the_transitions_of_the_table(name: str) -> None:
    (line,) = re.findall(r"^-- Status: (.*)$", source(name), re.M)
    before, after = froms_and_tos(name)
    told = [", ".join(status or "none" for status in statuses) for statuses in (before, after)]
    assert line == (" → ".join(told) if name in STEPS else "unchanged")


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("name", sorted(STEPS))
async def test_a_script_writes_just_where_the_table_allows_it(
    client: Client, name: str, status: Status | None
) -> None:
    stream = Stream(client)
    holder = await brought_to(stream, status)
    before = await stream.everything()
    assert (await stream.state()).get("status") == status
    for call in calls_of(name, stream, holder):
        await run_script(client, call)
        after = await stream.everything()
        status_after = (await stream.state()).get("status")
        assert is_allowed(name, status, None if status_after is None else Status(status_after))
        assert (after != before) == (status in froms_and_tos(name)[0])
        if after != before:
            await client.flushall()
            await brought_to(stream, status)


async def brought_to(stream: Stream, status: Status | None) -> Holder:
    """Bring a stream to a status, without a live lease, and return its holder."""
    holder = stream.holder(7)
    if status is None:
        return holder
    await stream.create()
    if status is not Status.QUEUED:
        holder = await stream.claim()
        await stream.append(holder, 1, some(1, 1))
    if status in TERMINAL:
        await stream.finish(holder, 2, [DONE], replace(ENDING, status=status))
    elif status is Status.RUNNING:
        await stream.set(lease_until=0)
    await be_well(stream)
    return holder


def calls_of(name: str, stream: Stream, holder: Holder) -> list[Call[Any]]:
    """Calls of a script as the holder, or one of a later epoch, would make them."""
    fields: Fields = {"principal": "p", "on_disconnect": "continue", "grace_ms": 0, "created": 1, "attempt": 1}
    later = replace(holder, epoch=holder.epoch + 1)
    calls: dict[str, list[Call[Any]]] = {
        "create": [stream.creation()],
        "claim": [SCRIPTS.claim(stream.id, "w2.token")],
        "append": [SCRIPTS.append(holder, 2, some(2, 2)), SCRIPTS.append(holder, 1, some(1, 2), resend=True)],
        "finish": [SCRIPTS.finish(holder, 2, [DONE], replace(ENDING, status=status)) for status in sorted(TERMINAL)],
        "restore": [SCRIPTS.restore(later, some(1, 2), fields=fields, body_hash="ff")],
        "renew": [SCRIPTS.renew(holder)],
        "release": [SCRIPTS.release(holder)],
        "delete": [SCRIPTS.delete(stream.id, "p")],
    }
    return calls[name]


@pytest.mark.parametrize("name", ["read", "acknowledge"])
async def test_an_illegal_status_is_counted_and_taken_for_an_outage(
    client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream, other = await Stream(client).create(), await Stream(client, key=False).create()
    await stream.set(status="paused")
    calls: dict[str, Call[Any]] = {
        "read": SCRIPTS.read(stream.id, START),
        "acknowledge": SCRIPTS.acknowledge(stream.id, "g1", START),
    }
    count = ILLEGAL_TRANSITIONS.labels(name)._value
    before = count.get()
    illegal, page = await run_scripts(client, [calls[name], SCRIPTS.read(other.id, START)])
    assert isinstance(illegal, BrokerUnavailable)
    assert isinstance(page, LogPage), "one reply concerns no other"
    assert count.get() == before + 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["illegal transition"]


def test_a_claim_leaves_a_running_stream() -> None:
    with pytest.raises(BrokerUnavailable):
        parse_claim([b"CLAIMED", 7, 1, 0, b"", [b"status", b"completed"]])


# --- append: the answers, in their order


async def test_append_to_a_missing_stream(client: Client) -> None:
    stream = Stream(client)
    assert await stream.append(stream.holder(1), 1, some(1, 1)) == WriteReply(Code.MISSING, 0, "", False, 0)
    assert await client.dbsize() == 0


async def test_append_to_an_ended_stream(client: Client) -> None:
    """Every caller gets the same reply, so a worker recognises its own ending if the first reply was lost."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    ending = Ending(Status.CANCELLED, {"finish_reason": "cancelled", "reason": "cancelled"}, 0)
    await stream.finish(holder, 3, [DONE], ending)
    before = await stream.everything()
    closed = WriteReply(Code.CLOSED, 3, "cancelled", False, holder.epoch)
    for epoch, token, first in [
        (holder.epoch, TOKEN, 3),
        (holder.epoch, "w2.x", 99),
        (holder.epoch - 1, TOKEN, 1),
        (holder.epoch + 1, TOKEN, 1),
    ]:
        assert await stream.append(stream.holder(epoch, token), first, [DONE]) == closed
    assert await stream.finish(holder, 3, [DONE]) == closed
    assert await run_script(client, SCRIPTS.renew(holder)) == closed
    assert await stream.everything() == before


async def test_append_to_a_deleted_stream(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await run_script(client, SCRIPTS.delete(stream.id, "p"))
    assert await stream.append(holder, 1, some(1, 1)) == WriteReply(Code.CLOSED, 0, "deleted", False, 0)
    assert not await client.exists(*stream.keys[:READERS])


async def test_append_by_a_superseded_holder(client: Client) -> None:
    """A higher epoch, or another holder of the same epoch, is checked before gaps."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2))
    new = await stream.take_over()
    before = await stream.everything()
    for holder in (old, stream.holder(new.epoch, TOKEN), stream.holder(old.epoch, new.token)):
        for first in (1, 3, 99):
            reply = await stream.append(holder, first, some(1, 1))
            assert (reply.code, reply.epoch) == (Code.SUPERSEDED, new.epoch)
    assert await stream.everything() == before


async def test_append_when_redis_is_behind(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    before = await stream.everything()
    for token in (TOKEN, "w2.x"):
        reply = await stream.append(stream.holder(holder.epoch + 1, token), 99, some(1, 1))
        assert (reply.code, reply.epoch) == (Code.BEHIND, holder.epoch)
    assert await stream.everything() == before


async def test_append_over_a_gap(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert (await stream.append(holder, 2, some(2, 2))).last_seq == 0
    await stream.append(holder, 1, some(1, 2))
    before = await stream.everything()
    for first in (4, 9):
        reply = await stream.append(holder, first, some(first, first))
        assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert await stream.everything() == before


async def test_append(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert await stream.append(holder, 1, some(1, 2)) == WriteReply(Code.OK, 2, "", False, holder.epoch)
    assert await stream.append(holder, 3, some(3, 3)) == WriteReply(Code.OK, 3, "", False, holder.epoch)
    assert await stream.log() == some(1, 3)
    assert await stream.tail() == [(f"{holder.epoch}-{seq}", event(seq)) for seq in (1, 2, 3)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 3), (2, 3), (1, 5), (3, 5), (4, 5)])
async def test_logged_events_are_skipped_by_append(client: Client, first: int, last: int) -> None:
    """The first word stands: an event once sent is frozen."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    reply = await stream.append(holder, first, some(first, last, "again"), resend=True)
    assert (reply.code, reply.last_seq) == (Code.OK, max(3, last))
    stored = some(1, 3) + some(4, last, "again")
    assert await stream.log() == stored
    assert await stream.tail() == [(f"{holder.epoch}-{i + 1}", stored[i]) for i in range(len(stored))]


async def test_the_tail_is_capped_and_the_log_is_not(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    await stream.append(holder, 4, some(4, 25))
    await stream.acknowledge(EventId(holder.epoch, 25))
    for seq in range(26, 60):
        await stream.append(holder, seq, some(seq, seq))
        await stream.acknowledge(EventId(holder.epoch, seq))
        kept = [at for at, _ in await stream.tail()]
        assert CAP * 3 // 4 <= len(kept) <= CAP
        assert kept == [f"{holder.epoch}-{n}" for n in range(seq + 1 - len(kept), seq + 1)]
    assert await stream.log() == some(1, 59)


async def test_the_tail_is_added_to_only_above_its_top(client: Client) -> None:
    """A script does not stop half-way if the tail has outlived the rest."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 4))
    await client.delete(stream.keys[STATE], stream.keys[LOG])
    assert (await stream.restore(holder, some(1, 2))).code is Code.OK
    assert await stream.log() == some(1, 2)
    assert (await stream.append(holder, 3, some(3, 5), resend=True)).code is Code.OK
    assert await stream.log() == some(1, 5)
    assert [at for at, _ in await stream.tail()] == [f"{holder.epoch}-{seq}" for seq in range(1, 6)]


async def test_an_append_larger_than_lua_can_unpack(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert (await stream.append(holder, 1, some(1, 9001))).last_seq == 9001
    assert await stream.log() == some(1, 9001)
    await client.flushall()
    assert (await stream.restore(holder, some(1, 9001))).last_seq == 9001
    assert (await stream.finish(holder, 9002, [*some(9002, 18_100), DONE])).last_seq == 18_101
    assert await stream.log() == [*some(1, 18_100), DONE]


async def test_every_reply_carries_cancel_and_watched(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    assert not (await stream.append(holder, 1, some(1, 1))).watched
    await stream.acknowledge()
    assert (await run_script(client, SCRIPTS.renew(holder))).watched
    await run_script(client, SCRIPTS.cancel(stream.id, "cancelled"))
    for reply in (await stream.append(holder, 2, some(2, 2)), await run_script(client, SCRIPTS.renew(holder))):
        assert (reply.code, reply.signal, reply.watched) == (Code.OK, "cancelled", True)


# --- window


@pytest.mark.parametrize(
    ("on_disconnect", "who", "taken"),
    [
        ("cancel", "nobody", WINDOW),
        ("cancel", "live", WINDOW),
        ("cancel", "polled", WINDOW),
        ("continue", "nobody", WINDOW + 3),
        ("continue", "live", WINDOW),
        ("continue", "polled", WINDOW + 3),
    ],
)
async def test_streams_that_the_window_holds(client: Client, on_disconnect: str, who: str, taken: int) -> None:
    stream = await Stream(client).create(on_disconnect=on_disconnect, grace_ms=60_000)
    holder = await stream.claim()
    if who != "nobody":
        await stream.acknowledge(gateway="g1" if who == "live" else "")
    reply = await stream.append(holder, 1, some(1, WINDOW + 3))
    assert (reply.code, reply.last_seq) == (Code.OK if taken > WINDOW else Code.FULL, taken)
    assert await stream.log() == some(1, taken)


async def test_the_window_holds_event_by_event_too(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    await stream.acknowledge()
    codes = [(await stream.append(holder, seq, [event(seq)])).code for seq in range(1, WINDOW + 2)]
    assert codes == [Code.OK] * WINDOW + [Code.FULL]
    await stream.acknowledge(EventId(holder.epoch, 1))
    assert (await stream.append(holder, WINDOW + 1, [event(WINDOW + 1)])).code is Code.OK
    assert await stream.log() == some(1, WINDOW + 1)


async def test_the_log_of_another_epoch_is_not_continued(client: Client) -> None:
    """A Redis set back to before an epoch's first append: the log is the epoch before's, and as long."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    await stream.acknowledge()
    new = await stream.take_over()
    assert await stream.append(new, 3, some(3, 3)) == WriteReply(Code.GAP, 0, "", True, new.epoch)
    assert await stream.log() == some(1, 2, "old")


async def test_room_is_notified_to_the_holder(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    assert (await stream.append(holder, 1, some(1, 9))).code is Code.FULL
    assert (await stream.append(holder, 5, some(5, 9))) == WriteReply(Code.FULL, 4, "", True, holder.epoch)
    async with heard(client, "w1") as words:
        await stream.acknowledge(START)  # no room yet
        await stream.acknowledge(EventId(holder.epoch - 1, 4))  # another epoch's
        assert words == []
        await stream.acknowledge(EventId(holder.epoch, 2))
        await stream.acknowledge(EventId(holder.epoch, 3))  # notified already
    assert words == [f"room {stream.id}"]
    assert (await stream.append(holder, 5, some(5, 9))).last_seq == 3 + WINDOW
    assert (await stream.append(holder, 8, some(8, 9))).code is Code.FULL


async def test_the_lead_never_falls_and_is_of_the_readable_epoch(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 4))
    for epoch, seq in ((holder.epoch, 3), (holder.epoch, 1), (holder.epoch + 1, 4), (0, 0)):
        await stream.acknowledge(EventId(epoch, seq))
    assert (await stream.state())["lead"] == "3"
    await stream.acknowledge(EventId(holder.epoch, 999))  # a cursor beyond the log
    assert (await stream.state())["lead"] == "4"
    new = await stream.take_over()
    reply = await stream.append(new, 1, some(1, 9))
    assert (reply.code, reply.last_seq) == (Code.FULL, WINDOW)


async def test_a_resend_and_the_ending_ignore_the_window(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel", grace_ms=60_000)
    holder = await stream.claim()
    assert (await stream.append(holder, 1, some(1, 9), resend=True)).code is Code.OK
    assert (await stream.finish(holder, 10, [*some(10, 30), DONE])).code is Code.OK
    assert await stream.log() == [*some(1, 30), DONE]


async def test_the_last_reader_leaving_makes_room(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="continue")
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 9))
    async with heard(client, "w1") as words:
        await run_script(client, SCRIPTS.leave(stream.id, "g1", START))
    assert words == [f"room {stream.id}"]
    assert (await stream.append(holder, 5, some(5, 9))).code is Code.OK


# --- watched streams


async def test_watched_streams(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.acknowledge(gateway="g1")
    await stream.acknowledge(gateway="g2")
    await run_script(client, SCRIPTS.leave(stream.id, "g1", START))
    assert (await run_script(client, SCRIPTS.renew(holder))).watched
    await run_script(client, SCRIPTS.leave(stream.id, "g2", START))
    assert not (await run_script(client, SCRIPTS.renew(holder))).watched
    await stream.acknowledge(gateway="")
    assert (await run_script(client, SCRIPTS.renew(holder))).watched


@pytest.mark.parametrize(
    ("on_disconnect", "grace_ms", "pulse", "signal"),
    [
        ("cancel", 0, {}, "abandoned"),
        ("cancel", 60_000, {}, ""),
        ("continue", 0, {}, ""),
        ("cancel", 0, {"trouble": now_ms()}, ""),  # every gateway gets time to report its readers
    ],
)
async def test_abandoned_streams(
    client: Client, on_disconnect: str, grace_ms: int, pulse: dict[str, int], signal: str
) -> None:
    stream = await Stream(client).create(on_disconnect=on_disconnect, grace_ms=grace_ms)
    holder = await stream.claim()
    await be_well(stream, **({"trouble": now_ms() + 60_000} if pulse else {}))
    assert (
        await run_script(client, SCRIPTS.renew(holder))
    ).signal == ""  # the client of the request counts as a reader at first
    await stream.set(live_until=0, created=now_ms() - 1000)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == signal
    await stream.acknowledge()
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == ""


# --- finish


async def test_finish(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 2))
    reply = await stream.finish(holder, 3, [event(3), DONE])
    assert (reply.code, reply.last_seq, reply.epoch) == (Code.OK, 4, holder.epoch)
    state = await stream.state()
    assert (state["status"], state["finish_reason"], state["reason"]) == ("completed", "stop", "")
    assert now_ms() - 5000 < int(state["ended"]) <= now_ms() + 1000
    assert not {"request", "holder", "lease_until", "full"} & set(state)
    assert await stream.log() == [*some(1, 3), DONE]
    assert (await stream.tail())[-1] == (f"{holder.epoch}-4", DONE)
    assert await stream.next_look() is None
    await lives_as_one(stream, ended=True)


async def lives_as_one(stream: Stream, *, ended: bool = False) -> None:
    state, log, tail, readers, index, tombstone, _, idempotency = await stream.lives()
    assert now_ms() + RETENTION_MS - 5000 < state <= now_ms() + RETENTION_MS + 1000
    assert {log, readers, idempotency} <= {state, -2}
    if ended:  # it has no readers any more, and is half the memory
        assert now_ms() + 55_000 < tail <= now_ms() + 61_000
    else:
        assert tail in {state, -2}
    assert tombstone == state + round(SETTINGS.tombstone_s * 1000)
    assert index in {state, -2}


async def test_finish_fills_no_gap(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    before = await stream.everything()
    reply = await stream.finish(holder, 4, [DONE])
    assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert await stream.everything() == before


async def test_logged_events_are_skipped_by_finish(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 3))
    assert (await stream.finish(holder, 2, [*some(2, 3, "again"), DONE])).last_seq == 4
    assert await stream.log() == [*some(1, 3), DONE]


async def test_finish_by_a_superseded_holder_or_ahead_of_redis(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    before = await stream.everything()
    assert (await stream.finish(old, 1, [DONE])).code is Code.SUPERSEDED
    assert (await stream.finish(stream.holder(new.epoch), 1, [DONE])).code is Code.SUPERSEDED
    assert (await stream.finish(stream.holder(new.epoch + 1), 1, [DONE])).code is Code.BEHIND
    assert await stream.everything() == before
    assert (await Stream(client).finish(Stream(client).holder(1), 1, [DONE])).code is Code.MISSING


async def test_a_reader_that_just_came_is_not_cut_off(client: Client) -> None:
    stream = await Stream(client).create(on_disconnect="cancel")
    holder = await stream.claim()
    await be_well(stream)
    await stream.append(holder, 1, some(1, 2))
    await stream.acknowledge()
    before = await stream.everything()
    reply = await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)
    assert (reply.code, reply.last_seq, reply.watched) == (Code.WATCHED, 2, True)
    assert await stream.everything() == before
    await stream.set(live_until=0, created=now_ms() - 1000)
    assert (await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)).code is Code.OK
    assert (await stream.state())["status"] == "cancelled"


# --- restore


async def test_restore_of_a_missing_stream(client: Client) -> None:
    stream = Stream(client)
    holder = stream.holder(7)
    assert await stream.restore(holder, some(1, 9)) == WriteReply(Code.OK, 9, "", True, 7)
    state = await stream.state()
    assert (state["status"], state["epoch"], state["log_epoch"], state["holder"]) == ("running", "7", "7", TOKEN)
    assert (state["principal"], state["attempt"], state["request"]) == ("p", "1", '{"messages":[]}')
    assert await stream.log() == some(1, 9)
    assert [at for at, _ in await stream.tail()] == [f"7-{seq}" for seq in range(10 - CAP, 10)]
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()
    assert await client.get(stream.keys[TOMBSTONE]) == b"live p"
    assert now_ms() + LEASE_MS - 5000 < (await stream.next_look() or 0) <= now_ms() + LEASE_MS + 1000
    await lives_as_one(stream)
    assert (await stream.append(holder, 10, some(10, 10), resend=True)).code is Code.OK
    assert (await stream.finish(holder, 11, [DONE])).code is Code.OK


async def test_restore_without_an_event_or_an_idempotency_key(client: Client) -> None:
    stream = Stream(client, key=False)
    holder = stream.holder(7)
    assert (await stream.restore(holder, [])).last_seq == 0
    assert await client.keys("*idem*") == []
    assert (await stream.append(holder, 1, some(1, 1))).code is Code.OK
    await lives_as_one_without_key(stream)


async def lives_as_one_without_key(stream: Stream) -> None:
    state, log, tail, *_ = await stream.lives()
    assert state == log == tail > now_ms()


async def test_restore_over_an_older_epoch(client: Client) -> None:
    """The older tail stays: its ids are below."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    new = stream.holder(old.epoch + 5, "w2.x")
    assert (await stream.restore(new, some(1, 3, "new"))).code is Code.OK
    assert await stream.log() == some(1, 3, "new")
    assert [at for at, _ in await stream.tail()] == [
        *[f"{old.epoch}-{seq}" for seq in (1, 2)],
        *[f"{new.epoch}-{seq}" for seq in (1, 2, 3)],
    ]
    assert (await stream.append(old, 3, some(3, 3))).code is Code.SUPERSEDED
    await lives_as_one(stream)


async def test_restore_over_the_same_or_a_newer_epoch(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    await stream.append(new, 1, some(1, 2))
    before = await stream.everything()
    reply = await stream.restore(new, some(1, 5, "other"))
    assert (reply.code, reply.last_seq) == (Code.GAP, 2)
    assert (await stream.restore(stream.holder(new.epoch, "w3.x"), some(1, 5))).code is Code.SUPERSEDED
    assert (await stream.restore(old, some(1, 5))).code is Code.SUPERSEDED
    assert await stream.everything() == before


async def test_restore_never_reopens_an_ended_stream(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.finish(holder, 1, [event(1), DONE])
    before = await stream.everything()
    for epoch in (holder.epoch - 1, holder.epoch, holder.epoch + 9):
        reply = await stream.restore(stream.holder(epoch), some(1, 5))
        assert (reply.code, reply.last_seq, reply.epoch) == (Code.CLOSED, 2, holder.epoch)
    assert await stream.everything() == before


async def test_restore_never_undoes_a_delete(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await run_script(client, SCRIPTS.delete(stream.id, "p"))
    assert await stream.restore(holder, some(1, 5)) == WriteReply(Code.CLOSED, 0, "deleted", False, 0)
    assert not await client.exists(*stream.keys[:READERS])


async def test_a_restored_stream_waits_for_its_readers(client: Client) -> None:
    """The next reader leases report them; until then the stream is not abandoned."""
    stream = Stream(client)
    holder = stream.holder(7)
    assert (await stream.restore(holder, some(1, 2))).signal == ""
    await be_well(stream)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == ""
    assert (await stream.finish(holder, 3, [DONE], NOBODY_WATCHES)).code is Code.WATCHED


# --- claim and release


async def test_claim_of_missing_and_ended_streams(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.finish(holder, 1, [DONE])
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.CLOSED
    await client.delete(stream.keys[STATE])
    await client.zadd(stream.keys[INDEX], {stream.id: 1, "another": 1})
    await client.expire(stream.keys[INDEX], 60)
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.MISSING
    assert await stream.next_look() is None  # the sweep need not look again


async def test_claim(client: Client) -> None:
    stream = await Stream(client).create()
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable, claimed.signal) == (1, 0, "")
    assert claimed.fields["request"] == b'{"messages":[]}'
    assert claimed.fields["epoch"] == str(claimed.epoch).encode()
    state = await stream.state()
    assert (state["status"], state["holder"]) == ("running", TOKEN)
    assert now_ms() + LEASE_MS - 5000 < int(state["lease_until"]) <= now_ms() + LEASE_MS + 1000
    assert await stream.next_look() == int(state["lease_until"])
    await be_well(stream)
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.HELD
    assert await stream.state() == state


async def test_a_claim_may_be_repeated(client: Client) -> None:
    """A connection that broke before the answer came: the second one must not be refused for the first."""
    stream = await Stream(client).create()
    first = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    before = await stream.everything()
    assert await run_script(client, SCRIPTS.claim(stream.id, TOKEN)) == first
    assert await stream.everything() == before


async def test_a_claim_writes_no_event(client: Client) -> None:
    """The older epoch stays readable until the first append of the new one, which empties the log."""
    stream = await Stream(client).create()
    old = await stream.claim()
    await stream.append(old, 1, some(1, 2, "old"))
    await stream.set(lease_until=0)
    await be_well(stream)
    claimed = await run_script(client, SCRIPTS.claim(stream.id, "w2.x"))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable) == (2, 2)
    page = await stream.page(EventId(old.epoch, 1))
    assert (page.epoch, page.first, page.events) == (old.epoch, 2, [event(2, "old")])
    new = stream.holder(claimed.epoch, "w2.x")
    assert (await stream.append(new, 1, some(1, 1, "new"))).code is Code.OK
    page = await stream.page(EventId(old.epoch, 1))
    assert (page.epoch, page.first, page.events) == (new.epoch, 1, [event(1, "new")])
    assert [at for at, _ in await stream.tail()] == [f"{old.epoch}-1", f"{old.epoch}-2", f"{new.epoch}-1"]


@pytest.mark.parametrize(
    ("age_ms", "state_epoch", "tail_top", "expected"),
    [
        (50_000, 3, None, range(50_000, 60_000)),  # the clock has moved on
        (-99_000, 3, None, range(4, 5)),  # the clock went back, Redis remembers
        (-99_000, 3, "77-2", range(78, 79)),  # Redis lost the state, the tail remembers
        (50_000, 3, "60123-1", range(60_124, 60_125)),
        (50_000, 70_000, "60123-1", range(70_001, 70_002)),
    ],
)
async def test_an_epoch_never_repeats(
    client: Client, age_ms: int, state_epoch: int, tail_top: str | None, expected: range
) -> None:
    stream = await Stream(client).create()
    await stream.set(epoch=state_epoch, created=now_ms() - age_ms)
    if tail_top:
        await client.xadd(stream.keys[TAIL], {"e": "x"}, id=tail_top)
        await client.expire(stream.keys[TAIL], 60)
    assert (await stream.claim()).epoch in expected


@pytest.mark.parametrize(
    "pulse", [None, {"at": 0}, {"trouble": 1}, {"run_id": "another"}], ids=["none", "stopped", "trouble", "replaced"]
)
async def test_no_stream_is_taken_over_after_an_outage(client: Client, pulse: dict[str, int | str] | None) -> None:
    """Every holder gets one more lease; a stream that was never held, or was handed over, can be claimed."""
    stream = await Stream(client).create()
    waiting = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.set(lease_until=0)
    if pulse is not None:
        await be_well(stream, **{name: now_ms() if value == 1 else value for name, value in pulse.items()})
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.HELD
    assert (await stream.state())["epoch"] == str(holder.epoch)
    await waiting.claim()
    await run_script(client, SCRIPTS.release(holder))
    assert isinstance(await run_script(client, SCRIPTS.claim(stream.id, "w2.x")), Claimed)


async def test_the_grace_after_an_outage_is_one_lease(client: Client) -> None:
    stream = await Stream(client).create()
    await stream.claim()
    await stream.set(lease_until=0)
    await be_well(stream, trouble=now_ms() - LEASE_MS - 1000)
    assert isinstance(await run_script(client, SCRIPTS.claim(stream.id, "w2.x")), Claimed)


async def test_release(client: Client) -> None:
    """The next one takes the stream at once, and it is no attempt that failed."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    reply = await run_script(client, SCRIPTS.release(holder))
    assert (reply.code, reply.last_seq) == (Code.OK, 2)
    assert (await stream.next_look() or 0) <= now_ms() + 1000
    for late in (await stream.append(holder, 3, some(3, 3)), await run_script(client, SCRIPTS.renew(holder))):
        assert late.code is Code.SUPERSEDED
    claimed = await run_script(client, SCRIPTS.claim(stream.id, "w2.x"))
    assert isinstance(claimed, Claimed)
    assert (claimed.attempt, claimed.readable) == (1, 2)
    assert claimed.epoch > holder.epoch
    assert (await run_script(client, SCRIPTS.release(holder))).code is Code.SUPERSEDED
    again = await stream.take_over("w3.x")
    assert (await stream.state())["attempt"] == "2"
    assert again.epoch > claimed.epoch


# --- renew


async def test_renew(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    await stream.set(lease_until=0)
    assert (await run_script(client, SCRIPTS.renew(holder))).last_seq == 2
    state = await stream.state()
    assert now_ms() + LEASE_MS - 5000 < int(state["lease_until"])
    assert await stream.next_look() == int(state["lease_until"])
    old = await stream.lives()
    await run_script(client, SCRIPTS.renew(holder))
    assert await stream.lives() == old  # not each time
    await stream.set(expires=old[STATE] - 61_000)
    await run_script(client, SCRIPTS.renew(holder))
    await lives_as_one(stream)
    assert (await stream.lives())[STATE] > old[STATE]


async def test_renew_without_the_lease(client: Client) -> None:
    stream = await Stream(client).create()
    old = await stream.claim()
    new = await stream.take_over()
    before = await stream.everything()
    assert (await run_script(client, SCRIPTS.renew(old))).code is Code.SUPERSEDED
    assert (await run_script(client, SCRIPTS.renew(stream.holder(new.epoch + 1)))).code is Code.BEHIND
    assert await stream.everything() == before
    assert (await run_script(client, SCRIPTS.renew(Stream(client).holder(1)))).code is Code.MISSING


# --- scripts of gateways


async def test_create(client: Client) -> None:
    stream = await Stream(client).create()
    state = await stream.state()
    assert (state["status"], state["epoch"], state["attempt"], state["live_until"]) == ("queued", "0", "0", "0")
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()
    assert await client.get(stream.keys[TOMBSTONE]) == b"live p"
    assert stream.keys[IDEMPOTENCY] == idempotency_entry_key(DIGEST)
    assert now_ms() < (await stream.next_look() or 0) <= now_ms() + LEASE_MS + 1000
    await lives_as_one(stream)
    other = Stream(client)
    known = await run_script(client, other.creation())
    assert known == Known(stream.id, "ff")
    assert not await client.exists(other.keys[STATE])


async def test_a_repeated_create_changes_nothing(client: Client) -> None:
    stream = await Stream(client, key=False).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 1))
    before = await stream.everything()
    assert await run_script(client, stream.creation()) == Created(0, None)
    assert await stream.everything() == before


async def test_the_index_lives_as_long_as_its_longest(client: Client) -> None:
    first = await Stream(client).create()
    index = first.keys[INDEX]
    far = now_ms() + 10 * RETENTION_MS
    await client.pexpireat(index, far)
    other = Stream(client, key=False)
    other.id = first.id[:2] + other.id[2:]
    other.keys = stream_keys(other.id)
    await other.create()
    assert (await other.lives())[INDEX] == far


async def test_cancel(client: Client) -> None:
    stream = Stream(client)
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.MISSING
    await stream.create()
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.UNHELD
    claimed = await run_script(client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(claimed, Claimed)
    assert claimed.signal == "cancelled"
    async with heard(client, "w1") as words:
        assert await run_script(client, SCRIPTS.cancel(stream.id, "another reason")) is Refused.HELD
    assert words == [f"cancel {stream.id}"]
    holder = stream.holder(claimed.epoch)
    assert (await run_script(client, SCRIPTS.renew(holder))).signal == "cancelled"  # the first reason stands
    await stream.set(lease_until=0)
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.UNHELD
    await stream.finish(holder, 1, [DONE])
    assert await run_script(client, SCRIPTS.cancel(stream.id, "cancelled")) is Refused.CLOSED


async def test_delete(client: Client) -> None:
    stream = Stream(client)
    assert await run_script(client, SCRIPTS.delete(stream.id, "p")) is False
    await stream.create()
    holder = await stream.claim()
    await stream.acknowledge()
    await stream.append(holder, 1, some(1, 2))
    async with heard(client, "w1") as words:
        assert await run_script(client, SCRIPTS.delete(stream.id, "p")) is True
    assert words == [f"cancel {stream.id}"]
    assert await stream.read() == Gone("p", deleted=True)
    assert not await client.exists(*stream.keys[: READERS + 1])
    assert await stream.next_look() is None
    assert await client.get(stream.keys[IDEMPOTENCY]) == f"{stream.id} ff".encode()  # no second generation
    lives = await stream.lives()
    assert lives[TOMBSTONE] > lives[IDEMPOTENCY] > 0
    assert await run_script(client, SCRIPTS.delete(stream.id, "p")) is False
    assert await stream.acknowledge() is None
    assert await run_script(client, SCRIPTS.claim(stream.id, "w2.x")) is Refused.MISSING


async def test_acknowledge(client: Client) -> None:
    stream = Stream(client)
    assert await stream.acknowledge() is None
    assert await client.dbsize() == 0
    await stream.create()
    assert await stream.acknowledge() == LogPosition(Status.QUEUED, 0, 0)
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 2))
    assert await stream.acknowledge() == LogPosition(Status.RUNNING, holder.epoch, 2)
    await lives_as_one(stream)
    await stream.finish(holder, 3, [DONE])
    before = await stream.everything()
    assert await stream.acknowledge(EventId(holder.epoch, 3)) == LogPosition(Status.COMPLETED, holder.epoch, 3)
    assert await stream.everything() == before


async def test_read(client: Client) -> None:
    stream = await Stream(client).create()
    assert await stream.read() == LogPage(Status.QUEUED, "p", 0, 0, 1, [])
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 9))
    epoch = holder.epoch
    assert await stream.read() == LogPage(Status.RUNNING, "p", epoch, 9, 1, some(1, 9))
    assert (await stream.page(EventId(epoch, 4))).events == some(5, 9)
    assert (await stream.page(EventId(epoch + 1, 4))).events == some(1, 9)
    for seq in (9, 10, 10**14):
        page = await stream.page(EventId(epoch, seq))
        assert (page.first, page.events, page.complete) == (seq + 1, [], True)


async def test_read_in_pages(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 100, "y" * 100))
    page = await stream.page(EventId(holder.epoch, 7), most_events=5)
    assert (page.first, page.length, page.complete) == (8, 100, False)
    assert page.events == some(8, 12, "y" * 100)
    page = await stream.page(most_bytes=1)
    assert 1 <= len(page.events) <= 32
    assert not page.complete
    cursor, read = START, list[bytes]()
    while len(read) < 100:
        page = await stream.page(cursor, most_events=7, most_bytes=600)
        assert page.first == len(read) + 1
        read += page.events
        cursor = EventId(page.epoch, len(read))
    assert read == some(1, 100, "y" * 100)


async def test_read_of_missing_streams(client: Client) -> None:
    """Unknown, past its retention, or maybe only lost for a moment."""
    stream = Stream(client)
    assert await stream.read() is Lost.MAYBE
    await be_well(stream)
    assert await stream.read() is None
    await be_well(stream, trouble=now_ms())
    assert await stream.read() is Lost.MAYBE
    await be_well(stream, run_id="another")  # restarted with a file of a moment ago: no sweep has seen it yet
    assert await stream.read() is Lost.MAYBE
    await stream.create()
    await client.delete(stream.keys[STATE])
    assert await stream.read() == Gone("p", deleted=False)


# --- limits


def limits(**some: int) -> Demand:
    return Demand("account", Limits(**some), 10)


async def used(client: Client, **counts: int) -> int:
    """Make the account's counts so, ages in seconds as ``r59``; the second that it is now, by Redis' clock."""
    for _ in range(2):  # not at the edge of a second
        second, micro = await client.time()
        await asyncio.sleep((1_000_000 - micro) / 1_000_000 if micro > 500_000 else 0)
    second, _ = await client.time()
    fields = {f"{name[0]}{second - int(name[1:])}": n for name, n in counts.items()}
    await client.hset("hr:account:account:used", mapping=fields)  # type: ignore[misc]
    await client.expire("hr:account:account:used", 1000)
    return int(second)


@pytest.mark.parametrize(
    ("counts", "some", "limit", "about_s"),
    [
        ({"r0": 3}, {"requests_per_minute": 3}, "requests_per_minute", 60),
        ({"r30": 3}, {"requests_per_minute": 3}, "requests_per_minute", 30),
        ({"r30": 1, "r10": 2}, {"requests_per_minute": 3}, "requests_per_minute", 30),
        ({"r30": 1, "r10": 3}, {"requests_per_minute": 3}, "requests_per_minute", 50),
        ({"t50": 5, "t20": 5}, {"tokens_per_minute": 19}, "tokens_per_minute", 10),
        ({"t50": 5, "t20": 10}, {"tokens_per_minute": 19}, "tokens_per_minute", 40),
        # Of two limits, the reply names the one that is exceeded for longer.
        ({"r50": 3, "t20": 30}, {"requests_per_minute": 3, "tokens_per_minute": 30}, "tokens_per_minute", 40),
    ],
)
async def test_a_refusal_names_the_time_until_there_is_room(
    client: Client, counts: dict[str, int], some: dict[str, int], limit: str, about_s: int
) -> None:
    await used(client, **counts)
    answer = await run_script(client, Stream(client).creation(demand=limits(**some)))
    assert isinstance(answer, Limited)
    assert answer.limit == limit
    assert about_s - 2 < answer.wait_s <= about_s


async def test_a_minute_is_this_second_and_the_59_before_it(client: Client) -> None:
    second = await used(client, r60=5, r59=1, t60=50, t300=7)
    answer = await run_script(
        client, Stream(client).creation(demand=limits(requests_per_minute=3, tokens_per_minute=30))
    )
    assert isinstance(answer, Created)
    assert answer.used is not None
    assert (answer.used.requests, answer.used.tokens, answer.used.streams) in {(2, 10, 1), (1, 10, 1)}
    left = {name.decode() for name in await client.hkeys("hr:account:account:used")}  # type: ignore[misc]
    assert not left & {f"r{second - 60}", f"t{second - 60}", f"t{second - 300}"}  # expired counts are deleted


async def test_every_way_out_gives_the_slot_back_once(client: Client) -> None:
    """An ending, a delete, and a stream that Redis lost and its worker brought back."""
    demand = limits(concurrent_streams=2, tokens_per_day=1000)

    async def taken() -> tuple[int, int]:
        (today,) = [int(n) for k, n in (await client.hgetall(used_key)).items() if k[:1] == b"d"]  # type: ignore[misc]
        return await client.zcard("hr:account:account:streams"), today

    used_key = "hr:account:account:used"
    ended, deleted = [Stream(client, key=False) for _ in range(2)]
    for stream in (ended, deleted):
        assert isinstance(await run_script(client, stream.creation(demand=demand)), Created)
    assert await taken() == (2, 20)
    refused = await run_script(client, Stream(client, key=False).creation(demand=demand))
    assert isinstance(refused, Limited)
    assert (refused.limit, refused.wait_s) == ("concurrent_streams", 1)

    claimed = await run_script(client, SCRIPTS.claim(ended.id, TOKEN))
    assert isinstance(claimed, Claimed)
    holder = ended.holder(claimed.epoch)
    await ended.append(holder, 1, some(1, 2))
    await client.delete("hr:account:account:streams", *ended.keys[:7])
    fields = restorable(claimed.fields)
    assert (
        await run_script(client, SCRIPTS.restore(holder, some(1, 2), fields=fields, body_hash="ff"))
    ).code is Code.OK
    assert await taken() == (1, 20)
    ending = Ending(Status.COMPLETED, {"finish_reason": "stop", "reason": "", "usage": "null"}, 4)
    for _ in range(2):
        await run_script(client, SCRIPTS.finish(holder, 3, [DONE], ending))
    assert await taken() == (0, 14)

    await client.zadd("hr:account:account:streams", {deleted.id: now_ms() + 60_000})
    for _ in range(2):
        await run_script(client, SCRIPTS.delete(deleted.id, "p"))
    assert await taken() == (0, 14)  # the use of a deleted stream is unknown


async def test_accounts_take_turns(client: Client) -> None:
    """Each account has one turn a round; a later account starts in the round that is being taken."""
    ids: dict[str, str] = {}

    async def put(name: str) -> None:
        stream = Stream(client, key=False)
        ids[stream.id] = name
        assert isinstance(await run_script(client, stream.creation(demand=Demand(name[0], Limits(), 0))), Created)

    async def take(n: int) -> list[str]:
        return [ids[stream_id.decode()] for stream_id, _ in await client.zpopmin("hr:queue", n)]

    for name in ("a1", "a2", "a3", "a4", "b1", "b2"):
        await put(name)
    assert {*await take(2)} == {"a1", "b1"}
    await put("c1")
    assert {*await take(3)} == {"a2", "b2", "c1"}
    await put("b3")
    await put("c2")
    assert {*await take(3)} == {"a3", "b3", "c2"}
    assert await take(9) == ["a4"]
    await put("a5")
    await put("d1")
    assert {*await take(2)} == {"a5", "d1"}  # an empty queue resets the turns


# --- the queue and the sweep


async def test_enqueue(client: Client) -> None:
    waiting = await Stream(client).create()
    call = enqueue("an-id", b"job", life_s=60)
    assert await run_script(client, call) is True
    assert await run_script(client, call) is False
    assert [name for name, _ in await client.zpopmin("hr:queue", 2)] == [b"an-id", waiting.id.encode()]
    assert await client.get(job_key("an-id")) == b"job"
    assert job_key("an-id") == job_key_prefix + "an-id"
    assert await run_script(client, call) is True


async def test_sweep(client: Client) -> None:
    stream = await Stream(client).create()
    bucket = next(keys for keys in sweep_keys() if keys[0] == stream.keys[INDEX])
    assert bucket[1] == stream.keys[PULSE]
    run_id = (await client.info("server"))["run_id"]

    async def sweep(run_id: str = run_id) -> Due:
        return await run_script(client, SCRIPTS.sweep(bucket, run_id))

    async def trouble() -> str | None:
        value: bytes | None = await client.hget(stream.keys[PULSE], "trouble")  # type: ignore[misc]
        return value.decode() if value is not None else None

    first = await sweep()
    assert first.stream_ids == []
    assert abs(first.now_ms - now_ms()) < 5000
    assert await trouble() == str(first.now_ms)  # without a pulse, Redis is new or has lost everything
    assert (await sweep()).stream_ids == []
    assert await trouble() == str(first.now_ms)

    await client.zadd(stream.keys[INDEX], {stream.id: now_ms() - 1})
    assert (await sweep()).stream_ids == [stream.id]
    assert (await sweep()).stream_ids == []
    assert (await stream.next_look() or 0) > now_ms() + LEASE_MS - 5000

    await be_well(stream, at=now_ms() - 3000)
    assert await trouble() is None
    frozen = await sweep()
    assert await trouble() == str(frozen.now_ms)
    await be_well(stream)
    replaced = await sweep("another")
    assert await trouble() == str(replaced.now_ms)


# --- outages of Redis


async def test_a_full_redis_takes_endings_but_nothing_new(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    await broker.start()
    client = connect(broker.url)
    streams = [await Stream(client, key=False).create() for _ in range(5)]
    running, cancelled, deleted, released, waiting = streams
    holders = {stream.id: await stream.claim() for stream in (running, cancelled, deleted, released)}
    holder = holders[running.id]
    await running.append(holder, 1, some(1, 2))
    await client.config_set("maxmemory", "1mb")
    new = Stream(client)
    refused: list[Call[Any]] = [
        SCRIPTS.append(holder, 3, some(3, 3)),
        SCRIPTS.claim(waiting.id, TOKEN),
        SCRIPTS.restore(new.holder(1), [], fields={"principal": "p"}, body_hash="ff"),
        enqueue(waiting.id, b"job", life_s=60),
        new.creation(),
    ]
    for call in refused:
        with pytest.raises(BrokerUnavailable):
            await run_script(client, call)
    assert (await run_script(client, SCRIPTS.renew(holder))).code is Code.OK
    assert await running.acknowledge() == LogPosition(Status.RUNNING, holder.epoch, 2)
    assert (await running.page()).events == some(1, 2)
    assert await run_script(client, SCRIPTS.cancel(cancelled.id, "cancelled")) is Refused.HELD
    assert await run_script(client, SCRIPTS.delete(deleted.id, "p")) is True
    assert (await run_script(client, SCRIPTS.release(holders[released.id]))).code is Code.OK
    await run_script(client, SCRIPTS.sweep(sweep_keys()[0], "id"))
    assert (await running.finish(holder, 3, [DONE])).code is Code.OK
    assert (await running.page()).events == [*some(1, 2), DONE]
    await client.config_set("maxmemory", "0")
    assert isinstance(await run_script(client, refused[-1]), Created)
    assert [key async for key in client.scan_iter() if await client.ttl(key) == -1] == []
    await client.aclose()
    broker.kill()


async def test_forgotten_scripts_are_loaded_again(client: Client) -> None:
    stream = await Stream(client).create()
    holder = await stream.claim()
    await client.script_flush()
    assert (await stream.append(holder, 1, some(1, 1))).code is Code.OK
    await client.script_flush()
    calls: list[Call[object]] = [
        SCRIPTS.append(holder, 2, some(2, 2)),
        SCRIPTS.append(holder, 2, some(2, 3)),
        SCRIPTS.renew(holder),
        SCRIPTS.read(stream.id, START),
    ]
    answers = await run_scripts(client, calls)
    first, second, renewed, page = answers
    assert [reply.last_seq for reply in (first, second, renewed) if isinstance(reply, WriteReply)] == [2, 3, 3]
    assert isinstance(page, LogPage)
    assert page.events == some(1, 3)
    assert await stream.log() == some(1, 3)


async def test_an_empty_exchange_sends_nothing(client: Client, scripts_broker: Broker) -> None:
    line = PipelineConnection(scripts_broker.url)
    async with asyncio.timeout(2):
        assert await client.exchange([]) == await line.exchange([]) == []
    await line.aclose()


async def test_redis_is_away(client: Client, tmp_path: Path) -> None:
    away = connect(Broker(tmp_path).url)
    calls: list[Call[Any]] = [SCRIPTS.claim("0" * 34, TOKEN), SCRIPTS.delete("0" * 34, "p")]
    assert [type(answer) for answer in await run_scripts(away, calls)] == [BrokerUnavailable] * 2
    with pytest.raises(BrokerUnavailable):
        await run_script(away, calls[0])
    await away.aclose()


# --- operators


async def told(stream: Stream) -> list[tuple[str, str, int]]:
    (known,) = await read_timeline(stream.client, [stream.id])
    times = [each.at_ms for each in known.timeline()]
    assert times == sorted(times)
    return [(each.what, each.detail, each.attempt) for each in known.timeline()]


async def test_the_history_of_a_stream(client: Client) -> None:
    """Through a lost worker, a drain and a cancel; only the first append of an attempt is a first token."""
    stream = await Stream(client).create()
    holder = await stream.claim()
    await stream.append(holder, 1, some(1, 1))
    await stream.append(holder, 2, some(2, 3))
    holder = await stream.take_over()
    await stream.append(holder, 1, some(1, 1))
    assert (await run_script(client, SCRIPTS.release(holder))).code is Code.OK
    holder = await stream.claim("w3.token")
    for _ in range(2):
        await run_script(client, SCRIPTS.cancel(stream.id, "cancelled"))
    ending = Ending(Status.CANCELLED, {"finish_reason": "cancelled", "reason": "cancelled"}, 0)
    await stream.finish(holder, 1, [DONE], ending)
    assert await told(stream) == [
        ("created", "", 0),
        ("claimed", "w1", 1),
        ("first_token", "", 1),
        ("taken_over", "w2", 2),
        ("first_token", "", 2),
        ("handed_over", "", 2),
        ("taken_over", "w3", 2),
        ("cancel_asked", "cancelled", 2),
        ("ended", "cancelled: cancelled", 2),
    ]


async def test_the_size_of_a_history_is_limited(client: Client) -> None:
    stream = await Stream(client).create()
    for _ in range(100):
        await stream.take_over()
    assert 1000 < len((await stream.state())["history"]) < 2100
    assert (await stream.state())["attempt"] == "100"


async def test_resumes_are_counted_and_the_first_are_in_the_history(client: Client) -> None:
    stream = Stream(client)
    assert await run_script(client, SCRIPTS.note_resume(stream.id, "reset")) == ""
    assert await client.dbsize() == 0
    await stream.create(traceparent="00-ab-cd-01")
    for _ in range(30):
        assert await run_script(client, SCRIPTS.note_resume(stream.id, "reset")) == "00-ab-cd-01"
    assert (await stream.state())["resumes"] == "30"
    assert (await told(stream)).count(("resumed", "reset", 0)) == 20


async def test_endings_are_counted_and_the_last_are_listed(client: Client) -> None:
    """A deleted stream leaves the lists and stays in the counts."""
    failure = Ending(Status.FAILED, {"finish_reason": "error", "reason": "provider_auth"}, 3)
    streams = [await Stream(client, key=False).create() for _ in range(3)]
    for stream, ending in zip(streams, (ENDING, failure, failure), strict=True):
        await stream.finish(await stream.claim(), 1, [DONE], ending)
    assert await run_script(client, SCRIPTS.delete(streams[2].id, "p"))
    seen = await read_overview(client)
    assert {each.stream_id for each in seen.ended} == {stream.id for stream in streams[:2]}
    assert [each.stream_id for each in seen.failed] == [streams[1].id]
    counted: dict[str, int] = {}
    for _, counts in seen.minutes:
        for name, n in counts.items():
            counted[name] = counted.get(name, 0) + n
    assert counted == {"completed": 1, "failed": 2, "failed:provider_auth": 2, "tokens": 6}
    assert (seen.live, seen.waiting, seen.streams) == (0, 0, [])


async def test_open_breakers_are_listed(client: Client) -> None:
    await publish(client, {"openai": ProviderModels(("a",)), "demo": ProviderModels(("demo",))})
    await client.set(breaker_key("openai"), "1", px=60_000)
    assert (await read_overview(client)).open_breakers == ["openai"]


async def test_the_oldest_waiting_streams_are_listed(client: Client) -> None:
    streams = [await Stream(client, key=False).create() for _ in range(150)]
    oldest, seen = streams[3:8], await read_overview(client)
    for stream in streams[:3]:  # taken: they wait no more
        await stream.claim()
    waiting = await read_overview(client)
    assert (seen.live, seen.waiting, len(seen.streams)) == (150, 150, MOST_LIVE)
    assert (waiting.live, waiting.waiting) == (150, 147)
    assert {stream.id for stream in oldest} <= {each.stream_id for each in waiting.streams}
