"""Checks whether a request is addressed to this machine, by a loopback name.

A proxy does not forward such a name, and the page of another site cannot make its browser send one, even if the
page's own name resolves to a loopback address (DNS rebinding).
"""

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_addressed_by_loopback_name(request: Request) -> bool:
    return _is_loopback_name(request.headers.get("host", ""))


@lru_cache(maxsize=64)
def _is_loopback_name(host_and_port: str) -> bool:
    try:
        hostname = urlsplit(f"//{host_and_port}").hostname or ""
    except ValueError:  # brackets without an address
        return False
    return is_loopback(hostname)
