"""Revocations of all links of an account: ``hr:revoked_links``, a sorted set, account → time in milliseconds.

A link that was made at that time or before is refused. Every function raises :class:`BrokerUnavailable`.
"""

from shared.broker.api_keys import REVOCATION_KEPT_S
from shared.broker.client import Client, run_commands
from shared.broker.keys import REVOKED_LINKS


async def revoke_links(client: Client, account: str) -> None:
    """End all links that the account has made so far, by the clock of Redis."""
    ((seconds, microseconds),) = await run_commands(client, [("TIME",)])
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    await run_commands(
        client,
        [
            ("ZADD", REVOKED_LINKS, "GT", now_ms, account),
            ("ZREMRANGEBYSCORE", REVOKED_LINKS, "-inf", now_ms - REVOCATION_KEPT_S * 1000),
            ("EXPIRE", REVOKED_LINKS, REVOCATION_KEPT_S),
        ],
    )


async def read_link_revocations(client: Client, since_ms: int) -> dict[str, int]:
    """Return the revocations at ``since_ms`` and later, by account."""
    (flat,) = await run_commands(client, [("ZRANGE", REVOKED_LINKS, since_ms, "+inf", "BYSCORE", "WITHSCORES")])
    return {account.decode(): int(at_ms) for account, at_ms in zip(flat[::2], flat[1::2], strict=True)}
