"""CORS: access for pages of other origins, as far as the operator names them."""

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

ANY: Final = "*"
METHODS: Final = ("GET", "POST", "DELETE")
#: Without X-Headrace-User, since no page should have a back end's key. The last ones are sent by OpenAI's and
#: Anthropic's own clients. A preflight cannot list prefixes.
REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Last-Event-ID",
    "Idempotency-Key",
    "X-Api-Key",
    "X-Headrace-Priority",
    "User-Agent",  # some browsers include it in the preflight if a page sets it
    *(f"anthropic-{name}" for name in ("version", "beta", "dangerous-direct-browser-access")),
    *(
        f"x-stainless-{name}"
        for name in (
            "lang",
            "package-version",
            "os",
            "arch",
            "runtime",
            "runtime-version",
            "retry-count",
            "timeout",
            "read-timeout",
            "helper",
            "helper-method",
        )
    ),
)
_EXPOSED: Final = (
    "X-Stream-Id",
    "Location",
    "Retry-After",
    "X-Should-Retry",
    "X-Request-Id",
    "X-Headrace-Ignored",
    "X-Headrace-History",
    "X-Headrace-Estimated",
    *(f"RateLimit-{name}" for name in ("Limit", "Remaining", "Reset", "Policy")),
    *(f"X-RateLimit-{name}-{of}" for name in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")),
)


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Wrap ``app``; without origins, return it unchanged. Credentials are allowed only for origins that are named."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=tuple(origins),
        allow_credentials=ANY not in origins,
        allow_methods=METHODS,
        allow_headers=REQUEST_HEADERS,
        expose_headers=_EXPOSED,
    )
