"""Entries of the audit log: unreadable ones, and those that a follower gets."""

import asyncio

import pytest

from shared.broker.audit_follower import Follower
from shared.broker.audit_log import Act, Outcome, read_acts, record, recorded
from shared.broker.client import Client
from shared.broker.keys import AUDIT

ACT = Act("key.create", "user:ann", "a machine")


@pytest.mark.parametrize("damaged", [b"{", b'{"number":"1","outcome":"of a later version"}', b"\xff"])
async def test_an_entry_that_cannot_be_read_leaves_the_others(client: Client, damaged: bytes) -> None:
    await record(client, ACT, "")
    await client.xadd(AUDIT, {"entry": damaged})
    await client.expire(AUDIT, 600)
    await record(client, ACT, "a problem")
    seen = [(act.what, act.outcome) for act in await read_acts(client, most=9)]
    assert seen == [
        ("key.create", Outcome.REFUSED),
        ("unreadable entry", Outcome.UNKNOWN),
        ("key.create", Outcome.DONE),
    ]


async def test_a_follower_gets_a_late_outcome_too(client: Client) -> None:
    patient = Follower(client, 0, outcome_within_s=600)
    hasty = Follower(client, 0, outcome_within_s=0)
    async with recorded(client, ACT):
        assert await patient.poll() == []
        assert [act.outcome for act in await hasty.poll()] == [Outcome.UNKNOWN]
        assert await hasty.poll() == []
    for follower in (patient, hasty):
        assert [act.outcome for act in await follower.poll()] == [Outcome.DONE]
        assert await follower.poll() == []


async def test_a_follower_misses_none_of_many(client: Client) -> None:
    follower = Follower(client, 0, outcome_within_s=600)
    await asyncio.gather(*(record(client, Act("key.create", "ann", "here", str(n)), "") for n in range(1200)))
    first, rest = await follower.poll(), await follower.poll()
    assert sorted(int(act.target) for act in (*first, *rest)) == list(range(1200))
