"""Runs a request against its model, with retries and then fallbacks.

There is no retry or fallback after the first token: text that a reader has seen is never withdrawn.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from shared.broker.client import Client, run_script
from shared.broker.ending import Outcome
from shared.broker.scripts import StreamScripts
from shared.configuration.configuration import Configuration
from shared.errors import BrokerUnavailable, GenerationError, ProviderError
from shared.protocol.events import PartialUsage, Usage
from shared.provider_fields import loggable
from shared.schemas import ChatRequest
from workers import metrics
from workers.jobs.generation_log import GenerationLog
from workers.providers.base import EMPTY_ANSWER, Finished, IgnoredFields, Provider
from workers.providers.circuit_breakers import Breakers
from workers.providers.errors import provider_failure
from workers.providers.idle_timeout import IdleTimeout
from workers.providers.tracebacks import forget_frames
from workers.providers.usage_counts import FirstDeltas
from workers.writing.structured_output import JsonAnswer
from workers.writing.writer import StreamWriter

logger = logging.getLogger(__name__)

_backoff: Final = wait_exponential_jitter(multiplier=0.25, max=4, jitter=0.25)


class ProviderAttempts:
    """Runs requests against their providers. One instance serves all jobs of a worker."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        breakers: Breakers,
        client: Client,
        scripts: StreamScripts,
        configuration: Configuration,
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._client = client
        self._scripts = scripts
        self._configuration = configuration
        self._settings = configuration.settings

    async def answer(
        self, request: ChatRequest, writer: StreamWriter, log: GenerationLog
    ) -> tuple[Outcome, Usage | PartialUsage | None]:
        """Write one whole answer to ``writer``. Usage is as far as the provider counted it. Raises the last
        attempt's :class:`ProviderError`."""
        candidates = list(_candidates(request))
        counted = set[str]()  # a request counts once for the breaker of a provider, however many calls fail
        for candidate in candidates[:-1]:
            try:
                return await self._try_provider(candidate, writer, counted, log)
            except ProviderError as error:
                if writer.has_output:
                    raise
                forget_frames(error)
                metrics.FALLBACKS.inc()
                logger.warning("trying a fallback", extra={"stream_id": writer.holder.stream_id, "code": error.code})
        return await self._try_provider(candidates[-1], writer, counted, log)

    async def _try_provider(
        self, request: ChatRequest, writer: StreamWriter, counted: set[str], log: GenerationLog
    ) -> tuple[Outcome, Usage | PartialUsage | None]:
        """Call one provider, with retries for failures that may pass."""
        provider = self._provider_of(request, writer)
        failure: ProviderError | None = None
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: self._may_pass(error) and not writer.has_output),
            stop=stop_after_attempt(1 + self._settings.provider_retries),
            wait=_wait_s,
            before_sleep=lambda _: metrics.RETRIES.inc(),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                try:
                    await self._breakers.admit(provider.name)
                except ProviderError as refusal:
                    raise failure or refusal from None
                writer.set_model(provider.name, request.model)
                try:
                    with log.call(provider.name, request) as call:
                        outcome, usage = await self._read(provider, request, writer, partial(log.first_token, call))
                        log.answered(call, outcome.finish_reason, usage)
                        return outcome, usage
                except ProviderError as error:
                    forget_frames(error)
                    failure = error
                    _log_failure(error, request, writer)
                    await self._note_failure(error, provider.name, writer, counts=provider.name not in counted)
                    counted.add(provider.name)
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _may_pass(self, error: BaseException) -> bool:
        """Return True for a failure that may not occur again."""
        if not isinstance(error, ProviderError) or not error.retryable:
            return False
        longest_s = self._settings.retry_longest_wait_s
        return error.code != "provider_circuit_open" and (error.retry_after_s or 0) <= longest_s

    async def _note_failure(self, error: ProviderError, provider: str, writer: StreamWriter, *, counts: bool) -> None:
        await self._breakers.failed(provider, error, counts=counts)
        with suppress(BrokerUnavailable):  # only operators read it
            note = self._scripts.note_failure(writer.holder.stream_id, provider, error.code)
            await run_script(self._client, note)

    def _provider_of(self, request: ChatRequest, writer: StreamWriter) -> Provider:
        provider = self._providers.get(request.provider or "")
        if provider is None:
            detail = f"this worker has no provider {request.provider}; set its key on every worker"
            error = provider_failure("provider_not_configured", request.provider or "", detail=detail)
            _log_failure(error, request, writer)
            raise error
        if request.only_count and not provider.counts_tokens:
            message = f"{provider.name}: cannot count tokens; choose a model of another provider"
            raise ProviderError("provider_rejected", message)
        return provider

    async def _read(
        self, provider: Provider, request: ChatRequest, writer: StreamWriter, on_first_token: Callable[[], None]
    ) -> tuple[Outcome, Usage | PartialUsage | None]:
        response_format = None if request.only_count else request.response_format
        schema = response_format.schema_to_follow if response_format is not None else None
        json_answer = None if schema is None else JsonAnswer(schema, depth=self._settings.json_depth)
        timeouts = self._configuration.timeouts(provider.name, request.model)
        async with (
            IdleTimeout(provider.name, timeouts) as idle_timeout,
            aclosing(provider.stream(request)) as answer,
        ):
            async for part in answer:
                if isinstance(part, IgnoredFields):
                    _ignore(part, request, writer)
                    continue
                idle_timeout.pause()
                if not writer.has_output:
                    await self._breakers.succeeded(provider.name)
                    if not isinstance(part, Finished):
                        on_first_token()
                    if isinstance(part, FirstDeltas) and part.input_counts is not None:
                        writer.set_input_counts(part.input_counts)
                if isinstance(part, Finished):
                    return await self._finish(part, json_answer, writer), part.usage
                await writer.push(part if json_answer is None else [*part, *json_answer.take(part)])
                if writer.bytes >= self._settings.max_stream_bytes:
                    return Outcome("length", "max_stream_bytes"), None
                idle_timeout.resume()
        raise provider_failure("upstream_truncated", provider.name, detail="the answer ended without its end marker")

    async def _finish(self, finished: Finished, json_answer: JsonAnswer | None, writer: StreamWriter) -> Outcome:
        if json_answer is not None and finished.reason == "stop":
            try:
                await writer.push([json_answer.finish()])
            except GenerationError as error:
                return Outcome.failed(error)
        empty = finished.detail is None and not writer.has_output
        return Outcome(finished.reason, EMPTY_ANSWER if empty else finished.detail)


