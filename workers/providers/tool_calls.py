"""The tool calls of one answer, put into order: the same for all providers, whatever each makes of them."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.errors import ProviderError
from shared.protocol import events
from workers.providers.base import Delta, FinishReason, ToolCallDelta
from workers.surrogates import well_formed

_decoder = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class _Call:
    index: int
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)
    complete: bool = False


class ToolCalls:
    """Numbers the calls 0, 1, 2 … as they begin, mints ids where a provider has none, lets id and name through once
    and says each call whole when it is complete. ``upstream`` is the provider's name, for errors."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._calls: dict[int, _Call] = {}

    def fragment(self, key: int, *, id: str | None, name: str | None, arguments: str) -> Iterator[Delta]:
        """``key``: the provider's own number of the call, or of the block that it is."""
        call = self._calls.get(key)
        if call is not None:
            if arguments:
                call.arguments.append(arguments)
                yield ToolCallDelta(call.index, arguments)
            return
        if not name:
            raise ProviderError("provider_protocol", f"{self._upstream} called a tool without saying which")
        call = self._calls[key] = _Call(len(self._calls), id or f"call_{secrets.token_hex(12)}", name, [arguments])
        yield ToolCallDelta(call.index, arguments, call.id, call.name)

    def complete(self, key: int) -> Iterator[Delta]:
        """No more will come of this call. One whose arguments are no JSON object stays incomplete."""
        call = self._calls.get(key)
        if call is None or call.complete:
            return
        arguments = well_formed("".join(call.arguments)).strip() or "{}"
        with suppress(msgspec.DecodeError, RecursionError):
            _decoder.decode(arguments)
            call.complete = True
            yield events.ToolCall(call.index, arguments, call.id, call.name, complete=True, n=0)

    def finish(self, reason: FinishReason) -> Iterator[Delta]:
        """The answer has ended. Raises :class:`ProviderError` where a call is incomplete and nothing cut it off."""
        for key, call in self._calls.items():
            yield from self.complete(key)
            if not call.complete and reason in {"stop", "tool_calls"}:
                problem = f"{self._upstream} called the tool {call.name} with arguments that are no JSON object"
                raise ProviderError("tool_call_invalid", problem, retryable=True)

    def reason(self, said: FinishReason) -> FinishReason:
        """Some providers say `stop` after a call too."""
        return "tool_calls" if self._calls and said == "stop" else said
