"""Other streams in the queue and at a provider's limit, and the class of the walk's stream."""

import itertools
from typing import Final

from shared.broker.client import run_commands, run_script
from shared.broker.desk_requests import Place
from shared.broker.keys import QUEUE, job_id_of, provider_limit_keys
from shared.protocol.ids import new_stream_id
from shared.rate_limits import Demand, Limits
from tests.walks.archive import Archived
from tests.walks.bench import LANES, Bench
from tests.walks.moves import move
from workers.jobs.claims import hand_over
from workers.writing.writer import StreamWriter

_BATCH: Final = 1 << 56
#: Interactive streams of which one takes a batch stream with it.
_MOST_PASSING: Final = 9
_OTHERS: Final = Demand("others", Limits(), 0)
_RUNNING: Final = provider_limit_keys(LANES[0])[0]


class Contended(Archived):
    """``is_contended``: there are other streams. ``is_batch``: the class of the walk's stream. ``arrived``: number of
    interactive streams since. ``handed_over``: writers that have released the stream, and not yet its place."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.is_contended = self.is_batch = self.is_full = False
        self.arrived = 0
        self.handed_over: list[StreamWriter] = []

    @property
    def fields_of_class(self) -> dict[str, str]:
        return {"priority": "batch"} if self.is_batch else {}

    @move(1, lambda self: self.is_contended)
    async def another_arrives(self) -> None:
        """An interactive stream is queued."""
        self.arrived += 1
        await run_script(self.client, self.scripts.desk.admit(Place(new_stream_id(None), _OTHERS, 100)))

    @move(2, lambda self: self.is_contended and not self.is_full)
    async def another_runs(self) -> None:
        """Another stream takes the only slot of the first provider, if that is free."""
        if not await self.client.zcard(_RUNNING):
            await run_commands(self.client, [("ZADD", _RUNNING, 10**15, "another"), ("PEXPIRE", _RUNNING, 600_000)])
            self.is_full = True

    @move(2, lambda self: self.is_full)
    async def another_ends(self) -> None:
        await self._end_another()

    async def _end_another(self) -> None:
        await self.client.zrem(_RUNNING, "another")
        self.is_full = False

    @move(3, lambda self: self.is_contended)
    async def unpark(self) -> None:
        for provider, limits in self.scripts.target_limits.items():
            await run_script(self.client, self.scripts.desk.unpark(provider, limits))

    @move(4, lambda self: self.handed_over)
    async def leave_place(self) -> None:
        """Let the next worker take the place of a stream that was handed over, perhaps late."""
        await hand_over(self.client, self.scripts, self.handed_over.pop(0))

    async def _leave_queue(self) -> None:
        """A worker takes the id, if it is queued. Without other streams it stays, since nothing looks at its turn."""
        if self.is_contended:
            await self.client.zrem(QUEUE, job_id_of(self.stream_id))

    async def _check_class(self) -> None:
        """The stream waits among those of its class, also if the desk had lost it. Nothing parks it twice."""
        turns = await self._turns()
        may_pass = self.is_batch and self.arrived >= _MOST_PASSING
        for turn in itertools.chain(*turns.values()):
            assert may_pass or (turn >= _BATCH) is self.is_batch, f"it waits with the wrong class: {turns}"

    async def _turns(self) -> dict[str, list[float]]:
        """Return the turns with which the stream is queued and parked."""
        queued, *parked = await run_commands(
            self.client,
            [
                ("ZSCORE", QUEUE, job_id_of(self.stream_id)),
                *(("ZSCORE", provider_limit_keys(provider)[1], self.stream_id) for provider in LANES[:2]),
            ],
        )
        found = {"queued": [queued], "parked": parked}
        return {name: [float(turn) for turn in turns if turn is not None] for name, turns in found.items()}

    async def _check_settled(self) -> None:
        await super()._check_settled()
        assert not any((await self._turns()).values()), "an ended stream waits"
