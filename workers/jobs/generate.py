"""The job of a worker: claim a stream, write its provider's answer, end the stream."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from shared.broker.client import Client, run_script
from shared.broker.desk_requests import Settlement
from shared.broker.ending import ABANDONED, Outcome, end_claimed, holder_of
from shared.broker.replies import Claimed, Code
from shared.broker.scripts import StreamScripts
from shared.broker.settlement import settle_soon
from shared.broker.stored_request import PIECE_BYTES, read_request
from shared.errors import ContentUnreadable, GenerationError, RequestError
from shared.hooks import HooksLike
from shared.protocol.events import PartialUsage, Usage
from shared.schemas import StoredRequest
from shared.schemas.stored_request import decode_request
from shared.settings import Settings
from shared.tracing import Tracing
from workers import metrics
from workers.jobs.answer_filter import hook_failed
from workers.jobs.answer_reader import Answered
from workers.jobs.cancel_scope import CancelScope, DeadlineExceeded, Interrupted
from workers.jobs.claims import claim, hand_over
from workers.jobs.current_adapters import AdapterSet, CurrentAdapters
from workers.jobs.final_usage import FinalUsage, Reading
from workers.jobs.generation_log import GenerationLog
from workers.jobs.late_check import check_unless_checked
from workers.jobs.provider_limits import ProviderLimits
from workers.jobs.resumption import worker_lost
from workers.jobs.run import Run
from workers.jobs.stored_answers import cancel_at_provider, stored_answer
from workers.providers.base import SinkError
from workers.providers.tracebacks import forget_frames
from workers.writing.flusher import Flusher
from workers.writing.leases import Leases
from workers.writing.phases import Ended, StopReason
from workers.writing.writer import StreamWriter

logger = logging.getLogger(__name__)

#: Another worker has the stream then, or will.
_GOES_ON = frozenset({StopReason.HANDOVER, StopReason.LOST})
_WITHOUT_OUTPUT = frozenset({"error", "cancelled"})


class Generation:
    """Dependencies shared by all jobs of a worker. ``on_webhook`` is called when a webhook is due."""

    def __init__(
        self,
        *,
        worker_id: str,
        settings: Settings,
        client: Client,
        scripts: StreamScripts,
        adapters: CurrentAdapters,
        flusher: Flusher,
        leases: Leases,
        provider_limits: ProviderLimits,
        tracing: Tracing,
        hooks: HooksLike | None = None,
        on_webhook: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker_id = worker_id
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self._adapters = adapters
        self._flusher = flusher
        self._leases = leases
        self._provider_limits = provider_limits
        self._tracing = tracing
        self._hooks = hooks
        self._on_webhook = on_webhook
        self._final_usage = FinalUsage(client, scripts, settings)

    def stop_counting(self) -> None:
        """Wait no more for the usage of answers that were cancelled: this worker stops."""
        self._final_usage.give_up()

    async def run(self, stream_id: str) -> None:
        """Process one stream from claim to end. Does nothing if the stream is held, ended or gone: a job carries only
        an id."""
        token = self._scripts.new_token(self._worker_id, stream_id)
        claimed = await claim(self._client, self._scripts, stream_id, token)
        if claimed is None:
            return
        claimed = await self._with_request(stream_id, claimed)
        log = GenerationLog(self._tracing, stream_id, claimed)
        try:
            await self._process(_Job(stream_id, claimed, token, log))
        finally:
            log.close()
            self._provider_limits.slot_freed()

    async def _with_request(self, stream_id: str, claimed: Claimed) -> Claimed:
        """Add a large request, which is stored beside the state. Raises :class:`BrokerUnavailable`."""
        size = claimed.fields.get("request_bytes")
        if size is None:
            return claimed
        try:
            request = await read_request(self._client, self._scripts.sealing, stream_id, int(size))
        except ContentUnreadable:
            request = None
        return replace(claimed, fields={**claimed.fields, "request": request or b""})

    async def _process(self, job: "_Job") -> None:
        if job.claimed.attempt > 1:
            metrics.TAKEOVERS.inc()
        outcome = self._outcome_without_generation(job.claimed)
        try:
            chat_request = await _parse(job.claimed.fields["request"])
        except RequestError as error:
            # The error's message is left out: it names fields of the request, and those may be content.
            logger.error("stored request invalid", extra={"stream_id": job.stream_id, "error": error.code})  # noqa: TRY400
            message = "the stored request is invalid; send it again"
            outcome = Outcome.failed(GenerationError("internal_error", message))
        with self._adapters.in_use() as adapters:
            if outcome is None or not await self._end_claimed(job, outcome):
                await self._generate(job, chat_request, adapters)
            elif (stored := stored_answer(job.claimed.fields)) is not None and await self._has_ended(job):
                await cancel_at_provider(stored, adapters.providers, adapters.keys)

    async def _end_claimed(self, job: "_Job", outcome: Outcome) -> bool:
        """End the stream with the partial answer of an earlier attempt. Logs the end. False: a reader came back."""
        if ended := await end_claimed(self._client, self._scripts, job.stream_id, job.claimed, job.token, outcome):
            _count(outcome)
        return ended

    async def _has_ended(self, job: "_Job") -> bool:
        """Return False if another worker has taken the stream over before this one could end it. Raises
        :class:`BrokerUnavailable`."""
        reply = await run_script(self._client, self._scripts.renew(holder_of(job.stream_id, job.claimed, job.token)))
        return reply.code is Code.CLOSED

    def _outcome_without_generation(self, claimed: Claimed) -> Outcome | None:
        """Return the outcome of a stream that must not be generated (again). None: generate it."""
        cannot_watch = self._hooks is None and "hooks" in claimed.fields
        if claimed.signal and not (cannot_watch and claimed.signal == ABANDONED):  # it may have a reader again
            return Outcome.cancelled(claimed.signal)
        if cannot_watch:
            detail = "HEADRACE_HOOKS is set on a gateway and not here; set it on every worker"
            logger.error("answer cannot be watched", extra={"detail": detail})
            return Outcome.failed(hook_failed())
        no_more = claimed.attempt > self._settings.max_attempts
        forbidden = claimed.readable > 0 and claimed.fields["on_worker_lost"] == b"fail"
        can_resume = claimed.fields.get("may_resume") == b"1" and stored_answer(claimed.fields) is not None
        return Outcome.failed(worker_lost()) if no_more or (forbidden and not can_resume) else None

    async def _generate(self, job: "_Job", chat_request: StoredRequest, adapters: AdapterSet) -> None:
        provider, model = chat_request.provider or "", chat_request.model
        scope = CancelScope(adapters.configuration.timeouts(provider, model).total_s)
        writer = StreamWriter(
            holder_of(job.stream_id, job.claimed, job.token),
            job.claimed,
            settings=self._settings,
            scripts=self._scripts,
            wake=self._flusher.wake,
            on_stop=scope.interrupt,
        )
        writer.draft.set_model(provider, model)
        run = Run(writer, job.log, job.claimed.fields, job.claimed.readable, hooks=self._hooks)
        with self._leases.hold(writer):
            answer = self._answer(chat_request, run, adapters)
            reading = self._final_usage.begin(answer, run)
            outcome, usage = await _read(answer if reading is None else reading, scope, writer)
            is_read_on = reading is not None and await self._final_usage.leave(reading, run)
            if run.filter is not None and writer.stop_reason not in _GOES_ON:
                outcome = await run.filter.end(outcome)
            if writer.stop_reason is StopReason.HANDOVER:
                ended = await writer.hand_over()
            elif job.claimed.readable and not writer.draft.has_output and outcome.finish_reason in _WITHOUT_OUTPUT:
                # Keep the partial answer of the previous attempt rather than end with none.
                run.end_call("cancelled" if outcome.is_cancelled else "failed")
                if await self._end_claimed(replace(job, claimed=writer.draft.ledger.claimed), outcome):
                    await adapters.attempts.resumption.give_up(run)
                    return
                ended = await writer.hand_over()  # an abandoned stream has a reader again
            else:
                ended = await self._finish(writer, outcome, usage, settles=not is_read_on)
        metrics.count_restart(job.claimed.readable if writer.draft.has_output else 0, writer.draft.lineage)
        if ended is not Ended.HANDED_OVER and not writer.is_superseded:  # else another worker goes on with it
            await adapters.attempts.resumption.cancel(run)
        job.log.ended(outcome, writer.draft.logged_usage(usage), ended, writer.draft.ledger.closed)
        if ended is Ended.HANDED_OVER:
            await hand_over(self._client, self._scripts, writer)
        else:
            _count(outcome)
        if reading is not None and is_read_on:
            await self._settle_with_usage(reading, run)

    async def _answer(self, chat_request: StoredRequest, run: Run, adapters: AdapterSet) -> Answered:
        """Write one whole answer. Raises :class:`GenerationError`."""
        request = await check_unless_checked(chat_request, run, self._settings.hook_timeout_s)
        return await adapters.attempts.answer(request, run)

    async def _finish(
        self, writer: StreamWriter, outcome: Outcome, usage: Usage | PartialUsage | None, *, settles: bool
    ) -> Ended:
        """Write the ending, and settle it at the desk."""
        ended = await writer.finish(outcome, usage)
        if settles and (settlement := writer.settlement) is not None:
            await self._settle(writer, settlement)
        return ended

    async def _settle(self, writer: StreamWriter, settlement: Settlement) -> None:
        await settle_soon(self._client, self._scripts, settlement, writer.place.lanes)
        if settlement.has_webhook:
            self._on_webhook()

    async def _settle_with_usage(self, reading: Reading, run: Run) -> None:
        """Settle an ending once its usage is known."""
        try:
            if (settlement := run.writer.settlement) is not None:
                await self._settle(run.writer, await self._final_usage.settlement(reading, run, settlement))
        finally:
            reading.cancel()


@dataclass(frozen=True, slots=True)
class _Job:
    """One claim of one stream."""

    stream_id: str
    claimed: Claimed
    token: str
    log: GenerationLog


async def _parse(request: bytes) -> StoredRequest:
    """Parse a stored request; a large one in a thread, so that other streams go on. Raises :class:`RequestError`."""
    if len(request) <= PIECE_BYTES:
        return decode_request(request)
    return await asyncio.to_thread(decode_request, request)


async def _read(
    answer: Coroutine[Any, Any, Answered] | Reading, scope: CancelScope, writer: StreamWriter
) -> Answered:
    """Wait for an answer. One that is interrupted ends here, unless it is read in a task of its own."""
    try:
        async with scope:
            return await (asyncio.shield(answer) if isinstance(answer, asyncio.Task) else answer)
    except Interrupted:
        return Outcome.cancelled(writer.stop_reason or StopReason.CANCELLED), None
    except DeadlineExceeded:
        return _outcome_of_deadline(writer), None
    except GenerationError as error:
        forget_frames(error)
        return Outcome.failed(error), None
    except asyncio.CancelledError:
        if isinstance(answer, asyncio.Task):
            answer.cancel()
        raise
    except Exception as error:  # noqa: BLE001  a bug of ours must still end the stream
        return _internal_error(writer.holder.stream_id, error), None


def _outcome_of_deadline(writer: StreamWriter) -> Outcome:
    """Return the outcome of a passed deadline. The stream may have ended otherwise while its provider was closed."""
    if writer.stop_reason is not None:
        return Outcome.cancelled(writer.stop_reason)
    message = "the answer took too long; ask for a shorter one"
    return Outcome.failed(GenerationError("deadline_exceeded", message))


def _internal_error(stream_id: str, error: Exception) -> Outcome:
    """Log a bug. The error's message is left out: it may quote the provider."""
    error = error.error if isinstance(error, SinkError) else error
    trace = "".join(traceback.format_tb(error.__traceback__))
    extra = {"stream_id": stream_id, "error": type(error).__name__, "exception": trace}
    logger.error("generation failed", extra=extra)
    forget_frames(error)
    return Outcome.failed(GenerationError("internal_error", "internal error; contact the operator of this service"))


def _count(outcome: Outcome) -> None:
    """Count an ending. Reasons in the provider's own words have one label, so that there are not too many."""
    metrics.ENDINGS.labels(outcome.finish_reason, outcome.known_reason or "").inc()
