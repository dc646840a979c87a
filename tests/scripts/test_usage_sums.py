"""The calls of a stream are added to the sums of their days once, whichever process settles its ending."""

from dataclasses import replace

import pytest

from shared.broker.client import Client, run_commands, run_script
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.ending import Outcome, end_unheld
from shared.broker.keys import index_key, usage_key
from shared.broker.outbox import settle_ended_streams, settle_gone_streams
from shared.broker.removal import delete_stream
from shared.broker.settlement import settle, settle_ended
from shared.broker.usage import UsageSum, read_usage
from shared.protocol import events
from shared.protocol.events import Start, Token, Usage
from shared.protocol.ledger import LedgerEntry, decode_ledger, encode_ledger
from tests.scripts.stream import DONE, SCRIPTS, Stream, now_ms

DAY_MS = 86_400_000
DAY = 20_000
KEY = "0123456789ab"
ANSWERED = LedgerEntry(
    DAY * DAY_MS, "a", "m", "completed", 100, 20, 5, 6, 7, cost_nanos=900, currency="USD", key_id=KEY
)
FAILED = LedgerEntry(DAY * DAY_MS - 1, "a", "m", "failed", cost_nanos=0, currency="USD", key_id=KEY)
UNPRICED = LedgerEntry(DAY * DAY_MS, "b", "n/o", "cancelled", 3, 4, estimated=True, key_id=KEY)
LEDGER = [FAILED, ANSWERED, UNPRICED]
OUTPUT = [
    events.encode(Start("id", "m", "a", 1)),
    events.encode(Token("abcdefgh", 0, 2)),
]
PARTIAL = Usage(1, 2, estimated=True)


async def sums(client: Client, account: str | None = None) -> dict[tuple[int, str, str, str], UsageSum]:
    rows = await read_usage(client, range(DAY - 2, DAY + 2), account)
    return {(row.day, row.key_id, row.target, row.currency): row.sum for row in rows}


def expected(times: int = 1) -> dict[tuple[int, str, str, str], UsageSum]:
    one = {
        (DAY - 1, KEY, "a/m", "USD"): UsageSum(1, 1),
        (DAY, KEY, "a/m", "USD"): UsageSum(1, 0, 0, 0, 100, 20, 5, 6, 7, 900),
        (DAY, KEY, "b/n/o", ""): UsageSum(1, 0, 1, 1, 3, 4),
    }
    return {row: UsageSum(*(times * count for count in total_of(total))) for row, total in one.items()}


def total_of(total: UsageSum) -> list[int]:
    return [getattr(total, name) for name in UsageSum.__struct_fields__]


async def ended(client: Client) -> tuple[Stream, Settlement]:
    """Return a stream whose ending is not settled, and the settlement."""
    stream = await Stream(client, key=False).create(account="account", key_id=KEY)
    ending = Outcome("stop").ending(Usage(100, 20), LEDGER)
    owed = SCRIPTS.owed(ending, await stream.end(await stream.claim(), 1, [DONE], ending))
    account = (await stream.state())["account"]
    return stream, Settlement(stream.id, account, Kind.ENDED, owed, ledger=LEDGER)


async def test_each_call_is_added_once_to_the_sums_of_its_day(client: Client) -> None:
    for times in (1, 2):
        stream, settlement = await ended(client)
        for _ in range(2):
            await settle_ended(client, SCRIPTS, settlement)
        await settle_ended_streams(client, SCRIPTS, [stream.id])
        assert await sums(client) == expected(times)
        assert await sums(client, settlement.account) == expected(times)
    keys = [usage_key(DAY, None), usage_key(DAY, settlement.account)]
    lives = await run_commands(client, [("PTTL", key) for key in keys])
    assert all(61 * DAY_MS < life <= 62 * DAY_MS for life in lives)


async def test_the_sweep_counts_the_calls_of_a_worker_that_died_after_the_end(client: Client) -> None:
    stream, settlement = await ended(client)
    assert (await stream.state())["owed"].split()[2] == "?"  # a call had no price
    await settle_ended_streams(client, SCRIPTS, [stream.id])
    assert await sums(client) == await sums(client, settlement.account) == expected()


async def test_a_stream_that_is_deleted_before_it_is_settled_is_counted(client: Client) -> None:
    stream, _ = await ended(client)
    for _ in range(2):
        await delete_stream(client, SCRIPTS, stream.id)
        await settle_gone_streams(client, SCRIPTS, [stream.id])
    assert await sums(client) == expected()


