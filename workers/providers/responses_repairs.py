"""Repairs of conversations that a server of Responses would refuse.

Such conversations come from clients that cut or interrupt them, and from other providers. A conversation without
these faults stays as it is.

- Ids of the gateway's items become the upstream's own again, or are left out. So are ids of a wrong kind.
- Reasoning of another provider family is left out: only its own provider can read it.
- An output without its call becomes text of the user. A call without an output gets one that says so.
- Arguments that are no JSON object become the member ``arguments`` of one.
- Names and ids that the server does not accept are replaced (:mod:`workers.providers.substitutes`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from shared.response_items import PACKED_PREFIX, stream_of, upstream_id
from workers.providers.openai_repairs import is_object
from workers.providers.substitutes import Substitutes, long_call_ids, tool_names
from workers.providers.unpaired_calls import EARLIER_RESULT, NO_RESULT

Body = dict[str, Any]
#: Calls that the client answers, with the types of their outputs.
_OUTPUTS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
#: Prefixes that OpenAI requires of the ids of input items.
_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "web_search_call": "ws",
}
#: Tools, calls and choices that name a tool of the client.
_NAMED: Final = frozenset({"function", "custom", "function_call", "custom_tool_call"})


@dataclass(frozen=True, slots=True)
class ResponsesNames:
    """Names and ids of one request in the server's form."""

    tools: Substitutes = field(default_factory=tool_names)
    calls: Substitutes = field(default_factory=long_call_ids)


def repaired(body: Body, names: ResponsesNames) -> Body:
    """Return a body that the server accepts. ``body`` is changed, the objects in it are not."""
    if isinstance(tools := body.get("tools"), list):
        body["tools"] = [_named(tool, names) for tool in tools]
    if isinstance(choice := body.get("tool_choice"), dict):
        body["tool_choice"] = _named(choice, names)
    if isinstance(items := body.get("input"), list):
        own = [item for item in items if not _is_foreign(item)]
        answered = own if _continues(body, own) else _answered(own)
        body["input"] = [_item(item, names) for item in answered]
    return body


def _continues(body: Body, items: list[Any]) -> bool:
    """Return True if the server itself has a part of the conversation, which may hold the missing calls."""
    refers = any(isinstance(item, dict) and item.get("type") == "item_reference" for item in items)
    return refers or any(body.get(name) is not None for name in ("conversation", "previous_response_id", "prompt"))


def _is_foreign(item: Any) -> bool:
    """Return True for reasoning of another provider family."""
    if not isinstance(item, dict) or item.get("type") != "reasoning":
        return False
    encrypted, id = item.get("encrypted_content"), item.get("id")
    if isinstance(encrypted, str) and encrypted:
        return encrypted.startswith(PACKED_PREFIX)
    return isinstance(id, str) and upstream_id(id) is None


def _answered(items: list[Any]) -> Iterator[Any]:
    """Yield the items, so that each call has an output and each output a call."""
    answered = {item.get("call_id") for item in items if isinstance(item, dict) and _is_output(item)}
    known = set[Any]()
    unanswered: list[Body] = []
    for item in items:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind in _OUTPUTS:
            known.add(item.get("call_id"))
            if item.get("call_id") not in answered:
                unanswered.append({"type": _OUTPUTS[kind], "call_id": item.get("call_id"), "output": NO_RESULT})
        elif unanswered and kind != "reasoning":
            yield from unanswered
            unanswered = []
        is_orphan = isinstance(item, dict) and _is_output(item) and item.get("call_id") not in known
        yield _as_text(item) if is_orphan else item
    yield from unanswered


def _is_output(item: Body) -> bool:
    return item.get("type") in _OUTPUTS.values()


def _as_text(item: Body) -> Body:
    """Return the output of a call that the conversation lacks, as a message."""
    output = item.get("output")
    parts = output if isinstance(output, list) else [{"type": "input_text", "text": output or ""}]
    heading = {"type": "input_text", "text": EARLIER_RESULT}
    return {"type": "message", "role": "user", "content": [heading, *parts]}


def _item(item: Any, names: ResponsesNames) -> Any:
    if not isinstance(item, dict):
        return item
    made: Body = _with_id(_named(item, names))
    if isinstance(request_id := item.get("approval_request_id"), str):
        made = made | {"approval_request_id": upstream_id(request_id) or request_id}
    if isinstance(call_id := item.get("call_id"), str) and (sent := names.calls.of(call_id)) != call_id:
        made = made | {"call_id": sent}
    if item.get("type") == "function_call" and not is_object(arguments := item.get("arguments")):
        made = made | {"arguments": json.dumps({"arguments": arguments}, ensure_ascii=False)}
    return made


def _with_id(item: Body) -> Body:
    """Return an item with the upstream's id, or without one."""
    id = item.get("id")
    if not isinstance(id, str):
        return item
    own = upstream_id(id)
    prefix = _PREFIXES.get(str(item.get("type") or "message"), "")
    if own is not None and own.startswith(prefix) and stream_of(own) is None:
        return item if own == id else item | {"id": own}
    return {name: value for name, value in item.items() if name != "id"}


def _named(tool: Any, names: ResponsesNames) -> Any:
    """Return a tool, a call or a choice with the server's names of the tools in it."""
    if not isinstance(tool, dict):
        return tool
    name, inner = tool.get("name"), tool.get("tools")
    if tool.get("type") in _NAMED and isinstance(name, str) and (sent := names.tools.of(name)) != name:
        return tool | {"name": sent}
    if isinstance(inner, list) and tool.get("type") in {"namespace", "allowed_tools", "additional_tools"}:
        return tool | {"tools": [_named(each, names) for each in inner]}
    return tool
