"""Revocations of all links of an account: ``hr:revoked_links``, a sorted set, account → number of its last one.

Revocations are numbered upwards. A ticket carries the number of the last revocation, of any account, that its gateway
had read. It is refused if its account has a revocation with a higher number. So no clock of a gateway matters, and
the clock of Redis may be wrong. Every function raises :class:`BrokerUnavailable`.
"""

from shared.broker.api_keys import REVOCATION_KEPT_S
from shared.broker.client import Client, run_commands, run_script
from shared.broker.declarations import REVOKE_LINKS
from shared.broker.keys import REVOKED_LINKS


async def revoke_links(client: Client, account: str) -> None:
    """End all links that the account has made so far."""
    keys = REVOKE_LINKS.named_keys(revoked_links=REVOKED_LINKS)
    await run_script(client, REVOKE_LINKS.call(keys, int, account=account, kept_ms=REVOCATION_KEPT_S * 1000))


async def read_last_revocation(client: Client) -> int:
    """Return the number of the last revocation; 0 if there is none."""
    (last,) = await run_commands(client, [("ZRANGE", REVOKED_LINKS, 0, 0, "REV", "WITHSCORES")])
    return int(last[1]) if last else 0


async def read_link_revocations(client: Client) -> dict[str, int]:
    """Return the numbers of all revocations, by account."""
    (flat,) = await run_commands(client, [("ZRANGE", REVOKED_LINKS, 0, -1, "WITHSCORES")])
    return {account.decode(): int(number) for account, number in zip(flat[::2], flat[1::2], strict=True)}
