"""Provider-specific data of a Messages stream, as events of Anthropic's family.

The forms are those of :class:`shared.protocol.events.Extra`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shared.protocol.events import Extra

FAMILY: Final = "anthropic"
#: Members that canonical events have.
_BLOCK: Final[dict[str, frozenset[str]]] = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}
_MESSAGE: Final = frozenset(
    {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage", "stop_details"}
)
_USAGE: Final = frozenset({"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"})
_DETAILS: Final = "output_tokens_details"
#: Members of a message that its end cannot change.
_OF_MESSAGE: Final = frozenset({"id", "type", "role", "model", "content", "usage"})
_END: Final = _OF_MESSAGE | {"delta", "amazon-bedrock-invocationMetrics"}
#: Stop reasons that canonical finish reasons do not distinguish.
_STOP_REASONS: Final = frozenset({"pause_turn", "stop_sequence", "model_context_window_exceeded", "compaction"})
Data = dict[str, Any]


def extra(**data: Any) -> Extra:
    return Extra(FAMILY, data)


def without(members: object, names: Iterable[str]) -> Data:
    """Return the other members of an object; none for anything else."""
    return {name: value for name, value in members.items() if name not in names} if isinstance(members, dict) else {}


def block_members(block: Mapping[str, Any]) -> Data:
    """Return the members of a text, thinking or tool_use block that no canonical event has."""
    return without(block, _BLOCK[block["type"]])


def start_members(message: object) -> Data:
    """Return the further members of a message at its start, and of its usage; empty if there are none."""
    if not isinstance(message, dict):
        return {}
    members = {name: value for name, value in without(message, _MESSAGE).items() if value is not None}
    parts = {"message": members, "usage": usage_members(message.get("usage"))}
    return {name: part for name, part in parts.items() if part}


def end_members(event: Data, unknown_reason: str | None) -> Data:
    """Return the further members of ``message_delta``; empty if there are none. ``unknown_reason``: the stop reason,
    if its meaning is not known."""
    delta = event.get("delta")
    stop = without(delta, _OF_MESSAGE | {"stop_reason", "stop_sequence"})
    stop = {name: value for name, value in stop.items() if value is not None}
    if isinstance(delta, dict):
        reason = delta.get("stop_reason")
        if unknown_reason is not None or (isinstance(reason, str) and reason in _STOP_REASONS):
            stop["stop_reason"] = unknown_reason or reason
        if isinstance(sequence := delta.get("stop_sequence"), str):
            stop["stop_sequence"] = sequence
    end = {name: value for name, value in without(event, _END).items() if value is not None}
    parts = {"stop": stop, "end": end, "usage": usage_members(event.get("usage"))}
    return {name: part for name, part in parts.items() if part}


def usage_members(usage: object) -> Data:
    """Return the members of a usage that canonical usage has not."""
    members = without(usage, {*_USAGE, _DETAILS})
    details = without(usage.get(_DETAILS), {"thinking_tokens"}) if isinstance(usage, dict) else {}
    members = {name: value for name, value in members.items() if value is not None}
    return members | ({_DETAILS: details} if details else {})


class OtherBlock:
    """A block of another kind than text, thinking and tool_use, until it ends. ``size``: bytes of its events."""

    def __init__(self, block: Data, size: int) -> None:
        self.size = size
        self._block = block
        self._deltas: list[Data] = []
        self._inputs: list[str] = []

    def add(self, delta: Data, size: int) -> None:
        """Add a delta of ``size`` bytes. Fragments of a JSON text become one delta."""
        self.size += size
        text = delta.get("partial_json")
        if delta.get("type") == "input_json_delta" and isinstance(text, str):
            self._inputs.append(text)
        else:
            self._deltas += [*self._joined_input(), delta]

    def event(self) -> Extra:
        self._deltas += self._joined_input()
        return extra(block=self._block, deltas=self._deltas)

    def _joined_input(self) -> list[Data]:
        text, self._inputs = "".join(self._inputs), []
        return [{"type": "input_json_delta", "partial_json": text}] if text else []
