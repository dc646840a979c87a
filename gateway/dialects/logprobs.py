"""Probabilities of the tokens of a text, for clients of the other one of OpenAI's two APIs."""

from typing import Any, Final

from shared.protocol.events import Extra

Body = dict[str, Any]
#: Members of a token in both formats. Chat Completions requires all of them.
_EMPTY: Final[Body] = {"bytes": None, "top_logprobs": []}


def chat_logprobs(event: Extra) -> Body | None:
    """Return ``logprobs`` of a choice for those of a Responses upstream, or None."""
    match event:
        case Extra("responses", {"logprobs": list(tokens)}):
            content = [{**_EMPTY, **token} for token in tokens if isinstance(token, dict)]
            return {"content": content, "refusal": None}
    return None


def responses_logprobs(event: Extra) -> list[Body]:
    """Return the tokens of a text for those of a Chat Completions upstream."""
    match event:
        case Extra("openai", {"choice": {"logprobs": {"content": list(tokens)}}}):
            return [token for token in tokens if isinstance(token, dict)]
    return []
