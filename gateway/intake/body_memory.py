"""Memory for request bodies: a budget of each process, from which a body takes its size before it is read.

A body holds its part until its request is stored or refused: the raw bytes, their parsed form and the copy on its way
to Redis live for as long. A body that finds no room waits unread, first come, first served. Small bodies have an
eighth of the budget to themselves, so that they never wait behind large ones.

A body takes its whole size at once, and one without a declared length the largest size that it may have. So no two
half-read bodies wait for each other.

The large bodies of one principal have at most half of the part for large bodies. So a principal that sends slowly
keeps no other one waiting, if the others' bodies fit into the rest.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from prometheus_client import Gauge

from gateway import metrics
from shared.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

#: Bodies up to this size are small. Larger ones are parsed in a thread.
SMALL_BODY_BYTES: Final = 256 * 1024


class _Pool:
    """A number of bytes, given out in the order of the requests for them. ``gauge``: shows what is taken."""

    def __init__(self, size: int, gauge: Gauge | None) -> None:
        self.size = size
        self._gauge = gauge
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_unused(self) -> bool:
        return self._free == self.size and not self._waiting

    def take_now(self, count: int) -> bool:
        """Take ``count`` bytes if they are free. Return False if the caller has to wait for them."""
        if self._waiting or count > self._free:
            return False
        self._remove(count)
        return True

    async def take(self, count: int) -> None:
        if self.take_now(count):
            return
        turn = count, asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn[1]
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
                self._admit()
            elif not turn[1].cancelled():
                self.give_back(count)
            raise

    def give_back(self, count: int) -> None:
        self._free += count
        if self._gauge is not None:
            self._gauge.dec(count)
        self._admit()

    def _remove(self, count: int) -> None:
        self._free -= count
        if self._gauge is not None:
            self._gauge.inc(count)

    def _admit(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._remove(count)
                turn.set_result(None)


class BodyMemory:
    """The budget of this process. ``wait_s``: longest wait of a body for its part."""

    def __init__(self, most_bytes: int, wait_s: float) -> None:
        self.small = _Pool(most_bytes // 8, metrics.BODY_MEMORY)
        self.large = _Pool(most_bytes - self.small.size, metrics.BODY_MEMORY)
        self._principals: dict[str, _Pool] = {}
        self.small_body_bytes = min(SMALL_BODY_BYTES, self.small.size)
        self.wait_s = wait_s
        #: Work on large bodies beside the event loop, one after another: threads would compete with it.
        self.beside_loop = asyncio.Semaphore(1)

    def begin(self, principal: str | None) -> "BodyShare":
        """Return the share of a request, which is the current one of its task until :func:`release_body`.
        ``principal``: None if authentication is disabled, so that all requests have the same one."""
        share = BodyShare(self, principal)
        _current.set(share)
        return share

    def of_principal(self, principal: str) -> _Pool:
        """Return the principal's own half of the part for large bodies. A larger body takes all of it."""
        for name in [name for name, pool in self._principals.items() if pool.is_unused]:
            del self._principals[name]
        return self._principals.setdefault(principal, _Pool(self.large.size // 2, None))


class BodyShare:
    """The part of the budget that one request holds. ``size``: bytes of its content so far."""

    def __init__(self, memory: BodyMemory, principal: str | None) -> None:
        self.memory = memory
        self._principal = principal
        self._held: dict[_Pool, int] = {}
        self.size = 0

    async def take(self, count: int) -> None:
        """Take ``count`` bytes in all, or keep what is held if that is enough. Raises :class:`Overloaded`.

        A share that holds a part for large bodies takes no other, so that two shares never wait for each other."""
        memory = self.memory
        is_small = count <= memory.small_body_bytes
        if not count or memory.large in self._held or (is_small and memory.small in self._held):
            return
        if is_small and memory.small.take_now(count):  # without a timer
            self._held[memory.small] = count
            return
        # First the principal's own half: while a body waits for that, it is in no other principal's way.
        own = [] if is_small or self._principal is None else [memory.of_principal(self._principal)]
        pools = [*own, memory.small if is_small else memory.large]
        try:
            async with asyncio.timeout(memory.wait_s):
                for pool in pools:
                    part = min(count, pool.size)
                    await pool.take(part)
                    self._held[pool] = self._held.get(pool, 0) + part  # of an earlier take that timed out, too
        except TimeoutError:
            metrics.REFUSALS.labels(Overloaded.code).inc()
            raise Overloaded from None

    def shrink(self, count: int) -> None:
        """Give back what is held beyond ``count`` bytes."""
        for pool, held in self._held.items():
            if held > count:
                pool.give_back(held - count)
                self._held[pool] = count

    def release(self) -> None:
        while self._held:
            pool, held = self._held.popitem()
            pool.give_back(held)


_current: ContextVar[BodyShare | None] = ContextVar("body_share", default=None)


def carry_on(share: BodyShare) -> None:
    """Make a share that was taken elsewhere the current one of this task."""
    _current.set(share)


def release_body() -> None:
    """Give back the part of the current request. A second call has no effect."""
    if (share := _current.get()) is not None:
        share.release()


def releases_body(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Give back the part of the current request when ``function`` has stored or refused it."""

    @wraps(function)
    async def releasing(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        finally:
            release_body()

    return releasing


async def take_memory(count: int) -> None:
    """Take memory for content that the current request refers to. Raises :class:`Overloaded`."""
    if (share := _current.get()) is not None:
        await share.take(count)
        share.size += count


async def run_beside_loop(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function``, in a thread if the current request's body is large, so that others do not wait for it."""
    share = _current.get()
    if share is None or share.size <= SMALL_BODY_BYTES:
        return function(*args, **kwargs)
    async with share.memory.beside_loop:
        return await asyncio.to_thread(function, *args, **kwargs)
