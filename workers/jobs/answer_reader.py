"""Reads one provider's answer into a stream's writer."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from shared.broker.ending import Outcome
from shared.configuration.configuration import Configuration
from shared.errors import GenerationError
from shared.hooks import AnswerContext
from shared.protocol.events import PartialUsage, Usage
from shared.provider_fields import loggable
from shared.schemas import ChatRequest, StoredRequest
from workers.jobs.answer_filter import AnswerFilter, filter_of, hook_failed
from workers.jobs.answer_so_far import AnswerSoFar
from workers.jobs.continuations import join
from workers.jobs.run import Run, logger, target_of
from workers.jobs.seam import Seam
from workers.jobs.stored_answers import StoredAnswer
from workers.providers.base import (
    EMPTY_ANSWER,
    AnswerPart,
    Delta,
    Finished,
    IgnoredFields,
    Provider,
    ProviderCursor,
    Replayed,
    Sink,
    StoredDeltas,
    StoringProvider,
)
from workers.providers.endpoint import ApiKey
from workers.providers.errors import provider_failure
from workers.providers.idle_timeout import IdleTimeout
from workers.providers.usage_counts import FirstDeltas
from workers.writing.coalescer import Written
from workers.writing.structured_output import JsonAnswer

#: Deltas of a cancelled answer that are read for its usage.
_MOST_DISCARDED: Final = 200_000

Answered = tuple[Outcome, Usage | PartialUsage | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a provider. ``on_answer``: called when its answer begins, with or without a token;
    ``on_first_token``: with the first token. ``seam``: None if the call begins the answer. ``cursor``: the place from
    which a stored answer is resumed; ``on_replay``: called with what comes before that place."""

    provider: Provider
    request: ChatRequest
    key: ApiKey | None
    on_answer: Callable[[], Awaitable[None]]
    on_first_token: Callable[[], None]
    seam: Seam | None = None
    cursor: ProviderCursor | None = None
    on_replay: Callable[[list[Delta]], None] | None = None

    def parts(self, sink: Sink) -> AsyncGenerator[AnswerPart, None]:
        if self.cursor is not None and isinstance(self.provider, StoringProvider):
            return self.provider.resume(self.request, self.key, self.cursor, sink)
        return self.provider.stream(self.request, self.key, sink)

    @property
    def is_held_back(self) -> bool:
        """True while the output of a continuation is held back."""
        return self.seam is not None and not self.seam.is_open

    def stored_answer(self, epoch: int, cursor: ProviderCursor) -> StoredAnswer:
        """Return where the provider has the answer, for a log of ``epoch``."""
        key_id = self.key.id if self.key is not None else ""
        return StoredAnswer(epoch, target_of(self.request), key_id, cursor.response_id, cursor.at)


class AnswerReader:
    """Reads answers for all jobs of a worker."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._settings = configuration.settings

    async def read(self, call: Call, run: Run) -> Answered:
        """Write the answer. Raises :class:`ProviderError`."""
        provider, request, writer = call.provider, call.request, run.writer
        response_format = None if request.only_count else request.response_format
        schema = response_format.schema_to_follow if response_format is not None else None
        json_answer = None if schema is None else JsonAnswer(schema, depth=self._settings.json_depth)
        timeouts = self._configuration.timeouts(provider.name, request.model)
        most_bytes = self._settings.max_stream_bytes
        run.filter = watched = self._filter_of(call, run)
        async with (
            IdleTimeout(provider.name, timeouts) as idle_timeout,
            aclosing(
                call.parts(sink := _WriterSink(call, run, json_answer, idle_timeout, most_bytes, watched))
            ) as answer,
        ):
            has_begun = False
            async for part in answer:
                if run.is_discarding:
                    if isinstance(part, Finished):
                        return Outcome(part.reason), part.usage
                    sink.discard(part, idle_timeout)
                    continue
                if isinstance(part, (IgnoredFields, Replayed)):
                    _take_beginning(part, call, json_answer, run)
                    continue
                if isinstance(part, StoredDeltas) and not part:
                    if cursor := sink.cursor_behind(part):
                        writer.draft.note_cursor(cursor)
                    continue
                idle_timeout.pause()
                if not has_begun:
                    has_begun = True
                    await _begin(part, call, run)
                if isinstance(part, Finished):
                    run.stored = None
                    await sink.flush()
                    return await _finish(part, json_answer, call, run), part.usage
                await (writer.push(*sink.written(part)) if watched is None else sink.pass_on(part, watched))
                if writer.draft.size + _held(call) >= most_bytes:
                    await sink.flush()
                    return Outcome("length", "max_stream_bytes"), None
                idle_timeout.resume()
                sink.may_take = watched is None and not call.is_held_back
        raise provider_failure("upstream_truncated", provider.name, detail="the answer ended without its end marker")

    def _filter_of(self, call: Call, run: Run) -> AnswerFilter | None:
        """Return the filter of a call's answer, if a hook watches it. Raises :class:`GenerationError`."""
        if run.hooks is None:
            return None
        if not isinstance(call.request, StoredRequest):
            raise hook_failed()  # nothing passes unwatched
        context = AnswerContext(
            run.stream_id,
            run.fields["principal"].decode(),
            call.provider.name,
            call.request.model,
            int(run.fields["attempt"]),
            call.request,
        )
        return filter_of(run.hooks, context, self._settings.hook_timeout_s)


