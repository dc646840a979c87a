"""Every route of a gateway, from the application itself, so that tests cover a new route without any change."""

import re
from collections.abc import Iterator

from fastapi.routing import iter_route_contexts

from gateway.app import create_app
from shared.configuration.configuration import load_configuration
from shared.settings import Settings
from tests.system import SECRET


def every_template() -> list[tuple[str, str]]:
    """Return method and path template of each route."""
    app = create_app(load_configuration(Settings(secret=SECRET)))
    routes = iter_route_contexts(app.routes)
    return [(method, route.path or "") for route in routes for method in route.methods or ()]


def every_route() -> Iterator[tuple[str, str]]:
    """Yield method and path of each route, of a file of the page, and of calls that no route handles."""
    found = every_template()
    expected = {"/chat", "/v1/messages", "/api/chat", "/", "/ops/overview", "/openapi.json", "/healthz", "/metrics"}
    assert expected < {path for _, path in found}
    for method, template in found:
        if method != "HEAD":  # its response has no body to look at; the same route is there as GET
            yield method, re.sub(r"\{[^}]*\}", "0" * 34, template)
    yield from (("GET", "/page/app.js"), ("GET", "/nowhere"), ("OPTIONS", "/chat"), ("PUT", "/healthz"))
