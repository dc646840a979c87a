"""Repairs of conversations that a Chat Completions server would refuse.

Such conversations come from clients that cut or interrupt them, and from other providers. A conversation without
these faults stays as it is.

- Images and files in a tool's result: the API has only text there. They follow in a user message, after the last
  result of the same calls.
- A result without its call becomes text of the user.
- A call without a result gets one that says so. To leave the call out would change what the model did.
- Arguments that are no JSON object become the member ``arguments`` of one.
- Members that an SDK's helpers add to an answer (``parsed``) are left out.
- Names and ids that the server does not accept are replaced (:mod:`workers.providers.substitutes`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic_core import from_json

from workers.providers.substitutes import Substitutes, mistral_call_ids, tool_names
from workers.providers.unpaired_calls import EARLIER_RESULT, NO_RESULT

Body = dict[str, Any]
_IN_NEXT_MESSAGE: Final = "The result follows in a user message."
_FORMS: Final = ("function", "custom")


@dataclass(frozen=True, slots=True)
class OpenAINames:
    """Names and ids of one request in the server's form. ``calls``: None if the server accepts every id."""

    tools: Substitutes = field(default_factory=tool_names)
    calls: Substitutes | None = None

    @classmethod
    def at(cls, host: str, call_ids: Literal["any", "nine"] | None = None) -> "OpenAINames":
        """Return the names for a server. ``call_ids``: the ids that it accepts; None: known by its address."""
        has_nine = is_mistral(host) if call_ids is None else call_ids == "nine"
        return cls(calls=mistral_call_ids() if has_nine else None)


def is_mistral(host: str) -> bool:
    """Return True for an address of Mistral itself."""
    return host == "mistral.ai" or host.endswith(".mistral.ai")


def repaired(body: Body, names: OpenAINames) -> Body:
    """Return a body that the server accepts. ``body`` is changed, the objects in it are not."""
    if isinstance(tools := body.get("tools"), list):
        body["tools"] = [_named(tool, names) for tool in tools]
    if isinstance(choice := body.get("tool_choice"), dict):
        body["tool_choice"] = _chosen(choice, names)
    if isinstance(messages := body.get("messages"), list):
        body["messages"] = list(_messages(messages, names))
    return body


def _messages(messages: list[Body], names: OpenAINames) -> Iterator[Body]:
    open_calls: list[str] = []  # calls of the latest assistant's message without a result
    files: list[Body] = []  # of the results since then
    for message in messages:
        role = message.get("role")
        if role == "tool":
            id = message.get("tool_call_id")
            if id not in open_calls:
                files.append({"type": "text", "text": f"{EARLIER_RESULT}\n{_text(message)}"})
                files += _files(message)
                continue
            open_calls.remove(id)
            yield _result(message, id, names, files)
            continue
        yield from _closed(open_calls, files, names)
        open_calls, files = [], []
        kept = {name: value for name, value in message.items() if name != "parsed"}
        calls = message.get("tool_calls")
        if role == "assistant" and isinstance(calls, list) and calls:
            open_calls = [call["id"] for call in calls if isinstance(call.get("id"), str)]
            kept["tool_calls"] = [_call(call, names) for call in calls]
        yield kept
    yield from _closed(open_calls, files, names)


def _closed(open_calls: list[str], files: list[Body], names: OpenAINames) -> Iterator[Body]:
    """Return what has to follow the results of one assistant's message."""
    for id in open_calls:
        yield {"role": "tool", "tool_call_id": _id(id, names), "content": NO_RESULT}
    if files:
        yield {"role": "user", "content": files}


def _result(message: Body, id: str, names: OpenAINames, files: list[Body]) -> Body:
    made = message | {"tool_call_id": _id(id, names)}
    if found := _files(message):
        files.append({"type": "text", "text": f"Result of the tool call {_id(id, names)}:"})
        files += found
        texts = [part for part in message["content"] if part not in found]
        made["content"] = texts or _IN_NEXT_MESSAGE
    return made


def _files(message: Body) -> list[Body]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") != "text"]


def _text(message: Body) -> str:
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _call(call: Body, names: OpenAINames) -> Body:
    made: Body = _named(call, names)
    if isinstance(call.get("id"), str):
        made["id"] = _id(call["id"], names)
    if isinstance(function := made.get("function"), dict):
        made["function"] = {name: value for name, value in function.items() if name != "parsed_arguments"}
        if not is_object(arguments := function.get("arguments")):
            made["function"]["arguments"] = json.dumps({"arguments": arguments}, ensure_ascii=False)
    return made


def is_object(arguments: Any) -> bool:
    """Return True for the text of a JSON object, and for nothing: servers take that for an empty one."""
    if not arguments or isinstance(arguments, dict):
        return True
    try:
        return isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except (TypeError, ValueError):
        return False


def _named(tool: Any, names: OpenAINames) -> Any:
    """Return a tool or a call with the server's name of it."""
    if not isinstance(tool, dict):
        return tool
    made = dict(tool)
    for form in _FORMS:
        if isinstance(inner := tool.get(form), dict) and isinstance(name := inner.get("name"), str):
            made[form] = inner | {"name": names.tools.of(name)}
    return made


def _chosen(choice: Body, names: OpenAINames) -> Body:
    allowed = choice.get("allowed_tools")
    if isinstance(allowed, dict) and isinstance(tools := allowed.get("tools"), list):
        return choice | {"allowed_tools": allowed | {"tools": [_named(tool, names) for tool in tools]}}
    named: Body = _named(choice, names)
    return named


def _id(id: str, names: OpenAINames) -> str:
    return names.calls.of(id) if names.calls is not None else id