class _WriterSink:
    """Sink of one call. ``may_take``: nothing is to be done with deltas but to write them. Until then, and for the
    window and the limit of bytes, the loop over the answer gets them. ``watched``: a hook has to see them first, in
    a task."""

    def __init__(
        self,
        call: Call,
        run: Run,
        json_answer: JsonAnswer | None,
        idle_timeout: IdleTimeout,
        most_bytes: int,
        watched: AnswerFilter | None = None,
    ) -> None:
        self._watched = watched
        self.may_take = False
        self._discarded = 0
        self._call = call
        self._run = run
        self._draft = run.writer.draft
        self._json_answer = json_answer
        self._idle_timeout = idle_timeout
        self._most_bytes = most_bytes

    @property
    def is_open(self) -> bool:
        draft = self._draft
        return self.may_take and not self._run.is_discarding and draft.has_room and draft.size < self._most_bytes

    def discard(self, part: AnswerPart, idle_timeout: IdleTimeout) -> None:
        """Leave out a part that came after a cancel. Raises :class:`ProviderError` once there are too many."""
        idle_timeout.resume()
        self._discarded += len(part) if isinstance(part, list) else 1
        if self._discarded >= _MOST_DISCARDED:
            raise provider_failure("upstream_truncated", self._call.provider.name, detail="the answer is too long")

    def take(self, deltas: list[Delta]) -> None:
        self._draft.add(*self.written(deltas))
        self._idle_timeout.resume()

    def written(self, deltas: list[Delta]) -> tuple[Sequence[Written], str]:
        """Return what is written for the deltas of one read, and the place in a stored answer behind them."""
        call, run = self._call, self._run
        cursor = self.cursor_behind(deltas) if isinstance(deltas, StoredDeltas) else ""
        written = deltas if run.answer is None else _joined(deltas, call, run.answer, run)
        return written if self._json_answer is None else [*written, *self._json_answer.take(deltas)], cursor

    def cursor_behind(self, deltas: StoredDeltas) -> str:
        """Note where the answer goes on, for a cancel, and return that place as Redis stores it. Empty for a watched
        answer: it may lack text that the hook keeps, and no other watch could go on with it."""
        cursor = _cursor_behind(deltas, self._call, self._run)
        return cursor if self._watched is None else ""

    async def pass_on(self, deltas: list[Delta], watched: AnswerFilter) -> None:
        """Write the part of one read's deltas that the hook lets pass. Raises :class:`GenerationError`."""
        if isinstance(deltas, StoredDeltas):
            self.cursor_behind(deltas)
        passed: list[Delta] = []
        refusal: GenerationError | None = None
        try:
            await watched.take(deltas, passed)
        except GenerationError as error:  # what came before stays
            refusal = error
        if passed:
            await self._run.writer.push(*self.written(passed))
        if refusal is not None:
            raise refusal

    async def flush(self) -> None:
        """Write the text that the hook kept until the end. Raises :class:`GenerationError`."""
        if self._watched is not None and (kept := await self._watched.flush()):
            await self._run.writer.push(*self.written(kept))


async def _begin(part: AnswerPart, call: Call, run: Run) -> None:
    await call.on_answer()
    if not isinstance(part, Finished):
        call.on_first_token()
    if isinstance(part, FirstDeltas) and part.input_counts is not None:
        if call.seam is not None:
            call.seam.input_counts = part.input_counts
            return
        run.writer.draft.set_input_counts(part.input_counts)
        if run.answer is not None:
            run.answer.input_counts = part.input_counts


def _joined(deltas: Sequence[Delta], call: Call, answer: AnswerSoFar, run: Run) -> Sequence[Written]:
    """Return what is written now. The deltas of a continuation are held back at first."""
    joining: Sequence[Written] = ()
    if call.seam is not None and call.is_held_back:
        deltas = call.seam.take(deltas)
        if not call.seam.is_open:
            return ()
        joining = join(call.seam, run)
    answer.add(deltas)
    return [*joining, *deltas] if joining else deltas


def _held(call: Call) -> int:
    return 0 if call.seam is None else call.seam.held_bytes


async def _finish(finished: Finished, json_answer: JsonAnswer | None, call: Call, run: Run) -> Outcome:
    writer = run.writer
    if call.seam is not None and call.is_held_back:
        last = call.seam.end()
        await writer.push([*join(call.seam, run), *last])
    if json_answer is not None and finished.reason == "stop":
        try:
            await writer.push([json_answer.finish()])
        except GenerationError as error:
            return Outcome.failed(error)
    empty = finished.detail is None and not writer.draft.has_output
    return Outcome(finished.reason, EMPTY_ANSWER if empty else finished.detail)


def _take_beginning(part: IgnoredFields | Replayed, call: Call, json_answer: JsonAnswer | None, run: Run) -> None:
    if isinstance(part, IgnoredFields):
        _ignore(part, call, run)
        return
    if call.on_replay is not None:
        call.on_replay(part.deltas)
    if run.answer is not None:
        run.answer.add(part.deltas)
    if json_answer is not None:
        json_answer.take(part.deltas)


def _cursor_behind(deltas: StoredDeltas, call: Call, run: Run) -> str:
    """Note where the answer goes on, and return that place as Redis stores it."""
    run.stored = call.stored_answer(run.writer.holder.epoch, deltas.cursor)
    return run.stored.text


def _ignore(ignored: IgnoredFields, call: Call, run: Run) -> None:
    """Name the fields that have no effect, in `start` or `continued` and in the log."""
    request = call.request
    if call.seam is not None:
        call.seam.ignored = (*call.seam.ignored, *ignored.paths)
    else:
        run.writer.draft.set_model(request.provider or "", request.model, (*run.ignored, *ignored.paths))
    line: dict[str, Any] = {
        "stream_id": run.stream_id,
        "provider": request.provider,
        "model": request.model,
        **loggable(ignored.paths),
    }
    logger.info("fields ignored", extra=line)
