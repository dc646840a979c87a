"""Usage of a run, as AG-UI has it and as Headrace has it."""

from typing import Any, cast

import msgspec

from gateway.dialects.token_counts import counted
from shared.protocol.events import Done, Start, TargetUsage, Usage

Body = dict[str, Any]


def run_usage(done: Done, start: Start | None) -> Body:
    """Return the member ``usage`` of a run's ending: one entry for each call of the answer; nothing if unknown."""
    if done.usage is None:
        return {}
    if isinstance(done.usage_by_target, list):
        return {"usage": [_of_target(each) for each in done.usage_by_target]}
    target = {"provider": start.provider, "model": start.model} if start is not None else {}
    return {"usage": [target | _counts(done.usage)]}


def usage_members(done: Done) -> Body:
    """Return usage and cost as the native event ``done`` has them."""
    members = cast(Body, msgspec.to_builtins(done))
    return {name: members[name] for name in ("usage", "usage_by_target", "cost") if name in members}


def _of_target(target: TargetUsage) -> Body:
    return {"provider": target.provider, "model": target.model, **_counts(target.usage)}


def _counts(usage: Usage) -> Body:
    details = counted(
        reasoningTokens=usage.reasoning_tokens,
        cachedInputTokens=usage.cached_tokens,
        cacheWriteInputTokens=usage.cache_write_tokens,
    )
    total = usage.input_tokens + usage.output_tokens
    return {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens, "totalTokens": total, **details}
