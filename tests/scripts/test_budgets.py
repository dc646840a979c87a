"""Budgets at the desk: reserved with a stream's place, and settled once."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest

from shared.broker.client import Client, run_script
from shared.broker.creation import create, requeue
from shared.broker.desk_replies import BudgetName, Created, OverBudget
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.ending import restorable
from shared.broker.keys import account_keys, budget_key, of_key
from shared.broker.outbox import settle_ended_streams
from shared.broker.removal import delete_stream
from shared.broker.replies import Claimed, Code
from shared.broker.scripts import Ending
from shared.broker.settlement import settle
from shared.budgets import (
    SERVER,
    Budget,
    Budgets,
    Reservation,
    parse_budget,
    parse_reservations,
    period_at,
    resets_at,
)
from shared.protocol.ledger import LedgerEntry
from shared.protocol.lifecycle import Status
from shared.rate_limits import Demand, Limits
from tests.scripts.stream import DONE, SCRIPTS, TOKEN, Stream, now_ms, some

KEY, TOKENS, NANOS = "0123456789ab", 10, 500
UNLIMITED = Budgets(Budget(10**18, 10**15, "USD"), Budget(10**18, 10**15, "USD"))
Counts = dict[str, int]
#: Tokens and nanos of one stream, by account.
Reservations = dict[str, tuple[int, int]]


def demand(budgets: Budgets = UNLIMITED, *, tokens: int = TOKENS, nanos: int | None = NANOS) -> Demand:
    reservations = [Reservation(account, tokens, nanos, of) for account, of in ((KEY, budgets), (SERVER, UNLIMITED))]
    return Demand("an-account", Limits(), tokens, tuple(reservations))


def ending(tokens: int, cost: str) -> Ending:
    fields: dict[str, str | bytes | int] = {"finish_reason": "stop", "reason": "", "usage": "null"}
    return Ending(Status.COMPLETED, fields, tokens, cost=cost)


async def counts(client: Client, account: str = KEY) -> Counts:
    """Return the counts of a period, and check that the month has those of the day."""
    stored: dict[bytes, bytes] = await client.hgetall(budget_key(account))  # type: ignore[misc]
    found: dict[str, Counts] = {"d": {}, "m": {}}
    for name, n in stored.items():
        period, _, what = name.decode().partition(":")
        if not what.startswith("warned_"):
            found[period[0]][what] = int(n)
    assert found["d"] == found["m"]
    return {what: n for what, n in found["d"].items() if n}


async def created(client: Client, wanted: Demand) -> Stream:
    stream = Stream(client, key=False)
    assert isinstance(await create(client, SCRIPTS, stream.creation(demand=wanted)), Created)
    return stream


async def claimed(stream: Stream) -> tuple[Claimed, dict[str, bytes]]:
    found = await run_script(stream.client, SCRIPTS.claim(stream.id, TOKEN))
    assert isinstance(found, Claimed)
    return found, {name: bytes(value) for name, value in found.fields.items()}


RESERVED = {"reserved_tokens": TOKENS, "reserved_nanos": NANOS}


@pytest.mark.parametrize(
    ("tokens", "cost", "settled"),
    [
        (4, "120", {"tokens": 4, "nanos": 120}),
        (40, "7000", {"tokens": 40, "nanos": 7000}),
        (0, "0", {}),
        (4, "?", {"tokens": 4, "nanos": NANOS}),  # never free
    ],
)
async def test_a_settlement_replaces_the_reservation_once(
    client: Client, tokens: int, cost: str, settled: Counts
) -> None:
    stream = await created(client, demand())
    assert await counts(client) == await counts(client, SERVER) == RESERVED
    holder = await stream.claim()
    for _ in range(2):
        await stream.finish(holder, 1, [DONE], ending(tokens, cost))
        await settle_ended_streams(client, SCRIPTS, [stream.id])
    assert await counts(client) == await counts(client, SERVER) == settled
    assert not await stream.desk()


async def test_every_way_out_settles_once(client: Client) -> None:
    refused, deleted, expired = [await created(client, demand()) for _ in range(3)]
    await deleted.claim()
    assert await counts(client) == {name: 3 * n for name, n in RESERVED.items()}
    for _ in range(2):
        await settle(client, SCRIPTS, Settlement(refused.id, "an-account", Kind.REFUSED))
    assert await counts(client) == {name: 2 * n for name, n in RESERVED.items()}
    for _ in range(2):
        await delete_stream(client, SCRIPTS, deleted.id)
    # The use of a stream that is deleted while it runs is unknown, so it is charged what it reserved.
    assert await counts(client) == RESERVED | {"tokens": TOKENS, "nanos": NANOS}
    for _ in range(2):
        await settle(client, SCRIPTS, Settlement(expired.id, "an-account", Kind.EXPIRED))
    assert await counts(client) == await counts(client, SERVER) == {"tokens": 2 * TOKENS, "nanos": 2 * NANOS}


async def test_a_stream_that_is_deleted_before_it_runs_costs_nothing(client: Client) -> None:
    wanted = replace(demand(), limits=Limits(requests_per_minute=10, tokens_per_day=1000))
    stream = await created(client, wanted)
    for _ in range(2):
        await delete_stream(client, SCRIPTS, stream.id)
    assert await counts(client) == await counts(client, SERVER) == {}
    used = await client.hgetall(account_keys("an-account")["used"])  # type: ignore[misc]
    assert {name[:1]: int(n) for name, n in used.items() if int(n)} == {b"r": 1}  # the request was made


async def test_a_budget_is_charged_the_tokens_of_all_calls(client: Client) -> None:
    """The limits count the answer, whose last call had 4 tokens."""
    stream = await created(client, replace(demand(), limits=Limits(tokens_per_day=1000)))
    calls = [LedgerEntry(now_ms(), "p", "m", outcome, 6, 2) for outcome in ("broken_off", "completed")]
    await stream.finish(await stream.claim(), 1, [DONE], replace(ending(4, "120"), ledger=calls))
    assert await counts(client) == await counts(client, SERVER) == {"tokens": 16, "nanos": 120}


@pytest.mark.parametrize("kind", ["nanos", "tokens"])
@pytest.mark.parametrize("period", ["day", "month"])
async def test_a_refusal_names_the_budget_and_counts_nothing(client: Client, kind: str, period: str) -> None:
    amount = {"nanos": NANOS, "tokens": TOKENS}[kind]
    budget = Budget(**{kind: 3 * amount})  # type: ignore[arg-type]
    budgets = Budgets(**{period: budget})
    first = await created(client, demand(budgets))
    await first.finish(await first.claim(), 1, [DONE], ending(TOKENS, str(NANOS)))
    for _ in range(2):
        await created(client, demand(budgets))
    before = await counts(client)
    stream = Stream(client, key=False)
    answer = await create(client, SCRIPTS, stream.creation(demand=demand(budgets)))
    assert isinstance(answer, OverBudget)
    name = answer.budget
    assert (name.account, name.period[0], name.kind) == (KEY, period[0], kind)
    assert (answer.spent, answer.reserved) == (amount, 2 * amount)
    assert await counts(client) == before
    assert not await stream.state()
    # What is free again last is named first.
    wide = await create(client, SCRIPTS, Stream(client, key=False).creation(demand=demand(Budgets(budget, budget))))
    assert isinstance(wide, OverBudget)
    assert wide.budget.period[0] == "m"


async def test_a_refusal_leaves_the_other_budgets_and_limits_alone(client: Client) -> None:
    tight = Reservation(KEY, TOKENS, NANOS, Budgets(Budget(tokens=1)))
    wanted = replace(demand(), limits=Limits(tokens_per_day=1000))
    wanted = replace(wanted, reservations=(tight, wanted.reservations[1]))
    assert isinstance(await create(client, SCRIPTS, Stream(client, key=False).creation(demand=wanted)), OverBudget)
    assert not await client.keys("hr:{desk}:budget:*")
    assert not await client.keys("hr:{desk}:used:*")
    limited = replace(demand(), limits=Limits(tokens_per_day=1))
    assert not isinstance(await create(client, SCRIPTS, Stream(client, key=False).creation(demand=limited)), Created)
    assert not await client.keys("hr:{desk}:budget:*")


async def test_money_that_is_not_counted_and_money_in_another_currency(client: Client) -> None:
    free = await created(client, demand(nanos=None))
    assert await counts(client) == {"reserved_tokens": TOKENS}
    await free.finish(await free.claim(), 1, [DONE], ending(4, "99"))
    assert await counts(client) == {"tokens": 4}
    fixed = replace(demand(), reservations=(Reservation(KEY, TOKENS, NANOS, UNLIMITED, is_fixed=True),))
    stream = await created(client, fixed)
    assert await counts(client) == {"tokens": 4, **RESERVED}
    await stream.finish(await stream.claim(), 1, [DONE], ending(4, "99"))
    assert await counts(client) == {"tokens": 8, "nanos": NANOS}


async def test_large_amounts_are_exact(client: Client) -> None:
    """Lua's numbers have 53 bits, and print 14 digits."""
    whole = 123_456_789_012_345_677
    for n in (1, 2):
        stream = await created(client, demand(nanos=whole))
        assert (await counts(client))["reserved_nanos"] == whole
        await stream.finish(await stream.claim(), 1, [DONE], ending(1, str(whole)))
        assert await counts(client) == {"tokens": n, "nanos": n * whole}


