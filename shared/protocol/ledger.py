"""Entries of the ledger: what each call of a provider used and cost."""

from typing import Literal

import msgspec

Outcome = Literal["completed", "failed", "cancelled", "broken_off"]

#: Nanos in one unit of a currency. The price of a token is a fraction of a millionth of it.
NANOS: int = 1_000_000_000


class LedgerEntry(msgspec.Struct, frozen=True, array_like=True):
    """One call of a provider. ``at``: its end, ms since 1970. ``broken_off``: it had output, and another call went on
    with the answer, or the answer failed. ``cost_nanos``: billionths of a unit of ``currency``, by the price that was
    configured at that time; None if there was none, and ``currency`` is empty then. The kinds of tokens are those of
    :class:`shared.protocol.events.Usage`; 0: none, or not counted. ``key_id``: the API key of the caller; empty
    without one."""

    at: int
    provider: str
    model: str
    outcome: Outcome
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost_nanos: int | None = None
    currency: str = ""
    key_id: str = ""


def encode_ledger(entries: list[LedgerEntry]) -> bytes:
    """Return the field ``ledger`` of a stream's state."""
    return msgspec.json.encode(entries)


def decode_ledger(stored: str | bytes | None) -> list[LedgerEntry]:
    """Return the entries; none for a stream that no provider was called for."""
    return msgspec.json.decode(stored, type=list[LedgerEntry]) if stored else []
