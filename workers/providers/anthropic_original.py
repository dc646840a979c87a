"""A client's own Messages request, with the few changes that Anthropic's servers need."""

from typing import Any

from shared.our_citations import is_our_citation
from shared.schemas import ChatRequest
from shared.schemas.original import Original
from workers.providers.substitutes import Substitutes, anthropic_call_ids
from workers.providers.unpaired_calls import paired

Body = dict[str, Any]


def body_of_original(request: ChatRequest, original: Original, default_max_tokens: int, names: Substitutes) -> Body:
    """Return the body that the client sent, for the provider's own model. The order of all members stays."""
    body = dict(original.body)
    body["model"] = request.model
    if request.only_count:
        body.pop("stream", None)
        return _repaired(body, names)
    body["stream"] = True
    if body.get("max_tokens") is None:
        body["max_tokens"] = default_max_tokens
    return _repaired(body, names)


def tools_of_original(original: Original | None) -> dict[str, bool]:
    """Return the names of the client's and the provider's tools, none of which requires arguments for certain."""
    tools = original.body.get("tools") if original is not None else None
    if not isinstance(tools, list):
        return {}
    return {name: False for tool in tools if isinstance(tool, dict) and isinstance(name := tool.get("name"), str)}


def _repaired(body: Body, names: Substitutes) -> Body:
    """Replace ids of calls and names of tools that Anthropic would refuse, leave out citations of the gateway's own,
    and repair calls without a result. Everything else is the same object."""
    ids = anthropic_call_ids()
    if isinstance(tools := body.get("tools"), list):
        body["tools"] = [_renamed(tool, "name", names) for tool in tools]
    if "tool_choice" in body:
        body["tool_choice"] = _renamed(body["tool_choice"], "name", names)
    if isinstance(messages := body.get("messages"), list):
        body["messages"] = paired([_repaired_message(message, names, ids) for message in messages])
    return body


def _repaired_message(message: Any, names: Substitutes, ids: Substitutes) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    return {**message, "content": [_repaired_block(block, names, ids) for block in content]}


def _repaired_block(block: Any, names: Substitutes, ids: Substitutes) -> Any:
    match block:
        case {"type": "tool_use"}:
            return _renamed(_renamed(block, "id", ids), "name", names)
        case {"type": "tool_result"}:
            return _renamed(block, "tool_use_id", ids)
        case {"type": "text", "citations": list(citations)} if any(map(is_our_citation, citations)):
            return _cited(block, [each for each in citations if not is_our_citation(each)])
    return block


def _cited(block: Body, citations: list[Any]) -> Body:
    """Return a text with these citations only."""
    rest = {name: value for name, value in block.items() if name != "citations"}
    return rest | ({"citations": citations} if citations else {})


def _renamed(members: Any, name: str, substitutes: Substitutes) -> Any:
    value = members.get(name) if isinstance(members, dict) else None
    if not isinstance(value, str) or (substitute := substitutes.of(value)) == value:
        return members
    return {**members, name: substitute}
