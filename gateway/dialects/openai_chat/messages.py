"""Messages of a Chat Completions request in the canonical form."""

import json
from typing import Any, Final

from gateway.dialects.openai_chat import reasoning
from gateway.dialects.openai_chat.parts import content_of
from gateway.dialects.openai_chat.specific import Specific

_KNOWN: Final = frozenset({"role", "content", "name", "cache_control"})
#: Members of a response's message, which clients send back; models do not read them.
_REPEATED: Final = frozenset({"refusal", "annotations", "parsed", "id", "audio"})
_OF_CALLS: Final = frozenset({"index", "id", "type", "function", "custom"})
_LONGEST_NAME: Final = 256


def messages_of(messages: Any, specific: Specific) -> Any:
    """Return the messages; something else than a list is left to be refused."""
    if not isinstance(messages, list):
        return messages
    converter = _Messages(specific)
    return [converter.message(message, at) for at, message in enumerate(messages)]


class _Messages:
    def __init__(self, specific: Specific) -> None:
        self._specific = specific
        self._older_call = "call_0"  # id of the latest call in the older form, which has none

    def message(self, message: Any, at: int) -> Any:
        if not isinstance(message, dict):
            return message
        given = {name: value for name, value in message.items() if value is not None}
        role = {"developer": "system", "function": "tool"}.get(str(given.get("role")), given.get("role"))
        made: dict[str, Any] = {"role": role} if "role" in given else {}
        content = content_of(given, role, at, self._specific)
        known = _KNOWN
        match role:
            case "assistant":
                made |= self._of_assistant(given, at)
                known |= {"tool_calls", "function_call", *_REPEATED, *reasoning.MEMBERS}
                if content is None and "tool_calls" not in made:
                    content = _text(given.get("refusal"))
            case "tool":
                made |= self._of_tool(given)
                known |= {"tool_call_id"}
                content = "" if content is None else content
        if content is not None:
            made["content"] = content
        self._specific.add_others({n: v for n, v in given.items() if v != []}, known, "messages", at)
        return made | self._name(given, role, at)

    def _name(self, given: dict[str, Any], role: Any, at: int) -> dict[str, Any]:
        name = given.get("name")
        if name is None or role == "tool":
            return {}
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME:
            return {"name": name}
        self._specific.add("messages", at, "name")
        return {}

    def _of_tool(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("role") == "function":
            return {"tool_call_id": self._older_call}
        return {"tool_call_id": given["tool_call_id"]} if "tool_call_id" in given else {}

    def _of_assistant(self, given: dict[str, Any], at: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        calls = given.get("tool_calls")
        if isinstance(older := given.get("function_call"), dict) and not calls:
            self._older_call = f"call_{at}"
            calls = [{"id": self._older_call, "type": "function", "function": older}]
        if isinstance(calls, list) and calls:
            made["tool_calls"] = [_call(call) for call in calls]
        elif calls:
            made["tool_calls"] = calls
        if extra := reasoning.reasoning_of(given):
            made["extra"] = extra
        return made


def _call(call: Any) -> Any:
    """Return a tool call. The members that only OpenAI's family reads are kept apart (`extra_content`)."""
    if not isinstance(call, dict):
        return call
    function = call.get("function")
    if call.get("type") == "custom" and isinstance(custom := call.get("custom"), dict):
        function = {"name": custom.get("name"), "arguments": json.dumps({"input": custom.get("input")})}
    if isinstance(function, dict):
        function = {"name": function.get("name"), "arguments": _arguments(function.get("arguments"))}
    made = {"type": "function", "function": function} | ({"id": call["id"]} if call.get("id") is not None else {})
    extra = {name: value for name, value in call.items() if value is not None and name not in _OF_CALLS}
    return made | ({"extra": {"openai": extra}} if extra else {})


def _arguments(arguments: Any) -> Any:
    """Return the arguments as text: some clients send the object itself."""
    if arguments is None:
        return "{}"
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
