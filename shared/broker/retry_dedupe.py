"""Which stream a request made a moment ago: ``hr:recent:<digest of principal and request>``, for two minutes.

SDKs send a request again whose connection broke before an answer began. They say so (a retry count), but with no key
that would tell it from a new one with the same words.
"""

from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import recent_key

_REMEMBERED_MS: Final = 120_000


async def remember_request(client: Client, account: str, body_hash: str, stream_id: str) -> None:
    """Raises :class:`BrokerUnavailable`, as all here do."""
    await run_commands(client, [("SET", recent_key(account, body_hash), stream_id, "PX", _REMEMBERED_MS)])


async def forget_request(client: Client, account: str, body_hash: str) -> None:
    """A first try begins: what the same words made before is another answer, also for its retries."""
    await run_commands(client, [("DEL", recent_key(account, body_hash))])


async def find_request(client: Client, account: str, body_hash: str) -> str | None:
    """The latest."""
    (found,) = await run_commands(client, [("GET", recent_key(account, body_hash))])
    return None if found is None else found.decode()
