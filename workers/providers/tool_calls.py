"""Tool calls of one answer, assembled the same way for all providers.

Servers send the name, the id and the arguments of a call early, late, repeated, in pieces or empty, with an index,
without one, or all calls under one index. These rules give the right call for every form seen in public:

- A fragment belongs to the latest call of its key, or to the one of that key with its id.
- A name piece that equals the whole name so far is a repetition; any other piece is appended.
- The calls are sent on in their order, each as soon as its id and its name are certain: the arguments have begun, and
  the name is that of a tool of the request, if it has any. Otherwise its fragments wait for the end of the call.
- Nothing is announced as complete before the answer has ended, and only if its arguments are one JSON object. No
  arguments at all are an empty object, unless the tool requires some.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from shared.errors import ProviderError
from shared.protocol import events
from shared.schemas import ChatRequest
from workers.providers.base import Delta, FinishReason, ToolCallDelta
from workers.providers.substitutes import Substitutes, tool_names
from workers.writing.surrogates import well_formed

_decoder: Final = msgspec.json.Decoder(dict[str, Any])
#: Longest name of a tool in an error message.
_LONGEST_NAME: Final = 64
_CUT_SHORT: Final = frozenset({"length", "content_filter"})


class _Call:
    """One call in assembly. ``key`` and ``given_id`` are the provider's; ``index`` is None until it is sent on."""

    __slots__ = ("arguments", "given_id", "id", "index", "key", "members", "name")

    def __init__(self, key: int | None, given_id: str | None) -> None:
        self.key = key
        self.given_id = given_id
        self.id = ""
        self.name = ""
        self.index: int | None = None
        self.arguments: list[str] = []
        self.members: dict[str, Any] = {}

    @property
    def joined(self) -> str:
        return well_formed("".join(self.arguments)).strip()

    @property
    def is_whole(self) -> bool:
        """True if the arguments so far are one JSON object."""
        return bool(self.arguments) and self.arguments[-1].rstrip().endswith("}") and _is_object(self.joined)


