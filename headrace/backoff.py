"""How long and how often to try again."""

import asyncio
import random
import time

LONGEST_DELAY_S = 5.0


class BackoffExpired(Exception):
    """Nothing came for too long; the message tells how long and the last problem."""


class Backoff:
    """``delay_s`` is the pause before the first new try, as the server wishes; after it, each is twice the last."""

    def __init__(self, total_s: float) -> None:
        self.delay_s = 1.0
        self._total_s = total_s
        self._failures = 0
        self._out_at = 0.0

    @property
    def is_fresh(self) -> bool:
        return self._failures == 0

    def renew(self) -> None:
        """Something came."""
        self._failures = 0

    async def wait(self, problem: str, at_least_s: float | None = None) -> None:
        """Until the next try. Raises :class:`BackoffExpired` when there has been a last one."""
        now = time.monotonic()
        if self.is_fresh:
            self._out_at = now + self._total_s
        if now >= self._out_at:
            raise BackoffExpired(f"gave up after {self._total_s:g} s: {problem}")
        await asyncio.sleep(min(max(self._delay(), at_least_s or 0), self._out_at - now))
        self._failures += 1

    def _delay(self) -> float:
        if self.is_fresh:
            return self.delay_s
        longer = max(self.delay_s, 0.1) * 2.0 ** min(self._failures, 16)
        return min(longer, max(LONGEST_DELAY_S, self.delay_s)) * random.uniform(0.75, 1)  # noqa: S311  # jitter
