"""Reads the bytes of a provider with the reader of its wire, without network."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Final

from shared.errors import ProviderError
from shared.protocol import events
from shared.protocol.events import Usage
from tests.cases.outcomes import Outcome
from workers.providers.anthropic_reader import MessageReader
from workers.providers.base import Delta, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from workers.providers.errors import StreamedError, Upstream
from workers.providers.framing import EventCutter, LineCutter
from workers.providers.http_calls import NETWORK_ERRORS, ProviderCall
from workers.providers.ollama_reader import OllamaReader
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.reading import AnswerReader, deltas_of
from workers.providers.response_body import ResponseBody
from workers.providers.responses_reader import ResponsesReader
from workers.providers.tool_calls import ToolCalls
from workers.writing.surrogates import well_formed

_READERS: Final[Mapping[str, Callable[[ProviderCall, ToolCalls], AnswerReader]]] = {
    "openai": ChatCompletionReader,
    "anthropic": lambda call, calls: MessageReader(call, calls, by_tool=False),
    "ollama": OllamaReader,
    "responses": ResponsesReader,
}


async def read(wire: str, pieces: Iterable[bytes], tools: Mapping[str, bool], *, is_reset: bool = False) -> Outcome:
    """Read a whole body. ``is_reset``: the connection breaks after it. An exception other than an error of the
    provider is a fault."""
    call = ProviderCall(Upstream(wire, "host", "KEY", "URL", wire), "m", (StreamedError, *NETWORK_ERRORS))
    reader = _READERS[wire](call, ToolCalls(wire, tools))
    cutter = LineCutter() if wire == "ollama" else EventCutter()
    seen, texts = Outcome(), _Texts()
    try:
        with call:
            call.started = True
            body = ResponseBody(_body(pieces, is_reset=is_reset))
            async for deltas in deltas_of(body, cutter, reader, end_grace_s=1):
                _take(seen, texts, deltas)
    except ProviderError as error:
        seen.error, seen.retryable = error.code, error.retryable
    except Exception as error:  # noqa: BLE001
        seen.faults.append(repr(error))
    seen.text, seen.reasoning = well_formed("".join(texts.text)), well_formed("".join(texts.reasoning))
    if seen.error is None:
        _take_end(seen, call.finished)
    return seen


class _Texts:
    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []


async def _body(pieces: Iterable[bytes], *, is_reset: bool) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if is_reset:
        raise ConnectionResetError


def _take(seen: Outcome, texts: _Texts, deltas: list[Delta]) -> None:
    for delta in deltas:
        match delta:
            case TextDelta():
                texts.text.append(delta.text)
            case ReasoningDelta():
                texts.reasoning.append(delta.text)
            case ToolCallDelta():
                call = seen.call(delta.index)
                call.id, call.name = call.id or delta.id, call.name or delta.name
                call.fragments.append(delta.text)
            case events.ToolCall():
                seen.call(delta.index).arguments = delta.arguments


def _take_end(seen: Outcome, finished: Finished | None) -> None:
    if finished is None:
        seen.faults.append("neither an end nor an error")
        return
    seen.finish, seen.reason = finished.reason, finished.detail
    if isinstance(usage := finished.usage, Usage):
        seen.usage = [usage.input_tokens, usage.output_tokens]
