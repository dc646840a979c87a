"""Usage in OpenAI's format."""

from typing import Any

from gateway.dialects.token_counts import counted
from shared.protocol.events import Usage


def usage_of(usage: Usage, extra: dict[str, Any]) -> dict[str, Any]:
    """Return the counts. ``extra``: further members from the provider; they replace none of ours."""
    body: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    details = {
        "prompt_tokens_details": counted(
            cached_tokens=usage.cached_tokens, cache_write_tokens=usage.cache_write_tokens
        ),
        "completion_tokens_details": counted(reasoning_tokens=usage.reasoning_tokens),
    }
    body |= {name: parts for name, parts in details.items() if parts}
    for name, value in extra.items():
        ours = body.setdefault(name, value)
        if isinstance(ours, dict) and isinstance(value, dict):
            body[name] = value | ours
    return body
