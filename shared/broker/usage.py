"""Daily sums of the ledger at the desk: of all streams, and of each account (docs/adr/0025).

A hash of a day has a field for each API key, currency and target, ``<key id> <currency> <provider/model>`` with ``-``
for one that is missing, and the counts of :class:`UsageSum` in their order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import usage_key
from shared.broker.pipeline_connection import Command
from shared.protocol.ledger import LedgerEntry

_MISSING: Final = "-"


class UsageSum(msgspec.Struct, frozen=True):
    """Sums over some calls. ``failed_calls``: those without an answer. ``estimated_calls``: tokens were estimated.
    ``unpriced_calls``: used tokens, and had no price. ``cost_nanos``: of the others. The kinds of tokens are those of
    :class:`shared.protocol.events.Usage`."""

    calls: int = 0
    failed_calls: int = 0
    estimated_calls: int = 0
    unpriced_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0

    @classmethod
    def of(cls, entry: LedgerEntry) -> "UsageSum":
        return cls(
            entry.calls,
            entry.calls if entry.outcome == "failed" else 0,
            entry.calls if entry.estimated else 0,
            entry.calls if entry.cost_nanos is None else 0,
            entry.input_tokens,
            entry.output_tokens,
            entry.cached_tokens,
            entry.cache_write_tokens,
            entry.reasoning_tokens,
            entry.cost_nanos or 0,
        )

    def plus(self, other: "UsageSum") -> "UsageSum":
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return UsageSum(*(one + another for one, another in pairs))


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums over the calls of one day, API key, target and currency. ``day``: since 1970, in UTC. ``key_id`` and
    ``currency`` may be empty."""

    day: int
    key_id: str
    target: str
    currency: str
    sum: UsageSum

    @property
    def field(self) -> str:
        """Its field in the hash of the day."""
        return f"{self.key_id or _MISSING} {self.currency or _MISSING} {self.target}"

    @property
    def counts(self) -> str:
        return " ".join(map(str, msgspec.structs.astuple(self.sum)))


def rows_of(ledger: Iterable[LedgerEntry]) -> list[UsageRow]:
    """Return the sums over the calls of one stream."""
    sums = dict[tuple[int, str, str, str], UsageSum]()
    for entry in ledger:
        row = entry.day, entry.key_id, f"{entry.provider}/{entry.model}", entry.currency
        sums[row] = sums.get(row, UsageSum()).plus(UsageSum.of(entry))
    return [UsageRow(*row, total) for row, total in sums.items()]


async def read_usage(client: Client, days: Sequence[int], account: str | None = None) -> list[UsageRow]:
    """Return the sums of some days: of one account, or of all. Raises :class:`BrokerUnavailable`."""
    commands: list[Command] = [("HGETALL", usage_key(day, account)) for day in days]
    found = list[UsageRow]()
    for day, flat in zip(days, await run_commands(client, commands), strict=True):
        found += [_row(day, field, counts) for field, counts in zip(flat[::2], flat[1::2], strict=True)]
    return found


def _row(day: int, field: bytes, counts: bytes) -> UsageRow:
    key_id, currency, target = field.decode().split(" ", 2)
    total = UsageSum(*map(int, counts.split()))
    return UsageRow(day, key_id.replace(_MISSING, ""), target, currency.replace(_MISSING, ""), total)
