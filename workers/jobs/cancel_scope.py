"""A scope with a deadline that can also be interrupted."""

import asyncio
from types import TracebackType


class DeadlineExceeded(Exception):
    """The deadline of a :class:`CancelScope` has passed."""


class Interrupted(Exception):
    """:meth:`CancelScope.interrupt` was called."""


class CancelScope:
    """A scope that ends with :class:`DeadlineExceeded` or :class:`Interrupted`. A late interruption does nothing."""

    def __init__(self, deadline_s: float) -> None:
        self._scope = asyncio.timeout(deadline_s)
        self._open = False
        self._interrupted = False

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._open = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise (Interrupted if self._interrupted else DeadlineExceeded) from None

    def interrupt(self) -> None:
        if self._open and not self._scope.expired():
            self._interrupted = True
            self._scope.reschedule(asyncio.get_running_loop().time())
