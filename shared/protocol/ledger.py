"""Entries of the ledger: tokens and cost of each call of a provider."""

import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal
from urllib.parse import quote, unquote

import msgspec

Outcome = Literal["completed", "failed", "cancelled", "broken_off"]

#: Nanos in one unit of a currency. The price of a token is a fraction of a millionth of it.
NANOS: Final = 1_000_000_000
#: Entries of one stream. Further calls are added to earlier ones of the same target, outcome and day.
MOST_ENTRIES: Final = 100
#: Cost of a stream, as the desk gets it, if a call had no price or currencies mix.
UNKNOWN_COST: Final = "?"

_DAY_MS: Final = 86_400_000
_OUTCOMES: Final[dict[str, Outcome]] = {"c": "completed", "f": "failed", "x": "cancelled", "b": "broken_off"}
_LETTERS: Final = {outcome: letter for letter, outcome in _OUTCOMES.items()}
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_COST: Final = re.compile(r"([0-9a-z]*)(\?|[A-Z]*)")


class LedgerEntry(msgspec.Struct, frozen=True, array_like=True):
    """One call of a provider. ``at``: its end, ms since 1970. ``broken_off``: it had output, and another call went on
    with the answer, or the answer failed. ``cost_nanos``: billionths of a unit of ``currency``, by the price that was
    configured at that time; None if there was none, and ``currency`` is empty then. A call that used no tokens costs
    0. The kinds of tokens are those of :class:`shared.protocol.events.Usage`; 0: none, or not
    counted. ``key_id``: the API key of the caller; empty without one. ``calls``: more than one if several were
    added up."""

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
    calls: int = 1

    @property
    def has_tokens(self) -> bool:
        return bool(self.input_tokens or self.output_tokens)

    @property
    def day(self) -> int:
        """Day of its end in UTC, since 1970."""
        return self.at // _DAY_MS


class Cost(msgspec.Struct, frozen=True):
    """An amount of money, such as 0.00123 USD."""

    amount: float
    currency: str

    @classmethod
    def of(cls, nanos: int, currency: str) -> "Cost":
        return cls(nanos / NANOS, currency)


def cost_of_calls(entries: Iterable[LedgerEntry]) -> Cost | None:
    """Return the cost of some calls together. None: one that used tokens had no price, currencies differ, or none is
    known."""
    entries = list(entries)
    used = [entry for entry in entries if entry.has_tokens] or entries
    currencies = {entry.currency for entry in used}
    nanos = nanos_of_calls(entries)
    if nanos == UNKNOWN_COST or len(currencies) != 1 or "" in currencies:
        return None
    return Cost.of(int(nanos), currencies.pop())


def nanos_of_calls(entries: Sequence[LedgerEntry]) -> str:
    """Return the same in nanos, as the state's field ``owed`` has it; 0 if no tokens were used."""
    used = [entry for entry in entries if entry.has_tokens]
    nanos = [entry.cost_nanos for entry in used]
    is_known = None not in nanos and len({entry.currency for entry in used}) <= 1
    return str(sum(each or 0 for each in nanos)) if is_known else UNKNOWN_COST


def bounded(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Return the entries; if there are too many, the latest ones are added to earlier ones of their kind."""
    kept = list(entries[:MOST_ENTRIES])
    for entry in entries[MOST_ENTRIES:]:
        at = next((n for n, each in enumerate(kept) if _kind(each) == _kind(entry)), None)
        if at is None:
            kept.append(entry)
        else:
            kept[at] = _sum(kept[at], entry)
    return kept


def encode_ledger(entries: Sequence[LedgerEntry]) -> str:
    """Return the field ``ledger`` of a stream's state, without the API key, which has a field of its own. An entry is
    short, since Redis keeps a state of short values compactly."""
    return ";".join(map(_encode, bounded(entries)))


def decode_ledger(stored: str | bytes | None, key_id: str = "") -> list[LedgerEntry]:
    """Return the entries; none for a stream that no provider was called for. ``key_id``: of the state."""
    text = stored.decode() if isinstance(stored, bytes) else stored
    return [_decode(entry, key_id) for entry in text.split(";")] if text else []


def _encode(entry: LedgerEntry) -> str:
    letter = _LETTERS[entry.outcome]
    head = (letter.upper() if entry.estimated else letter) + _text(entry.at)
    target = quote(f"{entry.provider}/{entry.model}", safe="/:@.+")
    cost = "?" if entry.cost_nanos is None else _text(entry.cost_nanos) + entry.currency
    counts = [entry.input_tokens, entry.output_tokens]
    parts = [entry.cached_tokens, entry.cache_write_tokens, entry.reasoning_tokens, entry.calls - 1]
    fields = [head, target, *map(_text, counts), cost, *map(_text, parts)]
    return ",".join(fields).rstrip(",")


def _decode(text: str, key_id: str) -> LedgerEntry:
    head, target, *rest = text.split(",")
    input_tokens, output_tokens, cost, cached, written, reasoning, more = [*rest, *[""] * (7 - len(rest))]
    provider, _, model = unquote(target).partition("/")
    match = _COST.fullmatch(cost)
    nanos, currency = match.groups() if match else ("", "?")
    return LedgerEntry(
        _number(head[1:]),
        provider,
        model,
        _OUTCOMES[head[0].lower()],
        _number(input_tokens),
        _number(output_tokens),
        _number(cached),
        _number(written),
        _number(reasoning),
        estimated=head[0].isupper(),
        cost_nanos=None if currency == "?" else _number(nanos),
        currency="" if currency == "?" else currency,
        key_id=key_id,
        calls=_number(more) + 1,
    )


def _text(number: int) -> str:
    """Return a number in base 36; 0 is empty."""
    digits = ""
    while number > 0:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def _number(text: str) -> int:
    return int(text, 36) if text else 0


def _kind(entry: LedgerEntry) -> tuple[object, ...]:
    is_priced = entry.cost_nanos is not None
    return entry.day, entry.provider, entry.model, entry.outcome, entry.currency, is_priced, entry.key_id


def _sum(first: LedgerEntry, second: LedgerEntry) -> LedgerEntry:
    is_priced = first.cost_nanos is not None and second.cost_nanos is not None
    return msgspec.structs.replace(
        first,
        at=max(first.at, second.at),
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        cached_tokens=first.cached_tokens + second.cached_tokens,
        cache_write_tokens=first.cache_write_tokens + second.cache_write_tokens,
        reasoning_tokens=first.reasoning_tokens + second.reasoning_tokens,
        estimated=first.estimated or second.estimated,
        cost_nanos=(first.cost_nanos or 0) + (second.cost_nanos or 0) if is_priced else None,
        calls=first.calls + second.calls,
    )