async def test_a_lost_stream_that_waits_reserves_again(client: Client) -> None:
    stream = await created(client, demand())
    await client.delete(*await client.keys("hr:{desk}:*"))
    for _ in range(2):
        await requeue(client, SCRIPTS, stream.id)
        assert await counts(client) == await counts(client, SERVER) == RESERVED
    await stream.finish(await stream.claim(), 1, [DONE], ending(4, "120"))
    assert await counts(client) == await counts(client, SERVER) == {"tokens": 4, "nanos": 120}


@pytest.mark.parametrize(("cost", "nanos"), [("120", 120), ("?", NANOS)])
async def test_a_lost_stream_that_runs_is_charged_what_it_uses(client: Client, cost: str, nanos: int) -> None:
    stream = await created(client, demand())
    found, fields = await claimed(stream)
    holder = stream.holder(found.epoch)
    await stream.append(holder, 1, some(1, 2))
    await client.delete(*await client.keys("hr:{desk}:*"))
    await client.delete(*stream.keys[:7])
    other = await created(client, demand())  # reserves before the lost one is known again
    restored = SCRIPTS.restore(holder, some(1, 2), fields=restorable(fields), body_hash="ff")
    assert (await run_script(client, restored)).code is Code.OK
    await stream.renew(holder)
    assert await counts(client) == RESERVED
    for _ in range(2):
        await stream.finish(holder, 3, [DONE], ending(4, cost))
    assert await counts(client) == await counts(client, SERVER) == RESERVED | {"tokens": 4, "nanos": nanos}
    await other.finish(await other.claim(), 1, [DONE], ending(1, "1"))
    assert await counts(client) == {"tokens": 5, "nanos": nanos + 1}


