"""Retry deduplication: the stream that a request created a moment ago, for two minutes.

SDKs repeat a request if its connection broke before an answer began. They send a retry count, but no key that would
distinguish the retry from a new request with the same body. ``hr:recent:<account>:<digest of the body>`` holds the
stream's id. Every function here raises :class:`BrokerUnavailable`.
"""

from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import retry_key

_KEPT_MS: Final = 120_000


async def remember_request(client: Client, account: str, body_hash: str, stream_id: str) -> None:
    """Store the stream that a request created."""
    await run_commands(client, [("SET", retry_key(account, body_hash), stream_id, "PX", _KEPT_MS)])


async def forget_request(client: Client, account: str, body_hash: str) -> None:
    """Forget an earlier stream of the same body: this is a first try, so its retries must not find that stream."""
    await run_commands(client, [("DEL", retry_key(account, body_hash))])


async def find_request(client: Client, account: str, body_hash: str) -> str | None:
    """Return the stream that the same request created last, if any."""
    (found,) = await run_commands(client, [("GET", retry_key(account, body_hash))])
    return None if found is None else found.decode()
