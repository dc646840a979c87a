"""Exponential backoff with a total timeout."""

import asyncio
import random
import time

LONGEST_DELAY_S = 5.0


class BackoffExpired(Exception):
    """Retries failed for too long; the message has the duration and the last problem."""


class Backoff:
    """Delays between retries: first ``delay_s``, which a server may set, then each twice the last."""

    def __init__(self, total_s: float) -> None:
        self.delay_s = 1.0
        self._total_s = total_s
        self._failures = 0
        self._expires_at = 0.0

    @property
    def is_fresh(self) -> bool:
        return self._failures == 0

    def reset(self) -> None:
        """Start again with the shortest delay and the whole timeout, after progress."""
        self._failures = 0

    async def wait(self, problem: str, at_least_s: float | None = None) -> None:
        """Wait until the next retry. Raises :class:`BackoffExpired` if the timeout is over."""
        now = time.monotonic()
        if self.is_fresh:
            self._expires_at = now + self._total_s
        if now >= self._expires_at:
            raise BackoffExpired(f"gave up after {self._total_s:g} s: {problem}")
        await asyncio.sleep(min(max(self._delay(), at_least_s or 0), self._expires_at - now))
        self._failures += 1

    def _delay(self) -> float:
        if self.is_fresh:
            return self.delay_s
        longer = max(self.delay_s, 0.1) * 2.0 ** min(self._failures, 16)
        return min(longer, max(LONGEST_DELAY_S, self.delay_s)) * random.uniform(0.75, 1)  # noqa: S311  # jitter
