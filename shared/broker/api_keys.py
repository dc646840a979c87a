"""API keys in Redis: ``hr:apikey:<id>``, a JSON object with the hash of the secret and never the secret.

A key is ``hr-<id>-<secret>``. The secret has 256 random bits, so a plain SHA-256 of it reveals nothing. Every
function that takes a client raises :class:`BrokerUnavailable`.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands, run_on_each
from shared.broker.cluster.address import Node
from shared.broker.keys import api_key_key, revoked_key
from shared.broker.pipeline_connection import Command
from shared.budgets import NO_BUDGETS, Budgets, parse_budget

PREFIX: Final = "hr-"
#: How long a revocation is kept. No ticket lives longer.
REVOCATION_KEPT_S: Final = 90 * 24 * 3600
_SECRET_BYTES: Final = 32
#: The whole form of a key: anything else is refused without a look into Redis.
_ID: Final = re.compile("[0-9a-f]{12}")
_KEY: Final = re.compile(f"{PREFIX}({_ID.pattern})-([A-Za-z0-9_-]{{43}})")


class ApiKey(msgspec.Struct, frozen=True):
    """One API key. ``name`` is its owner's; keys of one name share their streams. ``expires_at`` is in Unix seconds;
    None means never. ``limits``: those that differ from the server-wide ones, by the names of
    :class:`shared.rate_limits.Limits`. ``models``: patterns of the allowed ones; None means all. ``denied``: paths of
    denied fields. ``webhook_url``: receiver of the endings of its streams. ``budget_day``, ``budget_month``: as
    :func:`shared.budgets.parse_budget` reads them. ``priority``: ``batch`` if all its streams are; empty: requests
    choose."""

    id: str
    name: str
    secret_hash: str
    scopes: list[str]
    created_at: float
    expires_at: float | None = None
    limits: dict[str, int] = {}
    models: list[str] | None = None
    denied: list[str] = []
    webhook_url: str | None = None
    budget_day: str = ""
    budget_month: str = ""
    priority: str = ""

    @property
    def budgets(self) -> Budgets:
        return Budgets(parse_budget(self.budget_day), parse_budget(self.budget_month))

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()

    def matches(self, secret: str) -> bool:
        return hmac.compare_digest(self.secret_hash, _hash_of(secret))


_decoder: Final = msgspec.json.Decoder(ApiKey)


async def create_api_key(
    client: Client,
    name: str,
    scopes: Sequence[str],
    *,
    key_id: str | None = None,
    life_s: float | None = None,
    limits: Mapping[str, int] | None = None,
    models: list[str] | None = None,
    denied: Sequence[str] = (),
    webhook_url: str | None = None,
    budgets: Budgets = NO_BUDGETS,
    priority: str = "",
) -> tuple[ApiKey, str]:
    """Create a key. Return it and the text that its owner sends, which cannot be read again. ``key_id``: as
    :func:`new_key_id` made it, for a caller that has to know it before."""
    secret, now = secrets.token_urlsafe(_SECRET_BYTES), time.time()
    expires_at = None if life_s is None else now + life_s
    key = ApiKey(
        key_id or new_key_id(),
        name,
        _hash_of(secret),
        sorted(scopes),
        now,
        expires_at,
        dict(limits or {}),
        models,
        list(denied),
        webhook_url,
        budgets.day.text,
        budgets.month.text,
        priority,
    )
    command: Command = ("SET", api_key_key(key.id), msgspec.json.encode(key))
    await run_commands(client, [command if life_s is None else (*command, "PX", max(1, round(life_s * 1000)))])
    return key, f"{PREFIX}{key.id}-{secret}"


def new_key_id() -> str:
    return secrets.token_hex(6)


async def find_api_key(client: Client, key_id: str) -> ApiKey | None:
    (stored,) = await run_commands(client, [("GET", api_key_key(key_id))])
    return None if stored is None else _decoder.decode(stored)


async def list_api_keys(client: Client) -> list[ApiKey]:
    """Return all keys, the oldest first."""
    names = dict[bytes, None]()  # SCAN may return a name twice
    for node in await run_on_each(client, ("PING",)):
        names |= dict.fromkeys(await _names_at(client, node))
    stored = await run_commands(client, [("GET", name) for name in names]) if names else []
    return sorted((_decoder.decode(key) for key in stored if key is not None), key=lambda key: key.created_at)


async def revoke_api_key(client: Client, key_id: str) -> bool:
    """Revoke a key; gateways follow within seconds. Return False if there was none."""
    # One after the other, since they may be on two nodes: a call that failed half way can be repeated.
    await run_commands(client, [("SET", revoked_key(key_id), "1", "EX", REVOCATION_KEPT_S)])
    (deleted,) = await run_commands(client, [("DEL", api_key_key(key_id))])
    return bool(deleted)


async def was_revoked(client: Client, key_id: str) -> bool:
    """Return True if the key was revoked. A missing key may also mean that Redis lost its data."""
    (noted,) = await run_commands(client, [("EXISTS", revoked_key(key_id))])
    return bool(noted)


def split_api_key(presented: str) -> tuple[str, str] | None:
    """Split a presented key into (id, secret); None if it has not the form of a key."""
    match = _KEY.fullmatch(presented)
    return (match[1], match[2]) if match is not None else None


def is_key_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


async def _names_at(client: Client, node: Node) -> list[bytes]:
    connection = client.servers.connection(node)
    cursor, names = b"0", list[bytes]()
    try:
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", api_key_key("*"), "COUNT", 1000)
            ((cursor, found),) = await run_commands(connection, [scan])
            names += found
            if cursor == b"0":
                return names
    finally:
        await connection.aclose()


def _hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
