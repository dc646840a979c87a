"""Routes: a route is the set of streams whose keys one command may name together.

It is the whole server on a single Redis, and a bucket, and so a hash slot, on a Redis Cluster. A route also has a
channel of its own for each gateway.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from shared.broker.cluster.address import is_cluster_url
from shared.broker.cluster.slots import BUCKET_TAGS
from shared.protocol.ids import bucket_of


@dataclass(frozen=True, slots=True)
class Routes:
    """All routes, and the one ``of`` a stream id. A route is a text that ends the names of its channels."""

    of: Callable[[str], str]
    all: Sequence[str]


def _whole_server(_stream_id: str) -> str:
    return ""


def _bucket(stream_id: str) -> str:
    return _CHANNELS[int(bucket_of(stream_id), 16)]


_CHANNELS: Final = tuple(f":{{{tag}}}" for tag in BUCKET_TAGS)
ONE_SERVER: Final = Routes(_whole_server, ("",))
BY_BUCKET: Final = Routes(_bucket, _CHANNELS)


def routes_at(redis_url: str) -> Routes:
    """Return the routes of the servers that a URL names."""
    return BY_BUCKET if is_cluster_url(redis_url) else ONE_SERVER
