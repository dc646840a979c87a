"""Tool calls in the format of OpenAI's Chat Completions, which is also the canonical request's."""

from typing import Any


def tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a complete call for ``tool_calls`` of an assistant message. ``arguments``: JSON as text. Values from a
    client's request need no check here; the request's schema validates them."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
