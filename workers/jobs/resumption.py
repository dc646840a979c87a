"""Goes on with an answer that an earlier attempt began at a provider that stores answers (rule E13)."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from msgspec import structs

from shared.broker.client import Client, run_script
from shared.broker.log import read_stored_log
from shared.broker.replies import Code
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, GenerationError, ProviderError
from shared.schemas import ChatRequest
from workers import metrics
from workers.jobs.answer_reader import Answered, AnswerReader, Call
from workers.jobs.replay import is_replay
from workers.jobs.router import Router
from workers.jobs.run import Run, target_of
from workers.jobs.stored_answers import (
    UNKNOWN,
    StoredAnswer,
    cancel_at_provider,
    end_of_log,
    key_of,
    readable_lineage,
)
from workers.providers.base import Delta, Provider, ProviderCursor, StoringProvider
from workers.providers.errors import provider_failure
from workers.providers.keys import Keys
from workers.providers.tracebacks import forget_frames

logger = logging.getLogger(__name__)

_RETRY_S = 0.2


class Resumption:
    """One instance serves all jobs of a worker."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        keys: Keys,
        client: Client,
        scripts: StreamScripts,
        router: Router,
        reader: AnswerReader,
    ) -> None:
        self._providers = providers
        self._keys = keys
        self._client = client
        self._scripts = scripts
        self._router = router
        self._reader = reader

    async def answer(self, request: ChatRequest, run: Run) -> Answered | None:
        """Write the rest of the answer. None: there is none that can be resumed, and the answer must begin anew.
        Raises :class:`ProviderError` for a failure after that, and :class:`GenerationError` if the request does not
        allow to begin anew."""
        stored = run.stored
        if stored is None:
            return None
        try:
            if run.resumes and run.hooks is None:
                return await self._go_on(stored, request, run)
            line = "the request asks for a restart" if run.hooks is None else "hooks see whole answers only"
        except ProviderError as error:
            forget_frames(error)
            if run.writer.draft.has_output:
                run.end_call("broken_off")
                await self.give_up(run)
                raise
            line = f"{error.code}: {error.detail or error.summary}"
        extra = {"stream_id": run.stream_id, "target": stored.target, "detail": line}
        logger.warning("answer not resumed", extra=extra)
        metrics.RESUMED_ANSWERS.labels("restarted").inc()
        await self.give_up(run)
        if run.readable and run.fields.get("on_worker_lost") == b"fail":
            raise worker_lost()
        return None

    async def give_up(self, run: Run) -> None:
        """Stop the stored answer of a run that has not ended. The state forgets it first, so that no later attempt
        resumes what was stopped. If another worker has taken the stream over, the answer is left to that worker."""
        if run.stored is None:
            return
        run.writer.forget_cursor()
        note = self._scripts.note_cursor(run.writer.holder, UNKNOWN)
        try:
            reply = await run_script(self._client, note)
        except BrokerUnavailable:  # another worker may have the stream
            extra = {"provider": run.stored.provider, "target": run.stored.target, "detail": "Redis unavailable"}
            logger.warning("stored answer not cancelled", extra=extra)
            return
        run.writer.settle_renewal(reply)
        if reply.code is Code.SUPERSEDED:
            run.stored = None
            await asyncio.sleep(0)  # the run is interrupted here
        await self.cancel(run)

    async def cancel(self, run: Run) -> None:
        """Stop the stored answer of a run that has ended, if it goes on at its provider."""
        if run.stored is not None:
            await cancel_at_provider(run.stored, self._providers, self._keys)
            run.stored = None

    async def _go_on(self, stored: StoredAnswer, request: ChatRequest, run: Run) -> Answered:
        candidate = self._candidate(stored, request, run)
        provider, key = self._provider_of(stored), key_of(stored, self._keys)
        run.writer.draft.set_model(provider.name, candidate.model, run.ignored)
        with_log = stored.epoch == int(run.fields["log_epoch"]) and stored.at is not None
        cursor = stored.cursor if with_log else ProviderCursor(stored.response_id, None)
        log = await self._read_log(run) if with_log else []
        try:
            await self._router.take_slot(candidate, run)
        except ProviderError as error:  # the answer runs at the provider in any case
            forget_frames(error)
        run.writer.draft.begin_call(provider.name, candidate.model)
        with run.log.call(provider.name, candidate) as span:
            call = Call(
                provider,
                candidate,
                key,
                on_answer=_nothing,
                on_first_token=partial(run.log.first_token, span),
                cursor=cursor,
                on_replay=partial(self._continue, stored, log, run),
            )
            outcome, usage = await self._reader.read(call, run)
            metrics.RESUMED_ANSWERS.labels("resumed").inc()
            run.log.answered(span, outcome.finish_reason, usage)
            return outcome, usage

    def _candidate(self, stored: StoredAnswer, request: ChatRequest, run: Run) -> ChatRequest:
        targets, fallbacks = run.candidates(request)
        for candidate in (*targets, *fallbacks):
            if target_of(candidate) == stored.target:
                return candidate
        raise _failure(stored, f"{stored.target} is no target of the request")

    def _provider_of(self, stored: StoredAnswer) -> Provider:
        provider = self._providers.get(stored.provider)
        if provider is None or not isinstance(provider, StoringProvider):
            raise _failure(stored, f"this worker has no provider {stored.provider} that stores answers")
        return provider

    async def _read_log(self, run: Run) -> list[bytes]:
        """Return the log, which nothing changes while this worker holds the stream."""
        while True:
            try:
                log = await read_stored_log(self._client, self._scripts, run.stream_id)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
                continue
            return log.events if log.cursor == end_of_log(run.fields, run.readable) else []

    def _continue(self, stored: StoredAnswer, log: list[bytes], run: Run, deltas: list[Delta]) -> None:
        """Continue the log, if the provider reproduces it. Raises :class:`ProviderError`."""
        if not is_replay(deltas, log):
            raise _failure(stored, "the provider's answer differs from the events that were written")
        writer = run.writer
        lineage = readable_lineage(run.fields, len(log))
        writer.draft.resume(log, lineage, structs.replace(stored, epoch=writer.holder.epoch).text)
        logger.info("answer resumed", extra={"stream_id": run.stream_id, "target": stored.target, "seq": len(log)})


def worker_lost() -> GenerationError:
    return GenerationError("worker_lost", "the answer was interrupted; send the request again")


async def _nothing() -> None:
    """Breakers and keys count new calls only."""


def _failure(stored: StoredAnswer, detail: str) -> ProviderError:
    return provider_failure("upstream_truncated", stored.provider, detail=detail)
