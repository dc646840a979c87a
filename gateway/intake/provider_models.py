"""Models that a request names to its provider's server, beside its own model.

Some servers choose among several models themselves, or let one ask another. For credentials that are limited to some
models, these count too.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.errors import ModelNotAllowed
from shared.model_patterns import ModelPatterns
from shared.schemas import ChatRequest, StoredRequest


def check_provider_models(request: ChatRequest, allowed: ModelPatterns, targets: Iterable[tuple[str, str]]) -> None:
    """Raise :class:`ModelNotAllowed` for a further model that ``allowed`` does not permit. ``targets``: the providers
    of the request's targets, each with the family of the target's wire format."""
    for family, body, prefix in _bodies(request):
        providers = {name for name, its_family in targets if its_family == family} or {family}
        for path, name in _models(body):
            if not isinstance(name, str) or not all(allowed.allow(provider, name) for provider in providers):
                raise ModelNotAllowed(f"{prefix}{path}: not allowed for these credentials; see GET /v1/models")


def _bodies(request: ChatRequest) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield what providers of a family get as it is."""
    if isinstance(request, StoredRequest) and request.original is not None:
        yield request.original.family, request.original.body, ""
    for family, options in (request.provider_options or {}).items():
        yield family, options, f"provider_options.{family}."


def _models(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the models with their paths: alternatives to the request's own, and those that a tool asks."""
    alternatives = body.get("models")
    for at, name in enumerate(alternatives if isinstance(alternatives, list) else []):
        yield f"models.{at}", name
    tools = body.get("tools")
    for at, tool in enumerate(tools if isinstance(tools, list) else []):
        if isinstance(tool, Mapping) and tool.get("model") is not None:
            yield f"tools.{at}.model", tool["model"]