async def test_a_settlement_without_the_budgets_gets_them_and_tries_again(client: Client) -> None:
    stream = await created(client, demand())
    await stream.end(await stream.claim(), 1, [DONE], ending(4, "120"))
    await client.hdel(stream.keys[0], "budgets")  # type: ignore[misc]
    await settle_ended_streams(client, SCRIPTS, [stream.id])
    assert await counts(client) == await counts(client, SERVER) == {"tokens": 4, "nanos": 120}


async def test_the_day_is_that_of_the_reservation_and_old_days_are_forgotten(client: Client) -> None:
    stream = await created(client, demand())
    today = now_ms() // 86_400_000
    old = {f"d{today - 1}:tokens": 7, f"d{today - 2}:tokens": 7, "m24000:tokens": 7, "d3:warned_nanos": 1}
    # The stream was admitted yesterday.
    word = (await stream.desk())["budgets"].replace(f":{today}", f":{today - 1}")
    await client.hset(of_key(stream.id), "budgets", word)  # type: ignore[misc]
    await client.delete(budget_key(KEY))
    await client.hset(budget_key(KEY), mapping=old | {f"d{today - 1}:reserved_tokens": TOKENS})  # type: ignore[misc]
    await created(client, demand())
    left = {name.decode() for name in await client.hkeys(budget_key(KEY))}  # type: ignore[misc]
    assert left & set(old) == {f"d{today - 1}:tokens"}
    await stream.finish(await stream.claim(), 1, [DONE], ending(4, "120"))
    stored = await client.hgetall(budget_key(KEY))  # type: ignore[misc]
    assert int(stored[f"d{today - 1}:tokens".encode()]) == 7 + 4
    assert int(stored[f"d{today - 1}:reserved_tokens".encode()]) == 0
    assert f"d{today}:tokens".encode() not in stored
    assert 61 * 86_400 < await client.ttl(budget_key(KEY)) <= 62 * 86_400