def _ignore(ignored: IgnoredFields, request: ChatRequest, writer: StreamWriter) -> None:
    """Name the fields that have no effect, in `start` and in the log."""
    writer.set_model(request.provider or "", request.model, ignored.paths)
    line = {
        "stream_id": writer.holder.stream_id,
        "provider": request.provider,
        "model": request.model,
        **loggable(ignored.paths),
    }
    logger.info("fields ignored", extra=line)


def _log_failure(error: ProviderError, request: ChatRequest, writer: StreamWriter) -> None:
    line = {
        "stream_id": writer.holder.stream_id,
        "provider": request.provider,
        "model": request.model,
        "code": error.code,
        "detail": error.detail or error.summary,
    }
    logger.warning("provider call failed", extra=line)


def _candidates(request: ChatRequest) -> Iterator[ChatRequest]:
    """Yield the request for its own model, then for each of its ``fallbacks``: ``provider/model``."""
    alone = request.model_copy(update={"fallbacks": None})
    yield alone
    for fallback in request.fallbacks or ():
        provider, _, model = fallback.partition("/")
        yield alone.model_copy(update={"provider": provider, "model": model})


def _wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    requested_s = error.retry_after_s if isinstance(error, ProviderError) else None
    return _backoff(state) if requested_s is None else requested_s
