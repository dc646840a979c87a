"""Recognises a Redis URL that has TLS where the port has none, or the reverse: both look like a broken connection."""

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

from redis.exceptions import ConnectionError as RedisConnectionError

from shared.broker.client import Client
from shared.broker.trouble import Reason, classify
from shared.errors import BrokerUnavailable

_WITHIN_S: Final = 1.0
#: Reasons that a wrong scheme causes, by scheme.
_SUSPICIOUS: Final = {
    "redis": frozenset({Reason.UNREACHABLE, Reason.NOT_REDIS}),
    "rediss": frozenset({Reason.UNREACHABLE, Reason.TIMEOUT}),
}


async def diagnose(client: Client, error: BrokerUnavailable) -> BrokerUnavailable:
    """Return the error, or a clearer one if the port speaks TLS and the URL does not, or the reverse."""
    parts = urlsplit(client.url)
    if error.reason not in _SUSPICIOUS.get(parts.scheme, ()):
        return error
    host, port = parts.hostname or "localhost", parts.port or 6379
    if parts.scheme == "redis":
        return (
            classify(RedisConnectionError("the port speaks TLS"), client.target)
            if await _has_tls(host, port)
            else error
        )
    is_plain = await _is_plain(host, port)
    return classify(RedisConnectionError("the port does not speak TLS"), client.target) if is_plain else error


async def _has_tls(host: str, port: int) -> bool:
    """Attempt a handshake that accepts any certificate; nothing is sent over the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        async with asyncio.timeout(_WITHIN_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, ssl.SSLError):
        return False
    writer.close()
    return True


async def _is_plain(host: str, port: int) -> bool:
    """Return whether Redis answers without TLS. No credentials are sent."""
    try:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"PING\r\n")
            first = await reader.read(1)
    except OSError:
        return False
    writer.close()
    return first in {b"+", b"-"}