class ToolCalls:
    """The calls of one answer. ``upstream`` is the provider's name, for errors; ``offered`` are the request's tools,
    as :func:`offered_tools` returns them; ``names`` are those that the provider got substitutes of. ``family``: of
    the calls' further members."""

    def __init__(
        self,
        upstream: str,
        offered: Mapping[str, bool] | None = None,
        names: Substitutes | None = None,
        family: str = "openai",
    ) -> None:
        self._family = family
        self._upstream = upstream
        self.names = names or tool_names()
        self._offered = {self.names.of(name): requires for name, requires in (offered or {}).items()}
        self._all: list[_Call] = []
        self._sent = 0  # calls of `_all`
        self._next_index = 0
        self._others: dict[int | None, int] = {}

    def other(self, key: int | None) -> int:
        """Return the index of a call of another form, which is passed on as it came."""
        if key not in self._others:
            self._others[key], self._next_index = self._next_index, self._next_index + 1
        return self._others[key]

    def fragment(
        self,
        key: int | None,
        *,
        id: str | None,
        name: str | None,
        arguments: str,
        members: dict[str, Any] | None = None,
    ) -> Iterator[Delta]:
        """Take one fragment. ``key``: the provider's number of the call or of its block; None if it has none.
        ``members``: further members of the call, for the provider's family."""
        call = self._begun(key, id, name, arguments)
        if call is None:
            return
        if name and name != call.name:
            if call.index is not None:
                raise self._invalid("changed the name of a tool call within its arguments")
            call.name += name
        if arguments:
            call.arguments.append(arguments)
        if members:
            call.members |= members
        if call.index is None:
            if self._all[self._sent] is call and call.given_id and self._is_certain(call):
                yield from self._send(call)
            return
        if members:
            yield events.Extra(self._family, {"call": call.index, "members": members})
        if arguments:
            yield ToolCallDelta(call.index, arguments)

    def _begun(self, key: int | None, id: str | None, name: str | None, arguments: str) -> _Call | None:
        """Return the call that a fragment belongs to, None if it begins none."""
        call = self._call_of(key, id)
        if call is None and not (id or name or arguments.strip()):
            return None
        if call is None or _begins_another(call, id, name, arguments):
            call = _Call(key, id)
            self._all.append(call)
        if id and not call.given_id:
            call.given_id = id
        return call

    def end_block(self, key: int) -> Iterator[Delta]:
        """Send on the call of a block that has ended, if no earlier call waits."""
        call = self._call_of(key, None)
        if call is not None and call.index is None and call.name and self._all[self._sent] is call:
            yield from self._send(call)

    def finish(self, reason: FinishReason) -> Iterator[Delta]:
        """Send the waiting fragments and announce the complete calls, once the answer has ended. Raises
        :class:`ProviderError` for a call that is not valid, unless ``reason`` is that of an answer cut short."""
        is_cut = reason in _CUT_SHORT
        if reason == "tool_calls" and not (self._all or self._others) and self._offered:
            raise self._invalid("ended with tool calls and sent none")
        for call in self._all:
            if not call.name:
                if is_cut:
                    return
                raise self._invalid("called a tool without naming it")
            if call.index is None:
                yield from self._send(call)
            arguments = call.joined
            if not (arguments or self._offered.get(call.name) or (is_cut and call is self._all[-1])):
                arguments = "{}"
                yield ToolCallDelta(call.index or 0, arguments)  # or clients that join the fragments have no JSON
            if _is_object(arguments):
                name = self.names.original(call.name)
                yield events.ToolCall(call.index or 0, arguments, call.id, name, complete=True, n=0)
            elif not is_cut:
                raise self._invalid("called a tool with arguments that are not a JSON object", call.name)

    def reason(self, given: FinishReason) -> FinishReason:
        """The finish reason of the answer: some providers send `stop` after a call too."""
        return "tool_calls" if (self._all or self._others) and given == "stop" else given

    def _call_of(self, key: int | None, id: str | None) -> _Call | None:
        latest: _Call | None = None
        for call in reversed(self._all):
            if key is None or call.key == key:
                if not id or call.given_id == id:
                    return call
                latest = latest or call
        return latest

    def _is_certain(self, call: _Call) -> bool:
        is_known = call.name in self._offered if self._offered else bool(call.name)
        return is_known and bool("".join(call.arguments).strip())

    def _send(self, call: _Call) -> Iterator[Delta]:
        call.index, self._next_index = self._next_index, self._next_index + 1
        self._sent += 1
        is_used = any(call.given_id == other.id for other in self._all)
        call.id = call.given_id if call.given_id and not is_used else f"call_{secrets.token_hex(12)}"
        if call.members:
            yield events.Extra(self._family, {"call": call.index, "members": call.members})
        yield ToolCallDelta(call.index, "".join(call.arguments), call.id, self.names.original(call.name))

    def _invalid(self, problem: str, name: str = "a tool") -> ProviderError:
        name = self.names.original(name)
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        message = "the model called {} with arguments that are not a JSON object; try again"
        # Neither the log nor the state may have the name: the model may have invented it.
        return ProviderError(
            "tool_call_invalid",
            message.format(shown),
            retryable=True,
            detail=f"{self._upstream} {problem}",
            summary=message.format("a tool"),
        )


def _begins_another(call: _Call, id: str | None, name: str | None, arguments: str) -> bool:
    """Decide whether a fragment begins a new call under the key of ``call``. Some servers give all parallel calls
    one number, each with an id of its own or with none; others give each fragment of one call a new id."""
    is_other = bool(id and call.given_id and id != call.given_id)
    if is_other and name:
        goes_on = name == call.name and bool(call.arguments) and not arguments.lstrip().startswith("{")
        return not goes_on or call.is_whole
    return bool(is_other or name) and bool(arguments.strip()) and call.is_whole


def _is_object(arguments: str) -> bool:
    try:
        _decoder.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def arguments_text(arguments: object) -> str:
    """Return arguments as text: some servers send the object itself. Empty ones are no text."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False) if arguments else ""


def text_or_none(value: object) -> str | None:
    """Return an id or a name, None if it has another type."""
    return value if isinstance(value, str) else None


def offered_tools(request: ChatRequest) -> dict[str, bool]:
    """Return the names of the request's tools, each with True if it requires arguments."""
    functions = [tool.function for tool in request.tools or ()]
    return {function.name: bool((function.parameters or {}).get("required")) for function in functions}
