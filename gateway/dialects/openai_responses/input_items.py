"""Input items of a Responses request as canonical messages."""

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.dialects.openai_responses.notes import Notes
from gateway.dialects.openai_responses.offered_tools import OfferedTools
from gateway.dialects.openai_responses.parts import content_of
from gateway.dialects.reasoning import extra_of, extras_of_calls, unpack
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest
from shared.response_items import INPUT, TOOL_SEARCH, stream_of

_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
Body = dict[str, Any]


class Conversation:
    """Messages under construction. ``before``: messages that precede the input. Consecutive calls belong to one
    message; reasoning of an earlier answer belongs to the message that follows it."""

    def __init__(self, notes: Notes, tools: OfferedTools, before: list[Body]) -> None:
        self.messages = list(before)
        self._notes = notes
        self._tools = tools
        self._pending: list[str] = []
        self._reasoning: dict[int, list[str]] = {}
        self._extras_of_calls: dict[str, Body] = {}

    def add_all(self, raw_input: Any, referred: Mapping[str, Body]) -> None:
        """Add the input. Raises :class:`InvalidRequest`, which names the item."""
        if isinstance(raw_input, str):
            self._add({"role": "user", "content": raw_input}, "input")
            return
        if not isinstance(raw_input, list):
            raise InvalidRequest("input: must be a string or a list")
        for at, item in enumerate(raw_input):
            path = f"input.{at}"
            if not isinstance(item, dict):
                raise InvalidRequest(f"{path}: must be an object")
            if item.get("type") == "item_reference":
                self._add_referred(path, str(item.get("id")), referred)
            else:
                self._add_item(path, item)
        self._end_answer()
        for at, texts in self._reasoning.items():
            if extra := extra_of(texts):
                self.messages[at]["extra"] = extra
        self._add_extras_of_calls()

    def _add_referred(self, path: str, item_id: str, referred: Mapping[str, Body]) -> None:
        """Add the item that a reference names. One that the gateway did not make is perhaps the provider's."""
        if (item := referred.get(item_id)) is not None:
            self._add_item(path, item)
        elif stream_of(item_id) is None:
            self._notes.force(f"{path}.id")
        else:
            raise InvalidRequest(f"{path}.id: no such item, or its retention has ended; send the item itself")

    def _add_item(self, path: str, item: Body) -> None:
        match item.get("type") or "message":
            case "message":
                self._add_message(path, item)
            case "additional_tools":
                self._tools.add(f"{path}.tools", item.get("tools"))
            case "reasoning":
                self._add_reasoning(path, item.get("encrypted_content"))
            case "compaction_trigger":
                self._notes.force(f"{path}.type")
            case str(kind):
                self._add_tool_item(path, item, kind)
            case _:
                raise InvalidRequest(f"{path}.type: must be a string")

    def _add_tool_item(self, path: str, item: Body, kind: str) -> None:
        """Add a call or an output. Those of tools that OpenAI runs are left out."""
        match kind:
            case "function_call":
                self._add_call(path, item, item.get("arguments"))
            case "custom_tool_call":
                self._add_call(path, item, {INPUT: item.get("input")})
            case "tool_search_call" if item.get("execution") == "client":
                self._add_call(path, {**item, "name": TOOL_SEARCH}, item.get("arguments"))
            case "function_call_output" | "custom_tool_call_output":
                self._add_result(path, item, content_of(self._notes, f"{path}.output", item.get("output")))
            case "tool_search_output" if item.get("execution") == "client":
                self._add_result(path, item, self._found(path, item.get("tools")))
            case _:
                self._notes.drop(path)

    def _add_message(self, path: str, item: Body) -> None:
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise InvalidRequest(f"{path}.role: must be {', '.join(_ROLES)}")
        raw = item.get("content")
        if raw is not None and not isinstance(raw, str | list):
            raise InvalidRequest(f"{path}.content: must be a string or a list")
        content = content_of(self._notes, f"{path}.content", raw, only_text=role != "user")
        if isinstance(raw, str) or content or role == "assistant":
            self._add({"role": role, "content": content}, path)

    def _add_call(self, path: str, item: Body, arguments: Any) -> None:
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        name = self._tools.name_of(item.get("name"), item.get("namespace"))
        call = tool_call(_call_id(path, item), name, arguments or "")
        if self._pending or not self.messages or self.messages[-1]["role"] != "assistant":
            self._add({"role": "assistant"}, path)
        calls = self.messages[-1].setdefault("tool_calls", [])
        place = f"messages.{len(self.messages) - 1}.tool_calls.{len(calls)}"
        self._notes.place(place, path)
        self._notes.place(f"{place}.function", path)
        self._notes.place(f"{place}.id", f"{path}.call_id")
        calls.append(call)

    def _add_result(self, path: str, item: Body, content: Any) -> None:
        self._add({"role": "tool", "tool_call_id": _call_id(path, item), "content": content}, path)

    def _found(self, path: str, tools: Any) -> str:
        """Offer the tools that a search of the client's found; return their names for the model."""
        return json.dumps({"tools": self._tools.add(f"{path}.tools", tools or [])})

    def _add_reasoning(self, path: str, packed: Any) -> None:
        """Keep the reasoning for the next message of the answer. That of another server cannot be read."""
        self._extras_of_calls |= extras_of_calls([packed])
        if extra_of([packed]) is not None:
            self._pending.append(packed)
        elif packed and unpack(packed) is None:
            self._notes.drop(path)

    def _add_extras_of_calls(self) -> None:
        for message in self.messages if self._extras_of_calls else ():
            for call in message.get("tool_calls") or ():
                if call["id"] in self._extras_of_calls:
                    call["extra"] = self._extras_of_calls[call["id"]]

    def _add(self, message: Body, path: str) -> None:
        if message["role"] != "assistant":
            self._end_answer()
        elif self._pending:
            self._reasoning[len(self.messages)] = self._pending
            self._pending = []
        self._notes.place(f"messages.{len(self.messages)}", path)
        self.messages.append(message)

    def _end_answer(self) -> None:
        """Add reasoning without a later message to the last message of its answer."""
        if self._pending and self.messages and self.messages[-1]["role"] == "assistant":
            self._reasoning.setdefault(len(self.messages) - 1, []).extend(self._pending)
        self._pending = []


def _call_id(path: str, item: Body) -> str:
    call_id = item.get("call_id")
    if not isinstance(call_id, str):
        raise InvalidRequest(f"{path}.call_id: must be a string")
    return call_id
