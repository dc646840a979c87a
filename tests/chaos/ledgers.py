"""Judges whether the daily sums are those of the ledgers of all streams, and no call is in a ledger twice."""

import time
from collections.abc import Iterator, Sequence

from shared.broker.client import Client, connect, run_commands
from shared.broker.keys import state_key
from shared.broker.usage import UsageRow, UsageSum, read_usage, rows_of
from shared.protocol.ledger import LedgerEntry, decode_ledger
from tests.chaos.chat import Record
from tests.chaos.rig import Rig

#: For all endings to be settled, once nothing disturbs them.
_WITHIN_S = 30.0
_DAY_S = 86_400


async def complaints_about_ledgers(rig: Rig, records: Sequence[Record]) -> list[str]:
    """Return a description of each stream whose calls are not counted exactly. A stream that was deleted, or that
    Redis may have lost, has no ledger to compare with."""
    judged = [record for record in records if _is_judged(rig, record)]
    client = connect(rig.redis_url)

    async def equal() -> bool | None:
        return not await _differences(client, judged) or time.monotonic() > deadline or None

    deadline = time.monotonic() + _WITHIN_S
    await rig.eventually(equal, timeout_s=2 * _WITHIN_S)
    found = await _differences(client, judged)
    for record, entries in zip(judged, await _ledgers(client, judged), strict=True):
        found += _doubled(rig, record, entries)
    await client.aclose()
    return found


def _is_judged(rig: Rig, record: Record) -> bool:
    if record.stream_id is None or record.deleted or len(record.stream_ids) > 1:
        return False
    return not rig.history.losses_between(record.requested_at, time.monotonic())


async def _ledgers(client: Client, records: Sequence[Record]) -> list[list[LedgerEntry]]:
    commands = [("HGET", state_key(record.stream_id or ""), "ledger") for record in records]
    return [decode_ledger(stored) for stored in await run_commands(client, commands)]


async def _differences(client: Client, records: Sequence[Record]) -> list[str]:
    today = int(time.time()) // _DAY_S
    rows = await read_usage(client, [today - 1, today])
    counted = _by_model(rows)
    found = list[str]()
    for record, entries in zip(records, await _ledgers(client, records), strict=True):
        name = record.plan.model
        expected, actual = _by_model(rows_of(entries)).get(name, UsageSum()), counted.get(name, UsageSum())
        if expected != actual:
            found.append(f"{record.stream_id}: its calls are {expected}, counted {actual}")
    return found


def _by_model(rows: Sequence[UsageRow]) -> dict[str, UsageSum]:
    sums = dict[str, UsageSum]()
    for row in rows:
        model = row.target.partition("/")[2]
        sums[model] = sums.get(model, UsageSum()).plus(row.sum)
    return sums


def _doubled(rig: Rig, record: Record, entries: Sequence[LedgerEntry]) -> Iterator[str]:
    made = len(rig.history.calls.get(record.plan.number, []))
    with_tokens = sum(entry.calls for entry in entries if entry.has_tokens)
    if with_tokens > made:
        yield f"{record.stream_id}: {with_tokens} calls with tokens in its ledger, {made} were made"
    if record.final is not None and record.final[1].get("finish_reason") == "stop" and not with_tokens:
        yield f"{record.stream_id}: an answer, and no call in its ledger"
