"""Shapes of load: the times of requests. Each keeps to the number of requests that was announced."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["steady", "arrivals", "burst"]
#: Wait of a user after a failure, so that a refusing system is not flooded.
_BACKOFF_S = 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """``steady``: ``streams`` users that ask again after each answer; ``arrivals``: ``rate`` new requests a
    second, however many run; ``burst``: ``streams`` requests at once. ``ramp_s``: time until the load is full.
    ``requests``: at most so many."""

    kind: Kind
    streams: int
    rate: float
    ramp_s: float
    seconds: float
    requests: int

    @property
    def planned(self) -> int:
        """Number of requests that this load makes at most."""
        if self.kind == "burst":
            return min(self.requests, self.streams)
        if self.kind == "arrivals":
            return min(self.requests, math.ceil(self.rate * (self.seconds - self.ramp_s / 2)))
        return self.requests

    async def run(self, ask: Callable[[int], Awaitable[bool]]) -> None:
        """Run the load. ``ask``: makes the request of a number, and returns False for a failure. Ends when all
        answers have ended; none begins after ``seconds``."""
        ends, left = time.monotonic() + self.seconds, iter(range(1, self.planned + 1))
        if self.kind == "steady":
            users = (self._user(n, ends, left.__next__, ask) for n in range(self.streams))
            await asyncio.gather(*users)
            return
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in left:
                await asyncio.sleep(began + self._starts_at(number) - time.monotonic())
                group.create_task(_once(ask, number))

    async def _user(
        self, n: int, ends: float, next_number: Callable[[], int], ask: Callable[[int], Awaitable[bool]]
    ) -> None:
        await asyncio.sleep(self.ramp_s * n / self.streams)
        while time.monotonic() < ends:
            try:
                number = next_number()
            except StopIteration:
                return
            if not await ask(number):
                await asyncio.sleep(_BACKOFF_S)

    def _starts_at(self, number: int) -> float:
        """Return when a request begins, in seconds from the start. The rate of arrivals rises evenly in the ramp."""
        if self.kind == "burst":
            return self.ramp_s * (number - 1) / self.planned
        in_ramp = self.rate * self.ramp_s / 2
        if number <= in_ramp:
            return math.sqrt(2 * number * self.ramp_s / self.rate)
        return self.ramp_s + (number - in_ramp) / self.rate


async def _once(ask: Callable[[int], Awaitable[bool]], number: int) -> None:
    await ask(number)
