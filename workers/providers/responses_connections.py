"""Connections to an answer that a server of Responses stores: a broken one is replaced, and the answer goes on.

OpenAI refuses to stream an answer that is more than five minutes old. Its response is then polled until it is whole.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import quote

from openai import APIConnectionError, APIStatusError, AsyncOpenAI, AsyncStream, RequestOptions

from workers.providers.base import Delta, Replayed, Sink
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.framing import CutOffError, EventCutter
from workers.providers.http_calls import ProviderCall, check_type, timeout_of
from workers.providers.openai import headers_of
from workers.providers.reading import BROKEN, deltas_of
from workers.providers.response_body import ResponseBody
from workers.providers.responses_stored import Interrupted, PlacingSink, StillRunning, StoredReader

logger = logging.getLogger(__name__)

PATH: Final = "/responses"
#: Waits before the further connections. With each event that comes they begin anew.
_WAITS_S: Final = (0.1, 0.5, 2.0)
_POLL_S: Final = 1.0
_CANCEL_S: Final = 5.0
#: Statuses of a GET that may pass.
_PASSING: Final = frozenset({408, 409, 425, 429})
#: Statuses of a GET for an answer that the server does not have, or does not stream.
_ABOUT_ANSWER: Final = frozenset({400, 404, 405, 410, 422})
#: Statuses of a cancel for an answer that has ended or is not stored any more.
_ENDED: Final = frozenset({400, 404, 409, 410, 422})
_INTERRUPTIONS: Final[tuple[type[Exception], ...]] = (
    *BROKEN,
    Interrupted,
    CutOffError,
    APIConnectionError,
    APIStatusError,
)


@dataclass(frozen=True, slots=True)
class Access:
    """Requests about stored answers of one server, with one key."""

    client: AsyncOpenAI
    endpoint: Endpoint
    key: ApiKey | None
    model: str = ""

    @property
    def options(self) -> RequestOptions:
        timeout = timeout_of(self.endpoint.timeouts(self.model))
        return {"timeout": timeout, "headers": headers_of(self.endpoint, self.key)}

    @asynccontextmanager
    async def get(self, response_id: str, query: dict[str, str]) -> AsyncIterator[ResponseBody]:
        """Read a stored answer."""
        response = await self.client.get(
            _path(response_id),
            cast_to=object,
            options={**self.options, "params": query},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async with response:
            check_type(response.response.headers)
            yield ResponseBody(response.response.aiter_bytes())

    async def cancel(self, response_id: str) -> None:
        """Stop a stored answer, unless it has ended."""
        try:
            async with asyncio.timeout(_CANCEL_S):
                response = await self.client.post(
                    f"{_path(response_id)}/cancel",
                    cast_to=object,
                    options=self.options,
                    stream=True,
                    stream_cls=AsyncStream[object],
                )
                await response.close()
        except APIStatusError as error:
            if error.status_code not in _ENDED:
                raise


class StoredAnswer:
    """One stored answer, read over as many connections as it takes."""

    def __init__(
        self, access: Access, reader: StoredReader, call: ProviderCall, end_grace_s: float, sink: Sink | None
    ) -> None:
        self._access = access
        self._reader = reader
        self._call = call
        self._end_grace_s = end_grace_s
        self._sink = None if sink is None else PlacingSink(reader, sink)
        self._polls = False

    async def deltas(self, body: ResponseBody | None = None) -> AsyncGenerator[list[Delta], None]:
        """Yield the deltas of each read. ``body``: of the first connection, if there is one already. Raises its
        failure if no other connection continues the answer."""
        fault: Exception | None = None
        tries, taken = 0, self._reader.place.taken
        while True:
            try:
                async with aclosing(self._of_connection(body)) as reads:
                    async for deltas in reads:
                        yield deltas
            except StillRunning:
                for placed in self._reader.placed([]):
                    yield placed
                self._polls, tries = True, 0
                await asyncio.sleep(_POLL_S)
            except _INTERRUPTIONS as error:
                if not self._reader.place.is_stored:
                    raise
                tries, taken = (0 if self._reader.place.taken > taken else tries), self._reader.place.taken
                fault = fault if fault is not None and tries else error
                if tries == len(_WAITS_S) or not self._may_pass(error):
                    self._fail(fault)
                extra = {"provider": self._call.provider, "model": self._access.model, "cause": type(error).__name__}
                logger.warning("provider connection replaced", extra=extra)
                await asyncio.sleep(_WAITS_S[tries])
                tries += 1
            else:
                return
            body = None

    async def replay(self, at: int) -> Replayed:
        """Return everything up to the event ``at``; :meth:`deltas` then continues there."""
        async with aclosing(self.deltas()) as reads:
            replayed = Replayed([delta async for deltas in reads for delta in deltas])
        if self._reader.place.at != at:
            raise self._call.cannot_continue(f"event {at} is missing")
        return replayed

    async def _of_connection(self, body: ResponseBody | None) -> AsyncGenerator[list[Delta], None]:
        if body is None:
            async with self._access.get(self._reader.place.response_id or "", self._query()) as pieces:
                self._call.started = True
                async with aclosing(self._of_connection(pieces)) as reads:
                    async for deltas in reads:
                        yield deltas
            return
        reads = deltas_of(body, EventCutter(), self._reader, self._end_grace_s, self._sink, yields_empty=True)
        async with aclosing(reads):
            async for deltas in reads:
                for placed in self._reader.placed(deltas):
                    self._call.has_output = True
                    yield placed

    def _query(self) -> dict[str, str]:
        after = self._reader.reconnect()
        if self._polls:
            return {}
        return {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})

    def _may_pass(self, error: Exception) -> bool:
        """Return True for a failure after which another connection may succeed."""
        if not isinstance(error, APIStatusError):
            return True
        if error.status_code == 400 and not self._polls and self._reader.can_be_whole:
            self._polls = True
            return True
        return error.status_code in _PASSING or error.status_code >= 500

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the error of a connection that is not replaced."""
        if isinstance(error, Interrupted):
            raise error.failure from None
        if isinstance(error, APIStatusError) and error.status_code in _ABOUT_ANSWER:
            raise self._call.cannot_continue(f"HTTP {error.status_code}") from None
        raise error


def _path(response_id: str) -> str:
    return f"{PATH}/{quote(response_id, safe='')}"
