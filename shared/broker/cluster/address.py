"""Addresses of a cluster: ``redis+cluster://[user:password@]host[:port],host[:port],…[?options]``, and ``rediss``
with TLS.

The hosts are only where to ask for the nodes; one that answers is enough. Users, passwords and options are the same
for all nodes.
"""

from typing import Final, NamedTuple
from urllib.parse import urlsplit

SCHEMES: Final = ("redis+cluster", "rediss+cluster")
_PORT: Final = 6379


class Node(NamedTuple):
    """Address of one server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClusterAddress:
    """A parsed URL. Raises ValueError, without a part of the URL in its message, if it cannot be used."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:  # its message contains the password
            raise ValueError("is invalid: check the hosts and ports") from None
        if parts.scheme not in SCHEMES:
            raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
        if parts.path.strip("/") not in {"", "0"}:
            raise ValueError("has a database: a cluster has only database 0; remove what follows the hosts")
        self._credentials, at, hosts = parts.netloc.rpartition("@")
        self._credentials += at
        self.seeds = [_node(host) for host in hosts.split(",")]
        self.has_tls = parts.scheme.startswith("rediss")
        self._options = f"?{parts.query}" if parts.query else ""
        #: The URL without its credentials and options.
        self.shown = f"{parts.scheme}://{hosts}"

    def url_of(self, node: Node) -> str:
        """Return the URL of one node, for a connection to it alone."""
        scheme = "rediss" if self.has_tls else "redis"
        return f"{scheme}://{self._credentials}{node}/0{self._options}"


def is_cluster_url(url: str) -> bool:
    return url.partition("://")[0] in SCHEMES


def _node(text: str) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is invalid: check the ports") from None
    if not host:
        raise ValueError("must name a host: redis+cluster://host:6379,host:6379")
    return Node(host, port or _PORT)
