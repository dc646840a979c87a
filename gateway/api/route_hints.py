"""Messages for a request without a route: the nearest path, and the methods that exist."""

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

_CHAT_ROUTES: Final = "POST /v1/chat/completions, /v1/responses, /v1/messages or /chat"
#: Of OpenAI's, Anthropic's and Ollama's APIs, by the beginning of the path, and how each is called in the message.
_NOT_SERVED: Final = {
    "/v1/embeddings": "embeddings",
    "/v1/completions": "text completions",
    "/v1/complete": "text completions",
    "/v1/messages/batches": "batches",
    "/v1/batches": "batches",
    "/v1/audio": "audio",
    "/v1/images": "images",
    "/v1/videos": "videos",
    "/v1/moderations": "moderations",
    "/v1/files": "files",
    "/v1/uploads": "uploads",
    "/v1/vector_stores": "vector stores",
    "/v1/fine_tuning": "fine-tuning",
    "/v1/assistants": "assistants",
    "/v1/threads": "threads",
    "/v1/conversations": "conversations",
    "/v1/realtime": "realtime sessions",
    "/v1/rerank": "reranking",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
#: Paths that other servers have, and what this one has for them.
_MEANT: Final = {
    "/api/generate": "/v1/chat/completions",
    "/api/tags": "/v1/models",
    "/health": "/healthz",
    "/ready": "/readyz",
    "/redoc": "/docs",
    "/swagger": "/docs",
    "/openapi.yaml": "/openapi.json",
    "/swagger.json": "/openapi.json",
}
#: A longer path is not compared with others.
_LONGEST: Final = 200
_ELSE: Final = "nothing is here; /docs and /openapi.json list what is"


def not_found(app: FastAPI, path: str) -> str:
    """Return the message for a path that no route has. It repeats no part of the path that may be private."""
    if len(path) > _LONGEST:
        return f"path: {_ELSE}"
    below = next((each for each in _NOT_SERVED if path == each or path.startswith(f"{each}/")), None)
    if below is not None:
        return f"path: no {_NOT_SERVED[below]} here, only chat is served; use {_CHAT_ROUTES}"
    templates = _templates(app)
    meant = _without_slash(path, templates) or _near(path.rstrip("/"), templates)
    return f"path: nothing is here; did you mean {meant}?" if meant else f"path: {_ELSE}"


def wrong_method(app: FastAPI, method: str, path: str, template: str | None, allowed: Collection[str]) -> str:
    """Return the message for a method that the route ``template`` does not have."""
    if template is not None and "{" in template and (meant := _longer(path, _templates(app))) is not None:
        return f"path: nothing to {method} is here; did you mean {meant}?"
    place = f"at {template}" if template is not None else "here"
    possible = sorted(set(allowed) - {"HEAD"}) if "GET" in allowed else sorted(allowed)
    return f"method: {method} is not possible {place}; use {_either(possible)}"


def _templates(app: FastAPI) -> Collection[str]:
    found: dict[str, None] | None = getattr(app.state, "route_templates", None)
    if found is None:
        found = dict.fromkeys(route.path for route in iter_route_contexts(app.routes) if route.path)
        app.state.route_templates = found
    return found


def _without_slash(path: str, templates: Iterable[str]) -> str | None:
    """Return the template that fits the path without the slashes at its end."""
    if not path.endswith("/"):
        return None
    shorter = path.rstrip("/")
    return next((each for each in templates if _pattern(each).fullmatch(shorter)), None)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template)))


def _near(path: str, templates: Collection[str]) -> str | None:
    fixed = [each for each in templates if "{" not in each and each != "/"]
    if (meant := _MEANT.get(path) or _longer(path, fixed)) is not None:
        return meant
    # A base URL that has a prefix twice, or one of a proxy.
    for each in sorted(fixed, key=len, reverse=True):
        if path.endswith(each) and each.count("/") > 1:
            return each
    found = difflib.get_close_matches(path, fixed, n=1, cutoff=0.75)
    return found[0] if found else None


def _longer(path: str, templates: Iterable[str]) -> str | None:
    """Return the path under ``/v1`` for one that lacks this prefix."""
    longer = f"/v1{path}"
    return longer if longer in templates else None


def _either(names: list[str]) -> str:
    *others, last = names or ["another one"]
    return f"{', '.join(others)} or {last}" if others else last
