"""Idle timeouts of a provider: before its first token and between tokens.

Keep-alive messages of a provider do not count as tokens, except Anthropic's within its thinking. No time passes while
this worker does not read: the stream's window is full, or the process stood still (it was stopped, its machine slept,
its event loop was blocked).
"""

import asyncio
import math
from types import TracebackType
from typing import Final, Self

from shared.errors import ProviderError
from shared.setting_types import Timeouts
from workers.providers.errors import provider_failure

#: A timer that fires later than this shows that the process stood still.
_STOOD_STILL_S: Final = 0.25


class IdleTimeout:
    """A scope around one call of a provider. Raises :class:`ProviderError` when a timeout passes.

    The only timer is set again when it fires, so that a token costs no more than reading the clock.
    """

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self._name = name
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._has_output = False
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

    def pause(self) -> None:
        """Stop the clock: something has arrived and is being processed."""
        self._has_output = True
        self._due = math.inf

    def resume(self) -> None:
        """Start the clock: the next token is awaited."""
        self._due = self._loop.time() + self._timeouts.between_tokens_s

    def _on_timer(self) -> None:
        now = self._loop.time()
        late_s = now - self._timer_at
        if late_s > _STOOD_STILL_S:
            self._due += late_s
        if self._due <= now:
            self._scope.reschedule(now)
        else:
            self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        self._timer_at = min(self._due, now + self._timeouts.between_tokens_s)
        self._timer = self._loop.call_at(self._timer_at, self._on_timer)

    def _error(self) -> ProviderError:
        if self._has_output:
            code, waited_s = "provider_idle_timeout", self._timeouts.between_tokens_s
            setting = "HEADRACE_BETWEEN_TOKENS_TIMEOUT_S"
        else:
            code, waited_s = "provider_first_token_timeout", self._timeouts.first_token_s
            setting = "HEADRACE_FIRST_TOKEN_TIMEOUT_S"
        detail = f"no output for {waited_s:g} s; see {setting} and HEADRACE_MODEL_TIMEOUTS"
        return provider_failure(code, self._name, detail=detail)
