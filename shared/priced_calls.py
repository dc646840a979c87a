"""Makes entries of the ledger: calls of providers with the price of their day (docs/adr/0025)."""

import time
from collections.abc import Mapping, Sequence

from shared.prices import Prices, cost_of, price_of
from shared.protocol import events
from shared.protocol.events import Usage
from shared.protocol.ledger import Cost, LedgerEntry, Outcome
from shared.protocol.lineage import Lineage
from shared.protocol.logged_calls import Accounted, calls_of
from shared.protocol.usage import Estimate


def priced(
    prices: Prices, target: tuple[str, str], outcome: Outcome, usage: Usage | None, key_id: str = ""
) -> LedgerEntry:
    """Return the entry of a call that ends now. ``usage``: None if there was no output, and the provider counted
    nothing."""
    provider, model = target
    at = time.time_ns() // 1_000_000
    price = price_of(prices, provider, model)
    currency = "" if price is None else price.currency
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return LedgerEntry(at, provider, model, outcome, cost_nanos=0, currency=currency, key_id=key_id)
    return LedgerEntry(
        at,
        provider,
        model,
        outcome,
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens or 0,
        usage.cache_write_tokens or 0,
        usage.reasoning_tokens or 0,
        estimated=usage.estimated,
        cost_nanos=None if price is None else cost_of(price, usage),
        currency=currency,
        key_id=key_id,
    )


def cost_at(prices: Prices, target: tuple[str, str], usage: Usage) -> Cost | None:
    """Return the cost of a call; None without a price."""
    price = price_of(prices, *target)
    return None if price is None else Cost.of(cost_of(price, usage), price.currency)


def lost_calls(
    prices: Prices, fields: Mapping[str, bytes], log: Sequence[bytes], outcome: Outcome = "broken_off"
) -> list[LedgerEntry]:
    """Return entries for the calls in a log that the ledger of its stream's state does not have, because their worker
    died: estimates from their output. ``outcome``: of the last one."""
    if not log:
        return []
    calls = calls_of(events.decode(stored) for stored in log)
    request, key_id = Estimate.of(fields), fields.get("key_id", b"").decode()
    lineage = Lineage(fields.get("lineage", b"").decode())
    known = Accounted.of(fields).of_log(int(fields.get("log_epoch", b"0")), lineage)
    last = len(calls) - 1
    return [
        priced(
            prices,
            (call.provider, call.model),
            outcome if at == last else "broken_off",
            call.usage(request) if call.deltas else None,
            key_id,
        )
        for at, call in enumerate(calls)
        if at >= known
    ]
