"""Usage in Anthropic's form."""

from typing import Any

from gateway.dialects.token_counts import counted
from shared.protocol.events import Usage

Body = dict[str, Any]


def usage_of(usage: Usage | None, members: Body | None = None) -> Body:
    """Return the usage. Anthropic counts input tokens without those of its cache. ``members``: further ones."""
    if usage is None:
        return merged({"input_tokens": 0, "output_tokens": 0}, members or {})
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    body: Body = {
        "input_tokens": max(0, usage.input_tokens - (cached or 0) - (written or 0)),
        **counted(cache_read_input_tokens=cached, cache_creation_input_tokens=written),
        "output_tokens": usage.output_tokens,
    }
    if details := counted(thinking_tokens=usage.reasoning_tokens):
        body["output_tokens_details"] = details
    return merged(body, members) if members else body


def merged(body: Body, members: Body) -> Body:
    """Return ``body`` with further members, also of its objects. Its own members stay."""
    result = dict(body)
    for name, value in members.items():
        known = result.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            result[name] = merged(known, value)
        else:
            result.setdefault(name, value)
    return result
