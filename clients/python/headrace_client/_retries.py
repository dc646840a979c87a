"""Delays between retries, without I/O."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headrace_client.errors import HeadraceError

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 5.0
_JITTER: Final = 0.25


@dataclass(frozen=True, slots=True)
class Retry:
    """A failure that is retried after ``delay_s``. ``attempt`` is 1 for the first one after progress."""

    error: HeadraceError
    delay_s: float
    attempt: int


OnRetry = Callable[[Retry], None]


class Retries:
    """Exponential backoff with jitter and a total time.

    ``first_delay_s`` may be set by a server's ``retry:``. The jitter keeps clients apart that lost their connections
    together.
    """

    def __init__(self, total_s: float) -> None:
        self.first_delay_s = FIRST_DELAY_S
        self._total_s = total_s
        self._failures = 0
        self._expires_at = 0.0

    def reset(self) -> None:
        """Start again with the shortest delay and the whole time, after progress."""
        self._failures = 0

    def next(self, failure: HeadraceError) -> Retry:
        """Return the next retry.

        Raises ``failure`` if it is final, or if the time is over, or would be over before the server's
        ``Retry-After``.
        """
        if not failure.retryable:
            raise failure
        now = time.monotonic()
        if self._failures == 0:
            self._expires_at = now + self._total_s
        left = self._expires_at - now
        least = failure.retry_after_s or 0.0
        if left <= 0 or least > left:
            raise failure.after_retries(self._total_s)
        delay = self._backoff_s()
        self._failures += 1
        if least:
            delay = max(delay, least * random.uniform(1, 1 + _JITTER))  # noqa: S311  # jitter
        return Retry(failure, min(delay, max(left, least)), self._failures)

    def _backoff_s(self) -> float:
        jitter = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # jitter
        if self._failures == 0:
            return self.first_delay_s * jitter
        longer = max(self.first_delay_s, 0.1) * 2.0 ** min(self._failures, 16)
        return min(longer, max(LONGEST_DELAY_S, self.first_delay_s)) * jitter
