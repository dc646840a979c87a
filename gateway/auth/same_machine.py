"""Signs that a request does not come directly from this machine.

A gateway without ``HEADRACE_AUTH`` refuses a request with any of them. Two kinds of callers show none: other users of
this machine, and a proxy that adds no header and speaks HTTP/1.1 upstream. Only credentials keep those out.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from starlette.types import Scope

#: Header fields that reverse proxies, tunnels and content delivery networks add, by name.
_PROXY_HEADERS: Final = frozenset(
    {
        *("forwarded", "forwarded-for", "via", "cdn-loop", "client-ip", "true-client-ip", "x-client-ip"),
        *("x-real-ip", "x-real-port", "x-remote-addr", "x-remote-ip", "x-cluster-client-ip", "x-originating-ip"),
        *("x-original-forwarded-for", "x-original-host", "x-original-proto", "x-original-url", "x-rewrite-url"),
        *("x-host", "x-scheme", "x-url-scheme", "front-end-https", "x-proxyuser-ip", "proxy-client-ip"),
        *("wl-proxy-client-ip", "fastly-client-ip", "fly-client-ip", "x-varnish", "surrogate-capability"),
    }
)
#: The same, by the beginning of the name.
_PROXY_PREFIXES: Final = ("x-forwarded", "cf-", "x-envoy-", "x-azure-", "x-arr-", "x-appengine-", "tailscale-")
#: Host field without the characters in which parsers differ.
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]*)?", re.ASCII | re.IGNORECASE)


def remote_sign(scope: Scope) -> str | None:
    """Return the first sign that the request does not come directly from this machine; None if it has none.

    The texts are few: a client cannot invent further ones.
    """
    if scope["http_version"] == "1.0":
        return "HTTP/1.0, which proxies speak by default"
    host = ""
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name == "host":
            host = value.decode("latin-1")
        elif (family := _proxy_header(name)) is not None:
            return f"the header {family}, which proxies add"
    return None if _is_loopback_host(host) else "a Host that is not a loopback name"


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxy_header(name: str) -> str | None:
    """Return the name in lower case, or the beginning of it with ``*``, if proxies add such a header."""
    if name in _PROXY_HEADERS:
        return name
    if not name.startswith(_PROXY_PREFIXES):
        return None
    return next(f"{prefix}*" for prefix in _PROXY_PREFIXES if name.startswith(prefix))


@lru_cache(maxsize=64)
def _is_loopback_host(field: str) -> bool:
    """A page of another site cannot make its browser send such a Host, even if the page's own name resolves to a
    loopback address (DNS rebinding)."""
    found = _HOST.fullmatch(field)
    return found is not None and is_loopback(found[1].lower())
