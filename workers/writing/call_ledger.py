"""Ledger of one stream as its worker keeps it: an entry for each call of a provider (docs/adr/0025)."""

from collections.abc import Sequence
from dataclasses import replace

from msgspec import UNSET

from shared.broker.replies import Claimed
from shared.broker.scripts import StreamScripts
from shared.priced_calls import cost_at, priced
from shared.protocol.events import PartialUsage, TargetUsage, Usage
from shared.protocol.ledger import LedgerEntry, Outcome, decode_ledger, encode_ledger
from shared.protocol.logged_calls import Accounted


class CallLedger:
    """``entries``: of all calls that have ended, those of earlier workers included. A call that is open when the
    stream ends gets its entry with the ending. Calls are priced when they end. ``closed``: all entries, once the
    stream has an ending."""

    def __init__(self, claimed: Claimed, scripts: StreamScripts) -> None:
        self._claimed = claimed
        self._scripts = scripts
        self._key_id = claimed.fields.get("key_id", b"").decode()
        self.entries = decode_ledger(claimed.fields.get("ledger"), self._key_id)
        self.closed = list[LedgerEntry]()
        self._accounted = Accounted.of(claimed.fields)
        self._open: tuple[str, str] | None = None
        self._output_before = 0

    @property
    def fields(self) -> dict[str, str]:
        """The fields of the state that keep the ledger for another worker."""
        return {"ledger": encode_ledger(self.entries), "accounted": self._accounted.text}

    @property
    def claimed(self) -> Claimed:
        """The claim, with these fields."""
        fields = {name: value.encode() for name, value in self.fields.items() if value}
        return replace(self._claimed, fields={**self._claimed.fields, **fields})

    def begin(self, target: tuple[str, str], output: int) -> None:
        """Note that a call begins. ``output``: number of deltas so far."""
        self._open, self._output_before = target, output

    def has_output(self, output: int) -> bool:
        """Return True if the open call has had output."""
        return output > self._output_before

    def end(self, outcome: Outcome, usage: Usage | None, epoch: int, calls: int) -> None:
        """Add the entry of the open call. ``usage``: None if it used nothing. The log of ``epoch`` has ``calls``."""
        if self._open is not None:
            self.entries.append(self._entry(self._open, outcome, usage))
            self._open = None
            if calls:
                self._accounted.note(epoch, calls)

    def add_lost(self, entries: Sequence[LedgerEntry], epoch: int, calls: int) -> None:
        """Add calls of workers that died. The log of ``epoch``, which they wrote, has ``calls``."""
        self.entries += entries
        self._accounted.note(epoch, calls)

    def all_with(self, outcome: Outcome, usage: Usage | None) -> list[LedgerEntry]:
        """Return all entries of a stream that ends. ``outcome`` and ``usage``: of the call that is open, if any."""
        latest = [] if self._open is None else [self._entry(self._open, outcome, usage)]
        self.closed = [*self.entries, *latest]
        return self.closed

    def with_costs(self, parts: Sequence[TargetUsage]) -> list[TargetUsage]:
        """Return the usage of some calls, each with its cost."""
        prices = self._scripts.prices
        costs = [cost_at(prices, (part.provider, part.model), part.usage) for part in parts]
        return [
            TargetUsage(part.provider, part.model, part.usage, cost) for part, cost in zip(parts, costs, strict=True)
        ]

    def _entry(self, target: tuple[str, str], outcome: Outcome, usage: Usage | None) -> LedgerEntry:
        return priced(self._scripts.prices, target, outcome, usage, self._key_id)


def is_counted(counted: Usage | PartialUsage | None) -> bool:
    """Return True if a provider has counted tokens of a call."""
    match counted:
        case None:
            return False
        case Usage():
            return True
        case _:
            return counted.input_tokens is not UNSET or counted.output_tokens is not UNSET
