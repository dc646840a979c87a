"""The tool calls of one answer, put into order: the same for all providers, whatever each makes of them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.errors import ProviderError
from shared.protocol import events
from workers.providers.base import Delta, FinishReason, ToolCallDelta
from workers.writing.surrogates import well_formed

_decoder = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class _Call:
    """``said_id``: what the provider called it, if anything."""

    index: int
    id: str
    name: str
    said_id: str | None
    arguments: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing was said of its arguments, as where there are none."""
        return not "".join(self.arguments).strip()

    @property
    def joined(self) -> str:
        return well_formed("".join(self.arguments)).strip() or "{}"


class ToolCalls:
    """Numbers the calls 0, 1, 2 … as they begin, mints ids where a provider has none or repeats one, lets id and name
    through once and says each call whole when it is complete. ``upstream`` is the provider's name, for errors."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._all: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._nameless: dict[int, str] = {}

    def fragment(self, key: int, *, id: str | None, name: str | None, arguments: str) -> Iterator[Delta]:
        """``key``: the provider's own number of the call, or of the block that it is."""
        call = self._open.get(key)
        if call is not None and not _begins_another(call, id, name):
            if arguments:
                call.arguments.append(arguments)
                yield ToolCallDelta(call.index, arguments)
        elif name:
            arguments = self._nameless.pop(key, "") + arguments
            is_new = id and all(id != other.id for other in self._all)
            own_id = id if id and is_new else f"call_{secrets.token_hex(12)}"
            call = self._open[key] = _Call(len(self._all), own_id, name, id, [arguments])
            self._all.append(call)
            yield ToolCallDelta(call.index, arguments, call.id, call.name)
        else:
            self._nameless[key] = self._nameless.get(key, "") + arguments

    def complete(self, key: int) -> Iterator[Delta]:
        """No more will come of this call. One whose arguments are no JSON object stays incomplete."""
        if (call := self._open.get(key)) is not None:
            yield from _completed(call)

    def finish(self, reason: FinishReason) -> Iterator[Delta]:
        """The answer has ended. Raises :class:`ProviderError` where a call is incomplete and nothing cut it off."""
        if self._nameless:
            raise ProviderError("provider_protocol", f"{self._upstream} called a tool without saying which")
        for call in self._all:
            yield from _completed(call)
            if not call.complete and reason in {"stop", "tool_calls"}:
                problem = f"{self._upstream} called the tool {call.name} with arguments that are no JSON object"
                raise ProviderError("tool_call_invalid", problem, retryable=True)

    def reason(self, said: FinishReason) -> FinishReason:
        """Some providers say `stop` after a call too."""
        return "tool_calls" if self._all and said == "stop" else said


def _begins_another(call: _Call, said_id: str | None, name: str | None) -> bool:
    """Some servers give all parallel calls one number, each with an id of its own, or send them whole without any."""
    if not name:
        return False
    if said_id or call.said_id:
        return bool(said_id) and said_id != call.said_id
    return any(call.arguments) and call.arguments[-1].endswith("}") and _is_object(call.joined)


def _completed(call: _Call) -> Iterator[Delta]:
    if not call.complete and _is_object(call.joined):
        call.complete = True
        if call.is_blank:  # or who joins the fragments has no JSON
            yield ToolCallDelta(call.index, call.joined)
        yield events.ToolCall(call.index, call.joined, call.id, call.name, complete=True, n=0)


def _is_object(arguments: str) -> bool:
    try:
        _decoder.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
