"""What every network provider does alike: turn trouble into ProviderError, and ask for a list of models."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

import httpx2

from shared.settings import Timeouts
from workers.providers.base import Finished, Offer
from workers.providers.errors import Upstream, provider_error

#: Waiting for a free connection in our own pool, which is sized so that it never happens.
_POOL_TIMEOUT_S: Final = 5.0
OFFER_TIMEOUT_S: Final = 3.0
#: Connections beyond the streams themselves, for lists of models and for sockets still closing.
SPARE_CONNECTIONS: Final = 16
#: For servers that want no key: SDKs refuse to go without, or would look for one elsewhere.
NO_KEY: Final = "none"

Catch = tuple[type[Exception], ...]
#: SDKs leak raw socket errors, and they build their models without validating them, so that an answer of the wrong
#: shape shows as any of the others; JSON that is nested without end as the last.
NETWORK_ERRORS: Final[Catch] = (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)


class ProviderCall:
    """One request and its answer, as a context manager around both.

    Exceptions in ``catch`` leave it as ProviderError, without their cause: that may echo prompt and key. Once
    ``finished`` is set the answer is whole, and trouble with what remains of the response is nobody's concern.
    """

    def __init__(self, upstream: Upstream, model: str, catch: Catch) -> None:
        self.started = False
        self.finished: Finished | None = None
        self._upstream = upstream
        self._model = model
        self._catch = catch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, self._catch):
            return False
        if self.finished is None:
            raise provider_error(error, self._upstream, model=self._model, started=self.started) from None
        return True


def timeout_of(timeouts: Timeouts) -> httpx2.Timeout:
    """Only for what happens before the answer: its silences are watched by ``workers/providers/idle_timeout.py``."""
    return httpx2.Timeout(None, connect=timeouts.connect_s, pool=_POOL_TIMEOUT_S)


def check_type(headers: Mapping[str, str]) -> None:
    """Raises ValueError for what is no stream, as a web page of a proxy: it would look like an answer cut off."""
    if headers.get("content-type", "").startswith(("text/html", "application/json")):
        raise ValueError("not a stream")


async def offer(configured: tuple[str, ...], ask: Callable[[], Awaitable[Iterable[str]]], catch: Catch) -> Offer:
    """What the operator ``configured``; else what the provider says when asked; else anything."""
    if configured:
        return Offer(configured)
    try:
        async with asyncio.timeout(OFFER_TIMEOUT_S):
            models = tuple(await ask())
    except catch:
        models = ()
    return Offer(models, open=not models)
