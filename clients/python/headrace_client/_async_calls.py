"""HTTP of the asynchronous client: requests that are repeated until their response is final, and open streams."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2

from headrace_client._addresses import Gateway
from headrace_client._requests import LIMITS, Request, is_forbidden, timeouts
from headrace_client._responses import json_of, unreachable
from headrace_client._retries import OnRetry, Retries, Retry
from headrace_client.errors import HeadraceError


class AsyncCalls:
    """Connections to one gateway. An HTTP client that was given is not closed."""

    def __init__(
        self, gateway: Gateway, retry_timeout_s: float, on_retry: OnRetry | None, http: httpx2.AsyncClient | None
    ) -> None:
        self.gateway = gateway
        self._on_retry = on_retry
        self.retry_timeout_s = retry_timeout_s
        self._own = httpx2.AsyncClient(limits=LIMITS) if http is None else None
        self._http = http or self._own or httpx2.AsyncClient()

    async def close(self) -> None:
        if self._own is not None:
            await self._own.aclose()

    async def call(self, request: Request) -> dict[str, Any]:
        """Send a request until its response is final, and return its JSON."""
        retries = Retries(self.retry_timeout_s)
        while True:
            try:
                return await self._call_once(request)
            except HeadraceError as error:
                await self.pause(retries.next(error))

    async def call_first_allowed(self, requests: Sequence[Request]) -> dict[str, Any]:
        """Send the requests in their order until one is not forbidden."""
        *others, last = requests
        for request in others:
            try:
                return await self.call(request)
            except HeadraceError as error:
                if not is_forbidden(error):
                    raise
        return await self.call(last)

    async def pause(self, retry: Retry, at_most_s: float = float("inf")) -> None:
        if self._on_retry is not None:
            self._on_retry(retry)
        await asyncio.sleep(min(retry.delay_s, at_most_s))

    def open(self, request: Request, read_timeout_s: float) -> AbstractAsyncContextManager[httpx2.Response]:
        return self._http.stream(
            request.method, request.url, headers=request.headers, timeout=timeouts(read_timeout_s)
        )

    async def _call_once(self, request: Request) -> dict[str, Any]:
        try:
            response = await self._http.request(
                request.method, request.url, headers=request.headers, content=request.content, timeout=timeouts()
            )
        except httpx2.RequestError as error:
            raise unreachable(error) from None
        return json_of(response.status_code, response.headers, response.content)
