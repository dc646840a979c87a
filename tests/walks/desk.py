"""The desk's part of a walk: places that are held, endings that are settled, and the sweep."""

from shared.broker.creation import requeue
from shared.broker.desk_replies import Held, OtherLanes
from shared.broker.desk_requests import Settlement
from shared.broker.keys import QUEUE, WAITING, job_id_of, job_key
from shared.broker.outbox import settle_ended_streams, settle_gone_streams
from shared.broker.replies import WriteReply
from shared.broker.settlement import settle, settle_ended
from shared.protocol.usage import decode_usage
from tests.walks.bench import FATE, PICK, Bench
from tests.walks.ground import STORED, USED, Ground
from tests.walks.moves import move
from workers.writing.writer import StreamWriter


class Desk(Ground):
    """``unsettled``: endings of which the second step is missing, with the lanes."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.unsettled: list[tuple[Settlement, str]] = []

    async def _hold(self, writer: StreamWriter, renewed: WriteReply, fate: str) -> None:
        """Hold the place at the desk."""
        held = None
        for is_lost in (False, False, True):
            if held in {None, Held.UNKNOWN} or isinstance(held, OtherLanes):
                call = writer.place.hold(self.scripts, renewed, is_lost=is_lost or held is Held.UNKNOWN)
                held = await self._faulty(call, None, fate)
                if isinstance(held, OtherLanes):
                    writer.place.lanes = held.lanes
        assert not (fate == "answered" and held is Held.UNKNOWN), "the desk does not count a stream that runs"

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
        if redis.ended and self.age == 1:  # Redis has lost nothing
            used: dict[bytes, bytes] = await self.client.hgetall(USED)  # type: ignore[misc]
            (today,) = [int(count) for name, count in used.items() if name.startswith(b"d")]
            usage = decode_usage(redis.state[b"usage"].decode()) or {"input_tokens": 0, "output_tokens": 0}
            is_free = usage.get("estimated") and not usage["output_tokens"]
            tokens = 0 if is_free else usage["input_tokens"] + usage["output_tokens"]
            assert today == tokens, f"{today} tokens are counted, of {tokens}"
