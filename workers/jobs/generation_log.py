"""Log line, metrics and, if tracing is on, spans for one generation.

They carry times, names, counts and reasons, never content.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from shared.broker.ending import Outcome, ending_line
from shared.broker.replies import Claimed
from shared.errors import GenerationError
from shared.metrics import count_costs
from shared.protocol.events import PartialUsage, Usage
from shared.protocol.ledger import LedgerEntry
from shared.schemas import ChatRequest
from shared.tracing import Span, Tracing
from workers.jobs import genai_metrics as genai
from workers.writing.phases import Ended

logger = logging.getLogger(__name__)

_OPERATION: Final = {"gen_ai.operation.name": "chat"}


class GenerationLog:
    """Log of one claim of one stream. A trace has a span for the wait in the queue, one for the claim, and within the
    latter one for each call of a provider."""

    def __init__(self, tracing: Tracing, stream_id: str, claimed: Claimed) -> None:
        self._tracing = tracing
        self._stream_id = stream_id
        self._claimed = claimed
        self._first_token_s: float | None = None
        self._provider_and_model = ("", "")
        self._called_at = 0.0
        self._now_ms = time.time_ns() // 1_000_000
        parent = claimed.fields.get("traceparent", b"").decode()
        ids: dict[str, str | int] = {
            "headrace.stream_id": stream_id,
            "headrace.request_id": claimed.fields.get("request_id", b"").decode(),
            "headrace.attempt": claimed.attempt,
        }
        if claimed.attempt == 1 and parent:
            created_ms = int(claimed.fields["created"])
            tracing.start("queue", parent=parent, attributes=ids, began_ms=created_ms).end(self._now_ms)
        self._span = tracing.start("generate", "consumer", parent=parent, attributes=ids, began_ms=self._now_ms)
        if claimed.attempt > 1:
            self._span.event("takeover", {"headrace.attempt": claimed.attempt})

    @contextmanager
    def call(self, provider: str, request: ChatRequest) -> Iterator[Span]:
        """A scope around one call of a provider, with its span. Failures are recorded here, success by
        :meth:`answered`."""
        self._provider_and_model = provider, request.model
        self._called_at = time.monotonic()
        options = {
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": request.temperature,
            "gen_ai.output.type": "json" if _wants_json(request) else "text",
        }
        attributes = {
            **_OPERATION,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": request.model,
            **{name: value for name, value in options.items() if value is not None},
        }
        parent = self._span.traceparent
        with self._tracing.start(f"chat {request.model}", "client", parent=parent, attributes=attributes) as call:
            try:
                yield call
            except GenerationError as error:
                genai.called(*self._provider_and_model, time.monotonic() - self._called_at, error=error.code)
                call.fail(error.code)
                raise
            except asyncio.CancelledError:
                call.set({"headrace.interrupted": True})
                raise

    def first_token(self, call: Span) -> None:
        if self._first_token_s is None:  # a continuation has another one
            self._first_token_s = self._since_creation_s()
        call.event("first_token")

    def answered(self, call: Span, finish_reason: str, usage: Usage | PartialUsage | None) -> None:
        """Record a call that succeeded."""
        genai.called(*self._provider_and_model, time.monotonic() - self._called_at, usage=usage)
        call.set({"gen_ai.response.finish_reasons": [finish_reason]})
        if usage is not None:
            call.set(genai.usage_attributes(usage))

    def ended(
        self,
        outcome: Outcome,
        usage: Usage | PartialUsage | None,
        ended: Ended,
        ledger: Sequence[LedgerEntry],
    ) -> None:
        """Record the end of this claim. Unless ``ended`` is WRITTEN, the stream goes on elsewhere or is gone.
        ``ledger``: all calls of the stream."""
        counts = {} if usage is None else genai.usage_attributes(usage)
        line: dict[str, Any] = {
            **ending_line(self._stream_id, self._claimed, outcome, ledger),
            **self._target,
            "priority": self._claimed.fields.get("priority", b"interactive").decode(),
            "outcome": None if ended is Ended.WRITTEN else ended.value,
            "duration_s": self._since_creation_s(),
            "queued_s": _seconds(self._now_ms - int(self._claimed.fields["created"])),
            "first_token_s": self._first_token_s,
            "input_tokens": counts.get(genai.INPUT),
            "output_tokens": counts.get(genai.OUTPUT),
            **counts,
        }
        if ended is Ended.WRITTEN:
            count_costs(ledger)
        if ended is Ended.WRITTEN and self._provider_and_model[0]:
            genai.ended(
                *self._provider_and_model,
                line["duration_s"],
                first_s=self._first_token_s,
                output_tokens=line["output_tokens"],
                error=outcome.error.code if outcome.error else "",
            )
        logger.info("stream ended" if ended is Ended.WRITTEN else "stream left", extra=line)
        self._span.set({"headrace.finish_reason": outcome.finish_reason, "headrace.outcome": ended.value})
        if outcome.known_reason:
            self._span.set({"headrace.reason": outcome.known_reason})
        if outcome.error is not None:
            self._span.fail(outcome.error.code)

    @property
    def _target(self) -> dict[str, str]:
        """The target that was called last, if any: the one that answered."""
        provider, model = self._provider_and_model
        return {"provider": provider, "model": model} if provider else {}

    def close(self) -> None:
        self._span.end()

    def _since_creation_s(self) -> float:
        return _seconds(time.time_ns() // 1_000_000 - int(self._claimed.fields["created"]))


def _wants_json(request: ChatRequest) -> bool:
    return request.response_format is not None and request.response_format.type != "text"


def _seconds(ms: int) -> float:
    return max(0, ms) / 1000
