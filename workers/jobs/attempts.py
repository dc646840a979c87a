"""Whom a request is put to: its model, again after a passing failure, and then its fallbacks. All of it only until
the first token: what a reader has seen is never taken back.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from shared.broker.client import Client, run_script
from shared.broker.ending import Outcome
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, GenerationError, ProviderError
from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers import metrics
from workers.jobs.generation_log import GenerationLog
from workers.providers.base import Finished, Provider
from workers.providers.circuit_breakers import Breakers
from workers.providers.idle_timeout import IdleTimeout
from workers.writing.structured_output import JsonAnswer
from workers.writing.writer import StreamWriter

logger = logging.getLogger(__name__)

_backoff: Final = wait_exponential_jitter(multiplier=0.25, max=4, jitter=0.25)


class ProviderAttempts:
    def __init__(
        self,
        providers: Mapping[str, Provider],
        breakers: Breakers,
        client: Client,
        scripts: StreamScripts,
        settings: Settings,
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._client = client
        self._scripts = scripts
        self._settings = settings

    async def answer(
        self, request: ChatRequest, writer: StreamWriter, account: GenerationLog
    ) -> tuple[Outcome, Usage | None]:
        """One whole answer into ``writer``. Usage is None where the provider did not say. Raises
        :class:`ProviderError`, the last one's."""
        candidates = list(_candidates(request))
        counted = set[str]()  # a provider is counted once for a request, however often it was asked
        for candidate in candidates[:-1]:
            try:
                return await self._try_provider(candidate, writer, counted, account)
            except ProviderError as error:
                if writer.has_output:
                    raise
                metrics.FALLBACKS.inc()
                logger.warning("stream %s: %s; trying a fallback", writer.holder.stream_id, error.code)
        return await self._try_provider(candidates[-1], writer, counted, account)

    async def _try_provider(
        self, request: ChatRequest, writer: StreamWriter, counted: set[str], account: GenerationLog
    ) -> tuple[Outcome, Usage | None]:
        """Ask one provider, again where that may help."""
        provider = self._provider_of(request)
        failure: ProviderError | None = None

        async def once() -> tuple[Outcome, Usage | None]:
            nonlocal failure
            try:
                await self._breakers.admit(provider.name)
            except ProviderError as refusal:
                raise failure or refusal from None
            writer.asks(provider.name, request.model)
            try:
                return await self._call(provider, request, writer, account)
            except ProviderError as error:
                failure = error
                await self._breakers.failed(provider.name, error, counts=provider.name not in counted)
                counted.add(provider.name)
                with suppress(BrokerUnavailable):  # it is only told to operators
                    await run_script(
                        self._client, self._scripts.failed(writer.holder.stream_id, provider.name, error.code)
                    )
                raise

        def may_help(error: BaseException) -> bool:
            if not isinstance(error, ProviderError) or not error.retryable or writer.has_output:
                return False
            patience_s = self._settings.retry_longest_wait_s
            return error.code != "provider_circuit_open" and (error.retry_after_s or 0) <= patience_s

        attempts = AsyncRetrying(
            retry=retry_if_exception(may_help),
            stop=stop_after_attempt(1 + self._settings.provider_retries),
            wait=_wait_s,
            before_sleep=lambda _: metrics.RETRIES.inc(),
            reraise=True,
        )
        return await attempts(once)

    def _provider_of(self, request: ChatRequest) -> Provider:
        provider = self._providers.get(request.provider or "")
        if provider is None:
            message = f"this worker has no provider {request.provider}: set its key on every worker"
            raise ProviderError("provider_not_configured", message)
        if request.only_count and not provider.counts_tokens:
            raise ProviderError("provider_rejected", f"{provider.name} cannot count the tokens of a request")
        return provider

    async def _call(
        self, provider: Provider, request: ChatRequest, writer: StreamWriter, account: GenerationLog
    ) -> tuple[Outcome, Usage | None]:
        with account.call(provider.name, request) as call:
            try:
                outcome, usage = await self._read(provider, request, writer, lambda: account.first_token(call))
            except GenerationError as error:
                account.failed(call, error.code)
                raise
            except asyncio.CancelledError:
                call.set({"headrace.interrupted": True})
                raise
            account.answered(call, outcome.finish_reason, usage)
            return outcome, usage

    async def _read(
        self, provider: Provider, request: ChatRequest, writer: StreamWriter, on_first_token: Callable[[], None]
    ) -> tuple[Outcome, Usage | None]:
        format_ = None if request.only_count else request.response_format
        schema = format_.schema_to_follow if format_ is not None else None
        as_json = None if schema is None else JsonAnswer(schema, depth=self._settings.json_depth)
        timeouts = self._settings.timeouts(provider.name, request.model)
        async with IdleTimeout(provider.name, timeouts) as silence, aclosing(provider.stream(request)) as answer:
            async for deltas in answer:
                silence.ends()
                if not writer.has_output:
                    await self._breakers.succeeded(provider.name)
                    if not isinstance(deltas, Finished):
                        on_first_token()
                if isinstance(deltas, Finished):
                    return await self._finish(deltas, as_json, writer), deltas.usage
                await writer.push(deltas if as_json is None else [*deltas, *as_json.take(deltas)])
                if writer.bytes >= self._settings.max_stream_bytes:
                    return Outcome("length", "max_stream_bytes"), None
                silence.begins()
        raise ProviderError(
            "upstream_truncated", f"{provider.name} broke off in the middle of its answer", retryable=True
        )

    async def _finish(self, finished: Finished, as_json: JsonAnswer | None, writer: StreamWriter) -> Outcome:
        if as_json is not None and finished.reason == "stop":
            try:
                await writer.push([as_json.finish()])
            except GenerationError as error:
                return Outcome.failed(error)
        empty = finished.detail is None and not writer.has_output
        return Outcome(finished.reason, "empty_answer" if empty else finished.detail)


def _candidates(request: ChatRequest) -> Iterator[ChatRequest]:
    """The request as each is asked; ``fallbacks`` are ``provider/model``."""
    alone = request.model_copy(update={"fallbacks": None})
    yield alone
    for fallback in request.fallbacks or ():
        provider, _, model = fallback.partition("/")
        yield alone.model_copy(update={"provider": provider, "model": model})


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, ProviderError) else None
    return _backoff(state) if asked_s is None else asked_s
