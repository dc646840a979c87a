"""Runs a request against its targets, with their keys and with retries, and then against its fallbacks.

After the first token there is no retry and no fallback, because text that a reader has seen is never withdrawn. A
call may go on with the text, if the request allows it (:mod:`workers.jobs.continuations`).
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from shared.broker.client import Client, run_script
from shared.broker.scripts import StreamScripts
from shared.configuration.configuration import Configuration
from shared.errors import BrokerUnavailable, ProviderError
from shared.schemas import ChatRequest
from workers import metrics
from workers.jobs.answer_reader import Answered, AnswerReader, Call
from workers.jobs.continuations import Continuations
from workers.jobs.lost_calls import LostCalls
from workers.jobs.resumption import Resumption
from workers.jobs.rounds import Candidate, failure_of, untried
from workers.jobs.router import Router
from workers.jobs.run import Run, logger, target_of
from workers.jobs.seam import STARTED_OVER
from workers.jobs.silent_calls import noted_if_silent
from workers.providers.base import Provider
from workers.providers.circuit_breakers import Breakers
from workers.providers.endpoint import ApiKey
from workers.providers.errors import provider_failure
from workers.providers.keys import Keys
from workers.providers.tracebacks import forget_frames

_FIRST_WAIT_S: Final = 0.25
_LONGEST_WAIT_S: Final = 4.0
_JITTER_S: Final = 0.25


class ProviderAttempts:
    """Runs requests against their providers. One instance serves all jobs of a worker."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        breakers: Breakers,
        keys: Keys,
        client: Client,
        scripts: StreamScripts,
        configuration: Configuration,
    ) -> None:
        self._providers = providers
        self._breakers = breakers
        self._keys = keys
        self._client = client
        self._scripts = scripts
        self._settings = configuration.settings
        self._router = Router(client, scripts, breakers, keys, configuration)
        self._reader = AnswerReader(configuration)
        self.resumption = Resumption(providers, keys, client, scripts, self._router, self._reader)
        self._continuations = Continuations(configuration)
        self._lost_calls = LostCalls(client, scripts)
        for provider in providers:
            metrics.label_provider(provider)

    async def answer(self, request: ChatRequest, run: Run) -> Answered:
        """Write one whole answer. Usage is as far as the provider counted it. Raises the last attempt's
        :class:`ProviderError`."""
        self._continuations.prepare(request, run)
        try:
            if (resumed := await self.resumption.answer(request, run)) is not None:
                return resumed
            await self._lost_calls.account(run)
            return await self._try_groups(await self._groups(request, run), run)
        except ProviderError as error:
            if not run.has_output or run.answer is None or run.is_discarding:
                raise
            forget_frames(error)
            broken_off = error
        return await self._continue(request, run, broken_off)

    async def _continue(self, request: ChatRequest, run: Run, error: ProviderError) -> Answered:
        """Go on with an answer whose provider broke off, for as long as there is a call that does."""
        while groups := self._continuations.next_groups(await self._groups(request, run), run, error):
            try:
                return await self._try_groups(groups, run)
            except ProviderError as failure:
                forget_frames(failure)
                if not run.has_output:
                    raise (failure if failure.code == STARTED_OVER else error) from None
                error = failure
        raise error

    async def _groups(self, request: ChatRequest, run: Run) -> list[list[ChatRequest]]:
        """Return the targets, and each fallback. Those of a group are tried together."""
        targets, fallbacks = run.candidates(request)
        return [await self._router.ordered(targets, run), *([fallback] for fallback in fallbacks)]

    async def _try_groups(self, groups: list[list[ChatRequest]], run: Run) -> Answered:
        for group in groups[:-1]:
            try:
                return await self._try_group(group, run)
            except ProviderError as error:
                if run.has_output:
                    raise
                forget_frames(error)
                metrics.FALLBACKS.inc()
                logger.warning("trying a fallback", extra={"stream_id": run.stream_id, "code": error.code})
        return await self._try_group(groups[-1], run)

    async def _try_group(self, targets: list[ChatRequest], run: Run) -> Answered:
        """Try each target without a wait, and after a wait those again whose failure may pass."""
        candidates = [Candidate(target) for target in targets]
        for retry in range(self._settings.provider_retries + 1):
            try:
                return await self._try_round(candidates, run)
            except ProviderError as error:
                is_last = retry == self._settings.provider_retries
                if is_last or run.has_output or not untried(candidates):
                    raise
                wait_s = _wait_s(error, retry)
                forget_frames(error)
            metrics.RETRIES.inc()
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last round returns or raises")

    async def _try_round(self, candidates: list[Candidate], run: Run) -> Answered:
        *others, last = untried(candidates)
        for candidate in (*others, last):
            try:
                return await self._try_keys(candidate.request, run)
            except ProviderError as error:
                if run.has_output:
                    raise
                forget_frames(error)
                candidate.failed(error, longest_wait_s=self._settings.retry_longest_wait_s)
                if candidate is not last:
                    metrics.FALLBACKS.inc()
                    line = {"stream_id": run.stream_id, "target": target_of(candidate.request), "code": error.code}
                    logger.warning("trying another target", extra=line | {"detail": error.detail})
        raise failure_of(candidates)

    async def _try_keys(self, request: ChatRequest, run: Run) -> Answered:
        """Call one target with each of its keys, without a wait, until one is accepted."""
        provider = self._provider_of(request, run)
        failures = list[ProviderError]()
        keys = self._keys.usable(provider.name, request.model, run.prefix)
        await self._breakers.admit(target_of(request))
        for key in keys:
            await self._router.take_slot(request, run)
            try:
                return await self._call(provider, request, key, run)
            except ProviderError as error:
                if run.has_output:
                    raise
                if not await self._keys.failed(provider.name, request.model, key, error):
                    raise
                forget_frames(error)
                failures.append(error)
        raise next((each for each in failures if each.retryable), failures[-1])

    async def _call(self, provider: Provider, request: ChatRequest, key: ApiKey | None, run: Run) -> Answered:
        target = target_of(request)
        if (seam := self._continuations.seam(request, run)) is None:
            run.writer.draft.set_model(provider.name, request.model, run.ignored)
        try:
            if not request.only_count:
                run.writer.draft.begin_call(provider.name, request.model)
            silence = noted_if_silent(self._client, self._scripts, run, provider.name)
            with run.log.call(provider.name, request) as span, silence:
                on_answer = partial(self._answers, target, key)
                call = Call(provider, request, key, on_answer, partial(run.log.first_token, span), seam)
                outcome, usage = await self._reader.read(call, run)
                run.log.answered(span, outcome.finish_reason, usage)
                return outcome, usage
        except ProviderError as error:
            forget_frames(error)
            if run.is_discarding:
                raise
            run.end_call("broken_off", seam)
            run.log_failure(error, request, key)
            await self.resumption.give_up(run)
            await self._note_failure(error, target, run)
            raise

    async def _answers(self, target: str, key: ApiKey | None) -> None:
        await self._breakers.succeeded(target)
        await self._keys.succeeded(target.partition("/")[0], key)

    async def _note_failure(self, error: ProviderError, target: str, run: Run) -> None:
        await self._breakers.failed(target, error, counts=target not in run.counted)
        run.counted.add(target)
        with suppress(BrokerUnavailable):  # a call with output can be estimated from the log
            provider, ledger = target.partition("/")[0], run.writer.draft.ledger.fields
            note = self._scripts.note_failure(run.writer.holder, provider, error.code, ledger)
            await run_script(self._client, note)

    def _provider_of(self, request: ChatRequest, run: Run) -> Provider:
        provider = self._providers.get(request.provider or "")
        if provider is None:
            detail = f"this worker has no provider {request.provider}; set its key on every worker"
            error = provider_failure("provider_not_configured", request.provider or "", detail=detail)
            run.log_failure(error, request)
            raise error
        if request.only_count and not provider.counts_tokens:
            message = f"{provider.name}: cannot count tokens; choose a model of another provider"
            raise ProviderError("provider_rejected", message)
        return provider


def _wait_s(error: ProviderError, retry: int) -> float:
    """Return the wait that the provider asked for, or an exponential one with jitter."""
    if error.retry_after_s is not None:
        return error.retry_after_s
    backoff_s = _FIRST_WAIT_S * (1 << retry) + random.uniform(0, _JITTER_S)  # noqa: S311  no secret
    return min(backoff_s, _LONGEST_WAIT_S)
