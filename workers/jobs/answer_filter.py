"""Passes one answer through the operator's watch (docs/adr/0034), between its provider and its draft."""

import asyncio
import logging
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from shared.broker.ending import Outcome
from shared.errors import GenerationError
from shared.hooks import AnswerContext, AnswerRefused, AnswerWatch, HooksLike, TextKind, WholeAnswer
from shared.protocol import events
from workers.providers.base import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

logger = logging.getLogger(__name__)

T = TypeVar("T")

_KINDS: Final[dict[type[Delta], TextKind]] = {
    TextDelta: "text",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
}
_DELTAS: Final[dict[TextKind, type[TextDelta | ReasoningDelta | RefusalDelta]]] = {
    "text": TextDelta,
    "reasoning": ReasoningDelta,
    "refusal": RefusalDelta,
}
_object = msgspec.json.Decoder(dict[str, Any])


def hook_failed() -> GenerationError:
    return GenerationError("hook_failed", "the answer could not be checked; try again", retryable=True)


def filter_of(hooks: HooksLike | None, context: AnswerContext, timeout_s: float) -> "AnswerFilter | None":
    """Return the filter of an answer that begins; None if nothing watches it. Raises :class:`GenerationError`."""
    if hooks is None:
        return None
    try:
        watch = hooks.watch_answer(context)
    except AnswerRefused as error:
        raise AnswerRefused(error.message) from None
    except Exception as error:  # noqa: BLE001  an operator's code
        raise _failed(error, context.stream_id, "watch_answer") from None
    if watch is None:
        return None
    if not isinstance(watch, AnswerWatch):
        raise _failed(TypeError(), context.stream_id, "watch_answer")
    return AnswerFilter(watch, context.stream_id, timeout_s)


class AnswerFilter:
    """The watch of one call of a provider. All methods but :meth:`end` raise :class:`GenerationError`: a refusal, or
    ``hook_failed``."""

    def __init__(self, watch: AnswerWatch, stream_id: str, timeout_s: float) -> None:
        self._watch = watch
        self._stream_id = stream_id
        self._timeout_s = timeout_s
        self._kind: TextKind | None = None  # of the text before
        self._texts: dict[TextKind, list[str]] = {"text": [], "reasoning": [], "refusal": []}
        self._calls: list[tuple[str, str]] = []

    async def take(self, deltas: Sequence[Delta], passed: list[Delta]) -> None:
        """Add to ``passed`` the part of the output that may be appended now, also if this raises."""
        for delta in deltas:
            match delta:
                case TextDelta() | ReasoningDelta() | RefusalDelta():
                    passed += await self._take_text(delta.text, _KINDS[type(delta)])
                case ToolCallDelta():
                    pass  # it waits until the whole call was seen
                case events.ToolCall():
                    passed += await self.flush()
                    passed += await self._take_call(delta)
                case _ if not self._watch.redacts:
                    passed.append(delta)

    async def flush(self) -> list[Delta]:
        """Return the text that the watch kept: the answer, or this part of it, has ended."""
        kind, self._kind = self._kind, None
        if kind is None:
            return []
        kept = await self._ask(self._watch.flush(kind), "flush")
        return self._passed(kept, kind) if self._watch.redacts else []

    async def end(self, outcome: Outcome) -> Outcome:
        """Show the whole answer to the watch, and return how it ends. Never raises."""
        answer = WholeAnswer(
            text="".join(self._texts["text"]),
            reasoning="".join(self._texts["reasoning"]),
            refusal="".join(self._texts["refusal"]),
            tool_calls=tuple(self._calls),
            finish_reason=outcome.finish_reason,
            error=outcome.error.code if outcome.error is not None else None,
        )
        try:
            await self._ask(self._watch.on_end(answer), "on_end")
        except GenerationError as error:
            is_over = outcome.error is not None or outcome.is_cancelled
            return outcome if is_over else Outcome.failed(error)
        return outcome

    async def _take_text(self, text: str, kind: TextKind) -> list[Delta]:
        passed = await self.flush() if self._kind not in {None, kind} else []
        self._kind = kind
        returned = await self._ask(self._watch.on_text(text, kind), "on_text")
        return passed + self._passed(returned if self._watch.redacts else text, kind)

    async def _take_call(self, call: events.ToolCall) -> list[Delta]:
        name = call.name if isinstance(call.name, str) else ""
        call_id = call.id if isinstance(call.id, str) else None
        arguments = await self._ask(self._watch.on_tool_call(name, call.arguments), "on_tool_call")
        if not self._watch.redacts:
            arguments = call.arguments
        elif not _is_object(arguments):
            raise self._failure(TypeError(), "on_tool_call")
        self._calls.append((name, arguments))
        whole = msgspec.structs.replace(call, arguments=arguments)
        return [ToolCallDelta(call.index, arguments, call_id, name), whole]

    def _passed(self, text: object, kind: TextKind) -> list[Delta]:
        if not isinstance(text, str):
            raise self._failure(TypeError(), "on_text")
        if not text:
            return []
        self._texts[kind].append(text)
        return [_DELTAS[kind](text)]

    async def _ask(self, answering: Coroutine[Any, Any, T], name: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answering
        except AnswerRefused as error:
            logger.info("answer refused", extra={"stream_id": self._stream_id, "hook": name})
            raise AnswerRefused(error.message) from None
        except Exception as error:  # noqa: BLE001  an operator's code
            raise self._failure(error, name) from None

    def _failure(self, error: Exception, name: str) -> GenerationError:
        return _failed(error, self._stream_id, name)


def _failed(error: Exception, stream_id: str, name: str) -> GenerationError:
    """Log a failure of a hook without its message, which may have content, and return the error of the stream."""
    kind = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
    trace = "".join(traceback.format_tb(error.__traceback__))
    logger.error("hook failed", extra={"stream_id": stream_id, "hook": name, "error": kind, "exception": trace})
    return hook_failed()


def _is_object(text: object) -> bool:
    try:
        _object.decode(text if isinstance(text, str) else b"")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
