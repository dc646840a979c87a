"""Policy for fields that a provider lacks: drop them, or use only targets that support them."""

from typing import Final

from fastapi import Request

from shared.errors import InvalidRequest, UnsupportedField
from shared.provider_fields import ignored_paths
from shared.schemas import ChatRequest
from shared.settings import Settings, UnsupportedFields

HEADER: Final = "X-Headrace-Unsupported-Fields"
IGNORED: Final = "X-Headrace-Ignored"
#: Proxies limit all headers of a response to 4 KiB.
_LONGEST_HEADER: Final = 1024


def requested_policy(request: Request) -> UnsupportedFields | None:
    """Return the policy in the request's header. Raises :class:`InvalidRequest`."""
    match request.headers.get(HEADER):
        case None:
            return None
        case "drop" | "refuse" as policy:
            return policy
    raise InvalidRequest(f"{HEADER}: must be drop or refuse")


def with_policy(chat_request: ChatRequest, requested: UnsupportedFields | None, settings: Settings) -> ChatRequest:
    """Return the request with its policy: that of its body, else ``requested``, else that of the settings."""
    policy = chat_request.unsupported_fields or requested or settings.unsupported_fields
    return chat_request.model_copy(update={"unsupported_fields": policy})


def supporting_targets(chat_request: ChatRequest) -> ChatRequest:
    """Return the request without the targets that its policy excludes. ``chat_request``: with resolved targets.
    Raises :class:`UnsupportedField` if none is left."""
    if chat_request.unsupported_fields != "refuse":
        return chat_request
    own = f"{chat_request.provider}/{chat_request.model}"
    targets = [name for name in (own, *(chat_request.fallbacks or ())) if not _ignored(chat_request, name)]
    if not targets:
        path = _ignored(chat_request, own)[0]
        raise UnsupportedField(
            f"{path}: not supported by provider {chat_request.provider}; remove it, choose another model, or set"
            " unsupported_fields to drop"
        )
    provider, _, model = targets[0].partition("/")
    changes = {"provider": provider, "model": model, "fallbacks": targets[1:] or None}
    return chat_request.model_copy(update=changes)


def known_ignored(chat_request: ChatRequest) -> tuple[str, ...]:
    """Return the fields without effect that are known before a provider answers: those that the only target lacks."""
    return () if chat_request.fallbacks else ignored_paths(chat_request, chat_request.provider or "")


def add_ignored(headers: dict[str, str], paths: tuple[str, ...]) -> None:
    """Add paths to the header that names ignored fields. Those that do not fit, or are not ASCII, are left out."""
    named = [path for path in headers.get(IGNORED, "").split(", ") if path]
    length = sum(len(path) + 2 for path in named)
    for path in paths:
        if path in named or not (path.isascii() and path.isprintable()):
            continue
        length += len(path) + 2
        if length <= _LONGEST_HEADER:
            named.append(path)
    if named:
        headers[IGNORED] = ", ".join(named)


def _ignored(chat_request: ChatRequest, target: str) -> tuple[str, ...]:
    return ignored_paths(chat_request, target.partition("/")[0])
