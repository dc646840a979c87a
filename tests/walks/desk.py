"""The desk's part of a walk: places that are held, endings that are settled, and the sweep."""

import time
from typing import NamedTuple

from shared.broker.creation import requeue
from shared.broker.desk_replies import Held, OtherLanes
from shared.broker.desk_requests import Settlement
from shared.broker.keys import QUEUE, WAITING, job_id_of, job_key
from shared.broker.outbox import settle_ended_streams, settle_gone_streams
from shared.broker.replies import WriteReply
from shared.broker.settlement import settle, settle_ended
from shared.broker.usage import UsageRow, read_usage, rows_of
from shared.protocol.ledger import UNKNOWN_COST, decode_ledger, nanos_of_calls
from shared.protocol.usage import decode_usage
from tests.walks.actors import Redis
from tests.walks.bench import DEMAND, FATE, PICK, RESERVATIONS, RESERVED_NANOS, Bench
from tests.walks.ground import STORED, USED, Ground
from tests.walks.moves import move
from workers.writing.writer import StreamWriter


class Renewed(NamedTuple):
    """A renewal whose place at the desk is to be extended. ``is_lost``: the desk did not know the stream before."""

    writer: StreamWriter
    reply: WriteReply
    is_lost: bool


class Desk(Ground):
    """``unsettled``: endings of which the second step is missing, with the lanes. ``renewed``: renewals of which it
    is missing. ``unknown``: writers whose place the desk did not know."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.unsettled: list[tuple[Settlement, str]] = []
        self.renewed: list[Renewed] = []
        self.unknown: set[StreamWriter] = set()
        #: Tokens of a dropped answer: for the limits, and for the budgets.
        self.tokens_of_dropped: tuple[int, int] | None = None

    @move(3, lambda self: self.renewed, pick=PICK, fate=FATE)
    async def hold(self, *, pick: int, fate: str) -> None:
        """Extend a place at the desk late: the stream may have ended since its renewal."""
        await self._hold(self.renewed.pop(pick % len(self.renewed)), fate)

    async def _hold(self, renewed: Renewed, fate: str) -> None:
        """Extend the place at the desk, as ``workers.writing.leases`` does."""
        writer, held = renewed.writer, None
        for _ in range(2):
            if held is None or isinstance(held, OtherLanes):
                call = writer.place.hold(self.scripts, renewed.reply, is_lost=renewed.is_lost)
                held = await self._faulty(call, None, fate)
                if isinstance(held, OtherLanes):
                    writer.place.lanes = held.lanes
        assert not (renewed.is_lost and held is Held.UNKNOWN), "the desk does not count a stream that runs"
        if held is Held.UNKNOWN:
            self.unknown.add(writer)

    def _lost_something(self) -> None:
        self.age += 1
        self.claims_at_this_age = 0
        self.buried = False
        # Nothing protects a Redis that loses its mark of a stream as well, when it had lost the stream before.
        self.renewed = [renewed for renewed in self.renewed if not renewed.is_lost]

    @move(3, lambda self: self.unsettled, pick=PICK, fate=FATE)
    async def settle(self, *, pick: int, fate: str) -> None:
        """Settle an ending as its worker does, perhaps late."""
        settlement, lanes = self.unsettled.pop(pick % len(self.unsettled))
        for _ in range({"doubled": 2, "request lost": 0}.get(fate, 1)):
            if fate == "reply lost":
                await settle(self.client, self.scripts, settlement, lanes)
            else:
                await settle_ended(self.client, self.scripts, settlement, lanes)

    @move(1)
    async def sweep(self) -> None:
        await self._sweep()

    async def _sweep(self) -> None:
        """Look at the stream as the sweep does, if the index has it."""
        redis = self.redis = await self._look()
        if redis.next_look is None:
            return
        if redis.missing:
            await settle_gone_streams(self.client, self.scripts, [self.stream_id])
        elif redis.ended:
            await settle_ended_streams(self.client, self.scripts, [self.stream_id])
        elif not redis.held:
            await requeue(self.client, self.scripts, self.stream_id)

    async def _check_settled(self) -> None:
        """After one sweep, both steps of every ending and removal are done."""
        await self._sweep()
        redis = self.redis = await self._look()
        stored: dict[bytes, bytes] = await self.client.hgetall(STORED)  # type: ignore[misc]
        assert not await self._is_at_desk(), "the desk still has the stream"
        assert redis.next_look is None, "the sweep looks at the stream for ever"
        assert not await self.client.exists(job_key(self.stream_id)), "its job stays"
        assert await self.client.zscore(QUEUE, job_id_of(self.stream_id)) is None, "it is queued"
        assert await self.client.zscore(WAITING, self.stream_id) is None, "it waits"
        has_bytes = self.stream_id.encode() in stored
        # Bytes of a stream that Redis has lost are counted until it would have expired.
        assert has_bytes == redis.ended or (has_bytes and self.age > 1), f"its bytes are counted as {stored}"
        used_up = tokens_of(redis) if redis.ended else self.tokens_of_dropped
        if used_up is not None and self.age == 1:  # Redis has lost nothing
            tokens, charged = used_up
            used: dict[bytes, bytes] = await self.client.hgetall(USED)  # type: ignore[misc]
            (today,) = [int(count) for name, count in used.items() if name.startswith(b"d")]
            assert today == tokens, f"{today} tokens are counted, of {tokens}"
            await self._check_spent(charged)
        if redis.ended and self.age == 1:
            ledger = decode_ledger(redis.state.get(b"ledger"))
            now = int(time.time()) // 86_400
            counted = await read_usage(self.client, [now - 1, now], DEMAND.account)
            assert sorted(counted, key=_place) == sorted(rows_of(ledger), key=_place), "other calls are counted"

    async def _check_spent(self, tokens: int) -> None:
        """Each budget is charged what all calls used, and as long as it is known what that cost."""
        for account in (each.account for each in RESERVATIONS):
            for period, counts in (await self._budget(account)).items():
                assert counts["tokens"] == tokens, f"{account} {period}: {counts}, not {tokens} tokens"
                if self.redis.ended:
                    cost = nanos_of_calls(decode_ledger(self.redis.state.get(b"ledger")))
                    nanos = RESERVED_NANOS if cost == UNKNOWN_COST else int(cost)
                    assert counts["nanos"] == nanos, f"{account} {period}: {counts}, not {nanos} nanos"


def _place(row: UsageRow) -> tuple[object, ...]:
    return row.day, row.target, row.currency


def tokens_of(ended: Redis) -> tuple[int, int]:
    """Return the tokens that the answer of an ended stream costs, and those of all its calls."""
    usage = decode_usage(ended.state[b"usage"].decode()) or {"input_tokens": 0, "output_tokens": 0}
    is_free = usage.get("estimated") and not usage["output_tokens"]
    tokens = 0 if is_free else usage["input_tokens"] + usage["output_tokens"]
    ledger = decode_ledger(ended.state.get(b"ledger"))
    return tokens, sum(each.input_tokens + each.output_tokens for each in ledger) if ledger else tokens