async def test_a_warning_comes_once_in_a_period(client: Client) -> None:
    budgets = Budgets(Budget(tokens=100), Budget(nanos=100_000, currency="USD"))

    async def warned(tokens: int, cost: int) -> Sequence[BudgetName]:
        stream = Stream(client, key=False)
        answer = await create(client, SCRIPTS, stream.creation(demand=demand(budgets)))
        assert isinstance(answer, Created)
        await stream.finish(await stream.claim(), 1, [DONE], ending(tokens, str(cost)))
        return answer.warnings

    assert await warned(79, 79_999) == ()
    assert await warned(1, 1) == ()
    both = await warned(0, 0)
    assert {(name.account, name.period[0], name.kind) for name in both} == {(KEY, "m", "nanos"), (KEY, "d", "tokens")}
    assert await warned(20, 0) == ()
    refused = await create(client, SCRIPTS, Stream(client, key=False).creation(demand=demand(budgets)))
    assert isinstance(refused, OverBudget)
    assert refused.warnings == ()


async def test_a_refusal_may_be_the_first_to_warn(client: Client) -> None:
    budgets = Budgets(Budget(tokens=100))
    stream = await created(client, demand(budgets))
    await stream.finish(await stream.claim(), 1, [DONE], ending(500, "1"))
    numbers = itertools.count()
    for n in numbers:
        refused = await create(client, SCRIPTS, Stream(client, key=False).creation(demand=demand(budgets)))
        assert isinstance(refused, OverBudget)
        assert len(refused.warnings) == (n == 0)
        if n == 2:
            break


class Model:
    """Budgets of two keys and of the server, as they must be: reservations by stream, and the spent amounts."""

    LIMITS: Final = {KEY: (60, 3000), "b" * 12: (35, 9000), SERVER: (80, 3500)}

    def __init__(self) -> None:
        self.reserved: dict[str, Reservations] = {}
        self.spent = {account: [0, 0] for account in self.LIMITS}

    def has_room(self, wanted: Reservations) -> bool:
        for account, more in wanted.items():
            held = [self.spent[account], *(each[account] for each in self.reserved.values() if account in each)]
            for kind, limit in enumerate(self.LIMITS[account]):
                if more[kind] and sum(each[kind] for each in held) + more[kind] > limit:
                    return False
        return True

    def settle(self, stream_id: str, used: tuple[int | None, int | None]) -> None:
        for account, reserved in self.reserved.pop(stream_id).items():
            for kind in (0, 1):
                amount = used[kind]
                self.spent[account][kind] += reserved[kind] if amount is None else amount


