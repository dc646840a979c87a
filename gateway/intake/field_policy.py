"""Policy for fields that a provider lacks: drop them, or use only targets that support them."""

from typing import Final

from fastapi import Request

from shared.errors import InvalidRequest, UnsupportedField
from shared.provider_fields import forced_problem, ignored_paths
from shared.schemas import ChatRequest
from shared.schemas.chat import forced_for
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
    """Return the request without the targets that cannot have its forced tool, or that its policy excludes.
    ``chat_request``: with resolved targets. Raises :class:`UnsupportedField` if none is left."""
    own = f"{chat_request.provider}/{chat_request.model}"
    named = [own, *(chat_request.fallbacks or ())]
    able = [name for name in named if forced_for(chat_request, _provider_of(name)) is None]
    refuses = chat_request.unsupported_fields == "refuse"
    targets = [name for name in able if not (refuses and _ignored(chat_request, name))]
    if not targets:
        raise _no_target(chat_request, able)
    if targets == named:
        return chat_request
    provider, _, model = targets[0].partition("/")
    changes = {"provider": provider, "model": model, "fallbacks": targets[1:] or None}
    return chat_request.model_copy(update=changes)


def _no_target(chat_request: ChatRequest, able: list[str]) -> UnsupportedField:
    """Return the error of a request without a target. ``able``: targets that can have its forced tool."""
    provider = chat_request.provider or ""
    if not able:
        return UnsupportedField(forced_problem(forced_for(chat_request, provider) or "tool_choice", provider))
    target = able[0]
    path = _ignored(chat_request, target)[0]
    return UnsupportedField(
        f"{path}: not supported by provider {_provider_of(target)}; remove it, choose another model, or set"
        " unsupported_fields to drop"
    )


def known_ignored(chat_request: ChatRequest) -> tuple[str, ...]:
    """Return the fields without effect that are known before a provider answers: those that every target lacks."""
    others = [set(_ignored(chat_request, name)) for name in chat_request.fallbacks or ()]
    own = ignored_paths(chat_request, chat_request.provider or "")
    return tuple(path for path in own if all(path in ignored for ignored in others))


def add_ignored(headers: dict[str, str], paths: tuple[str, ...]) -> None:
    """Add paths to the header that names ignored fields. Those that do not fit, or are not ASCII, are left out."""
    named = [path for path in headers.get(IGNORED, "").split(", ") if path]
    length = sum(len(path) + 2 for path in named)
    for path in paths:
        if path in named or not (path.isascii() and path.isprintable()):
            continue
        if length + len(path) + 2 <= _LONGEST_HEADER:
            length += len(path) + 2
            named.append(path)
    if named:
        headers[IGNORED] = ", ".join(named)


def _ignored(chat_request: ChatRequest, target: str) -> tuple[str, ...]:
    return ignored_paths(chat_request, _provider_of(target))


def _provider_of(target: str) -> str:
    return target.partition("/")[0]
