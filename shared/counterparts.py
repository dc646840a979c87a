"""Fields of one wire format that another one has too, though the canonical request does not.

A provider of the other family gets them in its own form, so they are not lost there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.schemas.chat import ChatRequest, StoredRequest


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The other format's field. ``values``: its words for the client's values; None if they have the same ones."""

    field: str
    values: Mapping[Any, Any] | None = None


_ANTHROPIC_TIERS: Final = {"auto": "auto", "default": "standard_only"}
#: By the client's family and the provider's, then by the client's path.
_COUNTERPARTS: Final[Mapping[tuple[str, str], Mapping[str, Counterpart]]] = {
    ("responses", "openai"): {
        "text.verbosity": Counterpart("verbosity"),
        **{
            name: Counterpart(name)
            for name in (
                *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "service_tier"),
                *("safety_identifier", "user"),
            )
        },
    },
    ("responses", "anthropic"): {"service_tier": Counterpart("service_tier", _ANTHROPIC_TIERS)},
    ("openai", "anthropic"): {"service_tier": Counterpart("service_tier", _ANTHROPIC_TIERS)},
    ("anthropic", "openai"): {
        "service_tier": Counterpart("service_tier", {word: name for name, word in _ANTHROPIC_TIERS.items()})
    },
}


def counterparts(request: ChatRequest, family: str) -> dict[str, tuple[str, Any]]:
    """Return the fields that a provider of ``family`` gets beside the canonical ones: name and value, by the client's
    path."""
    original = request.original if isinstance(request, StoredRequest) else None
    if original is None:
        return {}
    found: dict[str, tuple[str, Any]] = {}
    for path, counterpart in _COUNTERPARTS.get((original.family, family), {}).items():
        value = _member(original.body, path)
        if counterpart.values is not None:
            value = counterpart.values.get(value) if isinstance(value, str) else None
        if value is not None:
            found[path] = counterpart.field, value
    return found


def counterpart_fields(request: ChatRequest, family: str) -> dict[str, Any]:
    """Return the same fields as members of the provider's request."""
    return dict(counterparts(request, family).values())


def _member(body: Any, path: str) -> Any:
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body
