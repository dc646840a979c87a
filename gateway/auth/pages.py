"""Checks which page made a browser send a request.

A browser sends its cookies, and reaches its own machine and network, for the pages of any site. It names the page in
``Origin`` and ``Sec-Fetch-Site``, which no page can change.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.auth.same_machine import is_loopback
from gateway.edge.acked import TRANSPORT
from gateway.edge.cors import ANY
from shared.settings import Settings

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(\S+)")
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/?#@\[\]]+)(?::([0-9]{0,5}))?")
#: Values of Sec-Fetch-Site of requests that no other site's page made. ``none``: the user typed the address.
_OWN_SITES: Final = frozenset({"same-origin", "none"})


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: str


class PageCheck:
    """Finds requests of pages that are neither our own nor listed in ``HEADRACE_CORS_ORIGINS``.

    ``allows_any``: True if a listed ``*`` counts. ``is_local``: True if the gateway serves this machine alone.
    """

    def __init__(self, settings: Settings, *, allows_any: bool, is_local: bool = False) -> None:
        self._allows_all = allows_any and ANY in settings.cors_origins
        self._listed = frozenset(settings.cors_origins) - {ANY}
        self._is_local = is_local
        self._proxies = [ip_network(text) for text in settings.trusted_proxies]

    def is_foreign(self, scope: Scope) -> bool:
        if self._allows_all:
            return False
        headers = Headers(scope=scope)
        origins = headers.getlist("origin")
        if origins and self._listed.issuperset(origins):
            return False
        sites = _values(headers, "sec-fetch-site")
        if any(origin not in self._listed and not self._is_own(origin, sites, scope, headers) for origin in origins):
            return True
        return not (sites <= _OWN_SITES or _is_navigation(scope.get("method", "GET"), headers))

    def _is_own(self, text: str, sites: set[str], scope: Scope, headers: Headers) -> bool:
        if (origin := _parse_origin(text.strip().lower())) is None:
            return False
        if sites == {"same-origin"} and (not self._is_local or is_loopback(origin.host)):
            # A proxy replaced Host. In front of a local gateway, only a development server of this machine may.
            return True
        if self._is_local and origin.scheme != "http":
            return False
        # TLS may end at a proxy, so that the scheme is unknown here.
        return origin in (_origin(origin.scheme, host) for host in self._own_hosts(scope, headers))

    def _own_hosts(self, scope: Scope, headers: Headers) -> Iterator[str]:
        """Yield the names by which the client may have reached us: Host, and those that a trusted proxy reports."""
        yield headers.get("host", "").lower()
        if self._proxies and self._is_trusted(scope.get(TRANSPORT)):
            for value in headers.getlist("x-forwarded-host"):
                yield from (host.strip().lower() for host in value.split(","))

    def _is_trusted(self, transport: Any) -> bool:
        """Look at the connection itself: the server has replaced the client in the scope by the forwarded one."""
        peer = transport.get_extra_info("peername") if transport is not None else None
        return isinstance(peer, tuple) and any(ip_address(peer[0]) in network for network in self._proxies)


def _is_navigation(method: str, headers: Headers) -> bool:
    """Return True for a click or a typed address that opens a page in a tab, which its opener cannot read. A frame is
    no such page."""
    modes, targets = (_values(headers, f"sec-fetch-{name}") for name in ("mode", "dest"))
    return method == "GET" and modes == {"navigate"} and targets <= {"document"}


def _values(headers: Headers, name: str) -> set[str]:
    return {value.strip().lower() for value in headers.getlist(name)}


def _parse_origin(text: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(text)
    return None if found is None else _origin(found[1], found[2])


def _origin(scheme: str, authority: str) -> _Origin | None:
    """Return the origin without a default port; None if the authority is invalid."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    host, port = found[1], found[2] or _DEFAULT_PORTS.get(scheme, "")
    if host.startswith("["):
        try:
            host = f"[{ip_address(host[1:-1])}]"
        except ValueError:
            return None
    return _Origin(scheme, host, port.lstrip("0"))
