"""Input items of a stored request, as ``GET /v1/responses/{id}/input_items`` lists them."""

from collections.abc import Iterator, Sequence
from typing import Any

Item = dict[str, Any]


def items_of(stream_id: str, messages: Sequence[dict[str, Any]]) -> list[Item]:
    """Return the items of canonical messages, in their order. Their ids are those of this list only."""
    items = [item for message in messages for item in _items(message)]
    return [{"id": f"{_PREFIXES[item['type']]}_{stream_id}_in{at}", **item} for at, item in enumerate(items)]


_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def _items(message: dict[str, Any]) -> Iterator[Item]:
    role, content = message["role"], message.get("content")
    if role == "tool":
        output = content if isinstance(content, str) else [_part(role, part) for part in content or ()]
        yield {
            "type": "function_call_output",
            "call_id": message["tool_call_id"],
            "output": output,
            "status": "completed",
        }
        return
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if parts:
        shown = [_part(role, part) for part in parts]
        yield {"type": "message", "role": role, "status": "completed", "content": shown}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
            "status": "completed",
        }


def _part(role: str, part: Item) -> Item:
    if part.get("type") == "image_url":
        image = part["image_url"]
        return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail") or "auto"}
    if part.get("type") == "file":
        return {"type": "input_file", **part["file"]}
    if role == "assistant":
        return {"type": "output_text", "text": part.get("text", ""), "annotations": []}
    return {"type": "input_text", "text": part.get("text", "")}
