"""Normalises the tool calls of one answer, in the same way for all providers."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.errors import ProviderError
from shared.protocol import events
from workers.providers.base import Delta, FinishReason, ToolCallDelta
from workers.providers.errors import provider_failure
from workers.writing.surrogates import well_formed

_decoder = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class _Call:
    """One tool call. ``provider_id``: the id that the provider gave it, if any."""

    index: int
    id: str
    name: str
    provider_id: str | None
    arguments: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def is_blank(self) -> bool:
        """True if no arguments arrived: the function has none."""
        return not "".join(self.arguments).strip()

    @property
    def joined(self) -> str:
        return well_formed("".join(self.arguments)).strip() or "{}"


class ToolCalls:
    """Assembles tool calls: numbers them 0, 1, 2 …, makes ids if the provider has none or repeats one, emits id and
    name once, and emits each call whole when it is complete. ``upstream`` is the provider's name, for errors."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._all: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._nameless: dict[int, str] = {}

    def fragment(self, key: int, *, id: str | None, name: str | None, arguments: str) -> Iterator[Delta]:
        """Add a fragment. ``key``: the provider's index of the call or of its block."""
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
        """Mark the end of a call. It stays incomplete if its arguments are not a JSON object."""
        if (call := self._open.get(key)) is not None:
            yield from _completed(call)

    def finish(self, reason: FinishReason) -> Iterator[Delta]:
        """Mark the end of the answer. Raises :class:`ProviderError` if a call is incomplete although the answer was
        not cut off."""
        if self._nameless:
            raise provider_failure(
                "provider_protocol", self._upstream, detail="the model called a tool without a name"
            )
        for call in self._all:
            yield from _completed(call)
            if not call.complete and reason in {"stop", "tool_calls"}:
                message = f"the model called {call.name} with arguments that are not a JSON object; try again"
                # The log must not have the name: the model may have invented it.
                detail = "the model called a tool with arguments that are not a JSON object"
                raise ProviderError("tool_call_invalid", message, retryable=True, detail=detail)

    def reason(self, reported: FinishReason) -> FinishReason:
        """Correct the finish reason: some providers report `stop` after a call."""
        return "tool_calls" if self._all and reported == "stop" else reported


def _begins_another(call: _Call, provider_id: str | None, name: str | None) -> bool:
    """Return True if the fragment starts another call. Some servers use one index for all parallel calls, each with
    its own id, or send complete calls without ids."""
    if not name:
        return False
    if provider_id or call.provider_id:
        return bool(provider_id) and provider_id != call.provider_id
    return any(call.arguments) and call.arguments[-1].endswith("}") and _is_object(call.joined)


def _completed(call: _Call) -> Iterator[Delta]:
    if not call.complete and _is_object(call.joined):
        call.complete = True
        if call.is_blank:  # otherwise the joined fragments would not be JSON
            yield ToolCallDelta(call.index, call.joined)
        yield events.ToolCall(call.index, call.joined, call.id, call.name, complete=True, n=0)


def _is_object(arguments: str) -> bool:
    try:
        _decoder.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
