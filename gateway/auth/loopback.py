"""Whether it is this machine that is asked: by a name of its own, as neither a proxy hands on nor a page of another
site has its browser send, whatever that page's name resolves to (DNS rebinding).
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


def is_asked_by_its_own_name(request: Request) -> bool:
    return _is_own(request.headers.get("host", ""))


@lru_cache(maxsize=64)
def _is_own(host_and_port: str) -> bool:
    try:
        asked = urlsplit(f"//{host_and_port}").hostname or ""
    except ValueError:  # brackets that hold no address
        return False
    return is_loopback(asked)
