"""Fields, tools and betas of requests that an operator denies by name.

- ``mcp_servers`` and ``output_config.effort``: a field of the body, also within ``provider_options``. Members
  of lists have the path of the list.
- ``tools.web_search``: a tool by its type, without the date of its version, or by its name.
- ``betas.computer-use``: a beta of the header ``anthropic-beta`` or of the body, with or without its date.
- ``headers.anthropic-workspace-id``: a header that the provider gets too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from shared.counterparts import counterpart_bodies
from shared.schemas.chat import ChatRequest, StoredRequest

_TOOL_VERSION: Final = re.compile(r"(_preview)?(_\d{8}|_\d{4}_\d{2}_\d{2})?$")
_BETA_VERSION: Final = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_BETA_HEADER: Final = "anthropic-beta"
#: Members of a body that list betas, at Anthropic and its resellers.
_BETA_MEMBERS: Final = ("betas", "anthropic_beta")
#: Objects within a tool that may have its name.
_TOOL_MEMBERS: Final = ("function", "custom")


def denied_field(request: ChatRequest, denied: Iterable[str]) -> str | None:
    """Return the first of the ``denied`` paths that a request has, or None."""
    paths = tuple(denied)
    if not paths:
        return None
    bodies = list(_bodies(request))
    headers = request.original.headers if isinstance(request, StoredRequest) and request.original else {}
    for path in paths:
        first, _, rest = path.partition(".")
        if any(_has(body, path.split(".")) for body in bodies):
            return path
        if first == "tools" and rest and any(_has_tool(body.get("tools"), rest) for body in bodies):
            return path
        if first == "headers" and rest.lower() in headers:
            return path
        if first == "betas" and any(_matches_beta(name, rest) for name in _betas(bodies, headers)):
            return path
    return None


def _bodies(request: ChatRequest) -> Iterator[Mapping[str, Any]]:
    """Yield the client's body, the canonical one, those within it for a provider, and fields that a provider gets
    under the name of another format."""
    if isinstance(request, StoredRequest) and request.original is not None:
        yield request.original.body
        yield from counterpart_bodies(request)
    canonical = request.model_dump(mode="json", exclude={"original"}, exclude_unset=True, exclude_none=True)
    yield canonical
    yield from canonical.get("provider_options", {}).values()


def _has(value: Any, path: list[str]) -> bool:
    """Return True if a value has a member of this path that is not null."""
    if not path:
        return value is not None
    if isinstance(value, list):
        return any(_has(item, path) for item in value)
    return isinstance(value, Mapping) and path[0] in value and _has(value[path[0]], path[1:])


def _has_tool(tools: Any, name: str) -> bool:
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping):
            if _is_tool(tool, name) or _has_tool(tool.get("tools"), name):
                return True
            if any(isinstance(inner := tool.get(n), Mapping) and inner.get("name") == name for n in _TOOL_MEMBERS):
                return True
    return False


def _is_tool(tool: Mapping[str, Any], name: str) -> bool:
    kind = tool.get("type")
    is_kind = isinstance(kind, str) and name in {kind, _TOOL_VERSION.sub("", kind)}
    return is_kind or tool.get("name") == name


def _betas(bodies: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> Iterator[str]:
    texts: list[Any] = [headers.get(_BETA_HEADER)]
    for value in (body.get(member) for body in bodies for member in _BETA_MEMBERS):
        texts += value if isinstance(value, list) else [value]
    for text in texts:  # each may list several, in the body too: a server in between may make a header of them
        yield from (name.strip() for name in str(text or "").split(",") if name.strip())


def _matches_beta(beta: str, name: str) -> bool:
    return not name or name in {beta, _BETA_VERSION.sub("", beta)}
