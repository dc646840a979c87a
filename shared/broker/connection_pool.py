"""Makes a pool of connections from a Redis URL.

``redis://``, ``rediss://`` (TLS) and ``unix://`` take users, passwords and options as redis-py does. In
``sentinel://[user:password@]host[:port],host[:port],…/master-name[/db]`` (``sentinels://`` with TLS) the sentinels
name the master, again after each failover. URLs of clusters (``cluster/address.py``) have no pool, but each of their
nodes has one.
"""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.broker.cluster.address import SCHEMES as CLUSTER_SCHEMES
from shared.broker.cluster.address import ClusterAddress, is_cluster_url

SCHEMES: Final = ("redis", "rediss", "unix", "sentinel", "sentinels")
_INVALID: Final = "is invalid: check the port and the options; in a password, write / as %2F, # as %23, ? as %3F"
_SENTINEL_PORT: Final = 26379
_SENTINEL_TIMEOUT_S: Final = 1.0


def check_url(url: str) -> str:
    """Return the URL. Raises ValueError if it cannot be used."""
    if is_cluster_url(url):
        address = ClusterAddress(url)
        check_url(address.url_of(address.seeds[0]))
        return url
    try:
        parts = urlsplit(url)
    except ValueError:  # its message contains the password
        raise ValueError(_INVALID) from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{s}://' for s in (*SCHEMES, *CLUSTER_SCHEMES))}")
    if parts.scheme.startswith("sentinel") and not parts.path.strip("/"):
        raise ValueError("must name the master: sentinel://host:26379,host:26379/master-name")
    try:
        pool_of(url, timeout_s=1, connections=1).make_connection()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError):  # redis-py's message may contain a piece of the password
        raise ValueError(_INVALID) from None
    return url


def pool_of(url: str, *, timeout_s: float | None, connections: int) -> ConnectionPool:
    """Make a pool whose calls fail after ``timeout_s``, if any. A caller waits as long for one of ``connections``;
    behind sentinels there is no such limit."""
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": min(timeout_s or 2, 2)}
    if urlsplit(url).scheme.startswith("sentinel"):
        pool = _sentinel_pool(url, options)
    else:
        pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=timeout_s, **options)
    made = pool.connection_class
    pool.connection_class = type(f"Checked{made.__name__}", (_CheckedWrites, made), {})
    return pool


class _CheckedWrites:
    """Turns uvloop's RuntimeError for a write to a connection that the peer has just reset into a connection error,
    which redis-py expects."""

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*arguments, **options)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError(str(error)) from error


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    name, db = _master_of(url)
    sentinels = [_address(host) for host in hosts.split(",")]
    if parts.scheme == "sentinels":
        options |= {"ssl": True, **dict(parse_qsl(parts.query))}
    return SentinelConnectionPool(
        name,
        # A sentinel that hangs is skipped.
        Sentinel(sentinels, sentinel_kwargs=options | {"socket_timeout": _SENTINEL_TIMEOUT_S}),  # type: ignore[no-untyped-call]
        db=db,
        username=unquote(user) or None,
        password=unquote(password) or None,
        **options,
    )


def _master_of(url: str) -> tuple[str, int]:
    name, _, db = urlsplit(url).path.strip("/").partition("/")
    return unquote(name), int(db or 0)


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return (name, int(port)) if name else (host, _SENTINEL_PORT)
