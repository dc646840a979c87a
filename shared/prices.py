"""Prices of tokens: the cost of one call of a provider, in nanos (billionths of a unit of the currency)."""

from collections.abc import Mapping
from typing import Final

from shared.configuration.entries import PriceEntry
from shared.protocol.events import Usage

#: A price is an amount per million tokens; a nano is a billionth of a unit.
_NANOS_A_TOKEN: Final = 1_000


#: The prices of a configuration by target, ``provider/model``.
Prices = Mapping[str, PriceEntry]


def price_of(prices: Prices, provider: str, model: str) -> PriceEntry | None:
    """Return the price of a target, if one is configured. It has no default: no price is known for good."""
    return prices.get(f"{provider}/{model}")


def cost_of(entry: PriceEntry, usage: Usage) -> int:
    """Return the cost in nanos. Cached tokens are part of the input and reasoning is part of the output, so that each
    token is paid once; a kind without a price has that of its whole. A part is never more than its whole."""
    cached = min(usage.cached_tokens or 0, usage.input_tokens)
    written = min(usage.cache_write_tokens or 0, usage.input_tokens - cached)
    reasoning = min(usage.reasoning_tokens or 0, usage.output_tokens)
    amount = (
        (usage.input_tokens - cached - written) * entry.input
        + cached * _price(entry.cached_input, entry.input)
        + written * _price(entry.cache_write, entry.input)
        + (usage.output_tokens - reasoning) * entry.output
        + reasoning * _price(entry.reasoning, entry.output)
    )
    return round(amount * _NANOS_A_TOKEN)


def highest_cost_of(entry: PriceEntry, input_tokens: int, output_tokens: int) -> int:
    """Return the highest cost of so many tokens, of any kind."""
    dearest_input = max(entry.input, entry.cached_input or 0, entry.cache_write or 0)
    dearest_output = max(entry.output, entry.reasoning or 0)
    return round((input_tokens * dearest_input + output_tokens * dearest_output) * _NANOS_A_TOKEN)


def _price(own: float | None, of_whole: float) -> float:
    return of_whole if own is None else own
