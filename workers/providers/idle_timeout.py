"""How long a provider may be silent: before its first token, and between two.

What a provider sends to keep a connection open is silence too. No time passes while nobody reads it: its stream's
window is full, or this process stood still (it was stopped, its machine slept, something blocked its loop).
"""

import asyncio
import math
from types import TracebackType
from typing import Final, Self

from shared.errors import ProviderError
from shared.settings import Timeouts

#: A timer that rings so much later than it was set for tells of a process that stood still.
_STOOD_STILL_S: Final = 0.25


class IdleTimeout:
    """A scope around one call of a provider, left by :class:`ProviderError` where it is silent for too long.

    One timer, set again only when it rings: a token costs no more than a look at the clock.
    """

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self._name = name
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._has_spoken = False
        self._due = math.inf

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        now = self._loop.time()
        self._due = now + self._timeouts.first_token_s
        self._set_timer(now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._error() from None

    def ends(self) -> None:
        """It has said something, which is now being taken."""
        self._has_spoken = True
        self._due = math.inf

    def begins(self) -> None:
        """What it said is taken; the next is awaited."""
        self._due = self._loop.time() + self._timeouts.between_tokens_s

    def _ring(self) -> None:
        now = self._loop.time()
        late_s = now - self._rings_at
        if late_s > _STOOD_STILL_S:
            self._due += late_s
        if self._due <= now:
            self._scope.reschedule(now)
        else:
            self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        self._rings_at = min(self._due, now + self._timeouts.between_tokens_s)
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _error(self) -> ProviderError:
        if self._has_spoken:
            code, waited_s = "provider_idle_timeout", self._timeouts.between_tokens_s
        else:
            code, waited_s = "provider_first_token_timeout", self._timeouts.first_token_s
        return ProviderError(code, f"{self._name} sent nothing for {waited_s:g} s", retryable=True)
