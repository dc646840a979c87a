"""Each script and the table of transitions."""

import re
from dataclasses import replace
from typing import Any

import pytest

from shared.broker.client import Client, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.replies import (
    LogPage,
    parse_claim,
)
from shared.broker.scripts import Fields, Holder
from shared.broker.sweep import Sweep
from shared.errors import BrokerUnavailable
from shared.metrics import ILLEGAL_TRANSITIONS
from shared.protocol.chunks import compress
from shared.protocol.ids import START
from shared.protocol.lifecycle import STEPS, TERMINAL, Status, froms_and_tos, is_allowed
from shared.settings import Settings
from tests.scripts.stream import (
    DONE,
    ENDING,
    INDEX,
    SCRIPTS,
    Stream,
    all_scripts,
    be_well,
    some,
    source,
)


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
        await stream.set(ended=1)
    elif status is Status.RUNNING:
        await stream.set(lease_until=0)
    await be_well(stream)
    return holder


def calls_of(name: str, stream: Stream, holder: Holder) -> list[Call[Any]]:
    """Calls of a script as the holder, or one of a later epoch, would make them."""
    fields: Fields = {
        "principal": "p",
        "account": "a",
        "on_disconnect": "continue",
        "grace_ms": 0,
        "created": 1,
        "attempt": 1,
    }
    later = replace(holder, epoch=holder.epoch + 1)
    calls: dict[str, list[Call[Any]]] = {
        "begin": [stream.begin()],
        "forget": [SCRIPTS.forget(stream.id, "p", stream.idempotency)],
        "claim": [SCRIPTS.claim(stream.id, "w2.token")],
        "append": [SCRIPTS.append(holder, 2, some(2, 2)), SCRIPTS.append(holder, 1, some(1, 2), resend=True)],
        "finish": [
            SCRIPTS.finish(holder, 2, [DONE], compress([*some(1, 1), DONE]), replace(ENDING, status=status))
            for status in sorted(TERMINAL)
        ],
        "restore": [SCRIPTS.restore(later, some(1, 2), fields=fields, body_hash="ff")],
        "renew": [SCRIPTS.renew(holder)],
        "release": [SCRIPTS.release(holder)],
        "delete": [SCRIPTS.delete(stream.id)],
        "drop": [SCRIPTS.drop(stream.id)],
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
    errors = [record for record in caplog.records if record.levelname == "ERROR" and record.name != "asyncio"]
    assert [record.message for record in errors] == ["illegal transition"]  # asyncio's may be of an earlier test


async def test_the_sweep_passes_over_a_stream_with_an_illegal_status(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """One such stream must not end the process that sweeps."""
    paused, lost = await Stream(client).create(status="paused"), await Stream(client, key=False).create()
    for stream in (paused, lost):
        await client.zadd(stream.keys[INDEX], {stream.id: 1})
    requeued: list[str] = []

    async def requeue(stream_id: str) -> bool:
        requeued.append(stream_id)
        return True

    settings = Settings.model_construct()
    sweep = Sweep(client, SCRIPTS, settings, own_id="g1", requeue=requeue, count=lambda _: None)
    before = ILLEGAL_TRANSITIONS.labels("sweep")._value.get()
    await sweep.sweep()
    assert lost.id in requeued
    assert paused.id not in requeued
    assert ILLEGAL_TRANSITIONS.labels("sweep")._value.get() == before + 1
    assert "illegal transition" in [record.message for record in caplog.records]


def test_a_claim_leaves_a_running_stream() -> None:
    with pytest.raises(BrokerUnavailable):
        parse_claim([b"CLAIMED", 7, 1, 0, b"", [b"status", b"completed"]])