async def test_a_settled_stream_is_not_counted_again_by_its_deletion(client: Client) -> None:
    stream, settlement = await ended(client)
    await settle_ended(client, SCRIPTS, settlement)
    await delete_stream(client, SCRIPTS, stream.id)
    await settle(client, SCRIPTS, Settlement(stream.id, settlement.account, Kind.DELETED, ledger=LEDGER))
    assert await sums(client) == expected()


async def test_only_the_holder_writes_the_ledger(client: Client) -> None:
    stream = await Stream(client, key=False).create(key_id=KEY)
    holder = await stream.claim()
    fields = {"ledger": encode_ledger([FAILED]), "accounted": ""}
    await run_script(client, SCRIPTS.note_failure(holder, "a", "provider_unavailable", fields))
    successor = await stream.take_over()
    late = {"ledger": encode_ledger(LEDGER), "accounted": "1:1"}
    await run_script(client, SCRIPTS.note_failure(holder, "a", "provider_unavailable", late))
    state = await stream.state()
    assert decode_ledger(state["ledger"], KEY) == [FAILED]
    assert "accounted" not in state or not state["accounted"]
    await stream.finish(successor, 1, [DONE])
    assert "accounted" not in await stream.state()


@pytest.mark.parametrize("accounted", ["", "epoch"])
async def test_a_call_without_a_worker_is_estimated_at_its_end(client: Client, accounted: str) -> None:
    """A process that only ends the stream adds the call of the dead worker, unless the ledger has it."""
    stream = await Stream(client, key=False).create(key_id=KEY, prompt_characters=40, account="account")
    holder = await stream.claim()
    await stream.append(holder, 1, OUTPUT)
    note = {"ledger": encode_ledger([FAILED]), "accounted": accounted and f"{holder.epoch}:1"}
    await run_script(client, SCRIPTS.note_failure(holder, "a", "provider_unavailable", note))
    await stream.expire_lease()
    assert await end_unheld(client, SCRIPTS, stream.id, Outcome.cancelled("cancelled")) is not None
    entries = decode_ledger((await stream.state())["ledger"], KEY)
    assert entries[0] == FAILED
    assert [(each.outcome, each.input_tokens, each.output_tokens, each.estimated) for each in entries[1:]] == (
        [] if accounted else [("cancelled", 10, 2, True)]
    )
    rows = await read_usage(client, sorted({each.day for each in entries}))
    assert sum(row.sum.calls for row in rows) == len(entries)


async def test_a_final_count_replaces_the_estimate_unless_it_is_settled(client: Client) -> None:
    stream, settlement = await ended(client)
    assert settlement.owed is not None
    final = replace(settlement.owed, tokens=7, cost="900")
    amend = SCRIPTS.amend(stream.id, settlement.owed.text, final.text, encode_ledger([ANSWERED]), b"[5,2,false]")
    assert [await run_script(client, amend) for _ in range(2)] == [True, False]
    assert (await stream.state())["usage_final"] == "[5,2,false]"
    await settle_ended_streams(client, SCRIPTS, [stream.id])  # as the sweep does
    assert await sums(client) == {(DAY, KEY, "a/m", "USD"): UsageSum(1, 0, 0, 0, 100, 20, 5, 6, 7, 900)}

    settled, settlement = await ended(client)
    await settle_ended(client, SCRIPTS, settlement)
    assert settlement.owed is not None
    late = SCRIPTS.amend(settled.id, settlement.owed.text, final.text, "", b"[5,2,false]")
    assert not await run_script(client, late)
    assert "usage_final" not in await settled.state()


async def test_a_stream_that_waits_for_its_count_is_swept_later(client: Client) -> None:
    stream = await Stream(client, key=False).create()
    ending = Outcome.cancelled("cancelled").ending(Usage(1, 1, estimated=True), LEDGER)
    ending = replace(ending, fields={**ending.fields, "usage_wait_ms": 60_000})
    before = now_ms()
    await stream.end(await stream.claim(), 1, [DONE], ending)
    assert "usage_wait_ms" not in await stream.state()
    (look,) = await run_commands(client, [("ZSCORE", index_key(stream.id), stream.id)])
    assert float(look) >= before + 60_000
