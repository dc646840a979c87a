"""Policy for fields that a provider lacks: drop them, or use only targets that support them."""

from collections.abc import Callable, Mapping
from typing import Final

from fastapi import Request

from shared.denied_fields import denied_field
from shared.errors import FieldNotAllowed, InvalidRequest, UnsupportedField
from shared.provider_fields import forced_problem, ignored_paths
from shared.schemas import ChatRequest
from shared.schemas.chat import forced_for
from shared.settings import Settings, UnsupportedFields

HEADER: Final = "X-Headrace-Unsupported-Fields"
IGNORED: Final = "X-Headrace-Ignored"
#: Proxies limit all headers of a response to 4 KiB.
_LONGEST_HEADER: Final = 1024
#: Returns the family of a target's wire format.
Families = Callable[[str], str]


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


def supporting_targets(chat_request: ChatRequest, families: Families) -> ChatRequest:
    """Return the request without the targets that cannot have its forced tool, or that its policy excludes.
    ``chat_request``: with resolved targets. Raises :class:`UnsupportedField` if none is left."""
    named = targets_of(chat_request)
    able = [name for name in named if forced_for(chat_request, families(name)) is None]
    refuses = chat_request.unsupported_fields == "refuse"
    targets = [name for name in able if not (refuses and _ignored(chat_request, name, families))]
    if not targets:
        raise _no_target(chat_request, able, families)
    return chat_request if targets == named else with_targets(chat_request, targets)


def permitted_targets(chat_request: ChatRequest, denied_at: Mapping[str, tuple[str, ...]]) -> ChatRequest:
    """Return the request without the targets that deny one of its fields. ``denied_at``: denied fields by provider.
    Raises :class:`FieldNotAllowed` if none is left."""
    targets, refused = list[str](), list[str]()
    for target in targets_of(chat_request):
        path = denied_field(chat_request, denied_at.get(_provider_of(target), ()))
        if path is None:
            targets.append(target)
        else:
            refused.append(path)
    if not targets:
        path = refused[0]
        raise FieldNotAllowed(f"{path}: not allowed here; remove it", detail=f"{path}: denied by every target")
    return with_targets(chat_request, targets) if refused else chat_request


def targets_of(chat_request: ChatRequest) -> list[str]:
    """Return all targets of a resolved request, in the order in which they are tried."""
    return [f"{chat_request.provider}/{chat_request.model}", *(chat_request.fallbacks or ())]


def with_targets(chat_request: ChatRequest, targets: list[str]) -> ChatRequest:
    provider, _, model = targets[0].partition("/")
    changes = {"provider": provider, "model": model, "fallbacks": targets[1:] or None}
    return chat_request.model_copy(update=changes)


def _no_target(chat_request: ChatRequest, able: list[str], families: Families) -> UnsupportedField:
    """Return the error of a request without a target. ``able``: targets that can have its forced tool."""
    if not able:
        own = targets_of(chat_request)[0]
        path = forced_for(chat_request, families(own)) or "tool_choice"
        return UnsupportedField(forced_problem(path, _provider_of(own)))
    path = _ignored(chat_request, able[0], families)[0]
    return UnsupportedField(
        f"{path}: not supported by provider {_provider_of(able[0])}; remove it, choose another model, or set"
        " unsupported_fields to drop"
    )


def known_ignored(chat_request: ChatRequest, families: Families) -> tuple[str, ...]:
    """Return the fields without effect that are known before a provider answers: those that every target lacks."""
    own, *others = [_ignored(chat_request, name, families) for name in targets_of(chat_request)]
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


def _ignored(chat_request: ChatRequest, target: str, families: Families) -> tuple[str, ...]:
    return ignored_paths(chat_request, families(target))


def _provider_of(target: str) -> str:
    return target.partition("/")[0]