@pytest.mark.parametrize("seed", range(12))
async def test_no_order_of_steps_breaks_a_budget(client: Client, seed: int) -> None:
    """Admissions, endings, deletions and repeated settlements of many streams, in a random order."""
    chance, model, streams = random.Random(seed), Model(), list[Stream]()
    for _ in range(60):
        if chance.random() < 0.5 or not streams:
            amounts = chance.choice([(1, 20), (7, 300), (12, 900), (0, 0), (20, 1)])
            wanted = {chance.choice([KEY, "b" * 12]): amounts, SERVER: amounts}
            reservations = tuple(
                Reservation(account, *amounts, Budgets(Budget(nanos, tokens, "USD"), Budget(nanos, tokens, "USD")))
                for account, (tokens, nanos) in ((each, Model.LIMITS[each]) for each in wanted)
            )
            stream = Stream(client, key=False)
            new = stream.creation(demand=replace(demand(), reservations=reservations))
            verdict = await create(client, SCRIPTS, new)
            assert isinstance(verdict, Created) == model.has_room(wanted), verdict
            if isinstance(verdict, Created):
                model.reserved[stream.id] = wanted
                streams.append(stream)
        else:
            await _end_one(client, chance, model, streams)
    while streams:
        await _end_one(client, chance, model, streams)
    for account, (tokens, nanos) in model.spent.items():
        expected = {"tokens": tokens, "nanos": nanos}
        assert await counts(client, account) == {what: n for what, n in expected.items() if n}


async def _end_one(client: Client, chance: random.Random, model: Model, streams: list[Stream]) -> None:
    stream = streams.pop(chance.randrange(len(streams)))
    if chance.random() < 0.2:
        if runs := chance.random() < 0.5:
            await stream.claim()
        await delete_stream(client, SCRIPTS, stream.id)
        model.settle(stream.id, (None, None) if runs else (0, 0))
        return
    tokens, cost = chance.choice([(0, 0), (3, 100), (15, 2000), (5, None)])
    holder = await stream.claim()
    for _ in range(chance.choice([1, 2])):
        await stream.finish(holder, 1, [DONE], ending(tokens, "?" if cost is None else str(cost)))
    model.settle(stream.id, (tokens, cost))
    if chance.random() < 0.3:
        await delete_stream(client, SCRIPTS, stream.id)


async def test_lua_and_python_have_the_same_calendar(client: Client) -> None:
    source = SCRIPTS.desk.admit.__func__.__globals__["declarations"].ADMIT.source  # type: ignore[attr-defined]
    begin = source.index("local function month_of")
    function = source[begin : source.index("\nend\n", begin) + 5]
    script = f"{function} local found = {{}} for day = 0, 40000 do found[day + 1] = month_of(day) end return found"
    months = await client.eval(script, 0)  # type: ignore[misc]
    for day, month in enumerate(months):
        at = resets_at(f"d{day - 1}")
        assert period_at("day", at) == f"d{day}"
        assert period_at("month", at) == f"m{month}"
        assert resets_at(f"m{month}") > at
        assert (resets_at(f"m{month}") - at).days <= 31


def test_reservations_have_one_form() -> None:
    found = (Reservation(KEY, 10, 500), Reservation(SERVER, 10, None), Reservation("a", 0, 7, is_fixed=True))
    assert parse_reservations(Demand("a", Limits(), 1, found).budgets) == found
    assert parse_reservations("") == ()


@pytest.mark.parametrize("text", ["5 USD,2000000 tokens", "0.000000001 EUR", "7 tokens", ""])
def test_a_budget_has_one_form(text: str) -> None:
    assert parse_budget(text).text == text
