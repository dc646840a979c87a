"""Aliases: one name for several targets. The order in which a request tries them."""

import hashlib
import json
from collections.abc import Iterable

from shared.configuration.entries import Target
from shared.rendezvous import rank
from shared.schemas import ChatRequest
from shared.schemas.chat import StoredRequest


def ordered(targets: Iterable[Target], request: ChatRequest, chat_id: str | None = None) -> list[str]:
    """Return an alias's targets in the order in which this request tries them.

    Requests with the same beginning get the same order, because a provider's prompt cache depends on it; over all
    beginnings, each target is first in proportion to its weight (rendezvous hashing). Other requests get an order by
    chance.
    """
    prefix = prefix_of(request, chat_id)
    ranked = sorted(targets, key=lambda target: rank(target.target, prefix, target.weight), reverse=True)
    return [target.target for target in ranked]


def prefix_of(request: ChatRequest, chat_id: str | None = None) -> str | None:
    """Return what a request has in common with those that can share a provider's prompt cache, as a hash: its chat,
    its ``prompt_cache_key``, else its instructions and tools. None: it has none of them."""
    if chat_id:
        return _hash(["chat", chat_id])
    original = request.original.body if isinstance(request, StoredRequest) and request.original else {}
    if isinstance(key := original.get("prompt_cache_key"), str) and key:
        return _hash(["key", key])
    system = [message.text for message in request.messages if message.role == "system"]
    tools = [tool.model_dump(mode="json", exclude_none=True) for tool in request.tools or ()]
    return _hash(["begin", system, tools]) if system or tools else None


def _hash(parts: Iterable[object]) -> str:
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()[:16]
