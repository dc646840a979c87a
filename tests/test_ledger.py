"""Prices of tokens, and the encoded ledger."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.configuration.entries import PriceEntry
from shared.priced_calls import lost_calls, priced
from shared.prices import cost_of, highest_cost_of
from shared.protocol import events
from shared.protocol.events import Continued, PartialUsage, Start, Token, Usage
from shared.protocol.ledger import (
    MOST_ENTRIES,
    Cost,
    LedgerEntry,
    bounded,
    cost_of_calls,
    decode_ledger,
    encode_ledger,
    nanos_of_calls,
)

DAY_MS = 86_400_000
KINDS = {"cached_tokens": 200, "cache_write_tokens": 100, "reasoning_tokens": 30}


def price(**amounts: Any) -> PriceEntry:
    return PriceEntry.model_validate(
        {"currency": "USD", "as_of": date(2026, 11, 1), "input": 3, "output": 15, **amounts}
    )


@pytest.mark.parametrize(
    ("amounts", "nanos"),
    [
        ({}, 1000 * 3000 + 50 * 15_000),
        ({"cached_input": 0.3}, 800 * 3000 + 200 * 300 + 50 * 15_000),
        ({"cache_write": 3.75}, 900 * 3000 + 100 * 3750 + 50 * 15_000),
        ({"reasoning": 60}, 1000 * 3000 + 20 * 15_000 + 30 * 60_000),
        ({"cached_input": 0, "reasoning": 0}, 800 * 3000 + 20 * 15_000),
    ],
)
def test_a_kind_without_a_price_costs_what_its_whole_costs(amounts: dict[str, float], nanos: int) -> None:
    usage = Usage(1000, 50, cached_tokens=200, cache_write_tokens=100, reasoning_tokens=30)
    assert cost_of(price(**amounts), usage) == nanos
    assert highest_cost_of(price(**amounts), 1000, 50) >= nanos


def test_parts_are_never_more_than_their_whole() -> None:
    """A provider that counts wrongly makes nobody pay less than nothing."""
    usage = Usage(10, 5, cached_tokens=500, cache_write_tokens=100, reasoning_tokens=30)
    assert cost_of(price(cached_input=0.3, reasoning=60), usage) == 10 * 300 + 5 * 60_000


def test_a_sum_of_costs_is_exact() -> None:
    """Amounts are integers of nanos; a float of them in JSON is the nearest one."""
    each = cost_of(price(input=0.1, output=0.2), Usage(1, 1))
    assert each == 300
    assert Cost.of(1_000_000 * each, "USD").amount == 0.3


def entry(**fields: Any) -> LedgerEntry:
    given = {"at": 20_000 * DAY_MS, "provider": "a", "model": "m", "outcome": "completed", "cost_nanos": 5}
    return LedgerEntry(**{**given, "input_tokens": 1, "currency": "USD", **fields})


NOTHING = entry(outcome="failed", input_tokens=0, cost_nanos=0)


@pytest.mark.parametrize(
    ("entries", "cost", "nanos"),
    [
        ([entry(), entry(cost_nanos=7)], Cost.of(12, "USD"), "12"),
        ([entry(), entry(cost_nanos=None, currency="")], None, "?"),
        ([entry(), entry(currency="EUR")], None, "?"),
        ([entry(), NOTHING, entry(input_tokens=0, cost_nanos=0, currency="EUR")], Cost.of(5, "USD"), "5"),
        ([entry(), entry(input_tokens=0, cost_nanos=0, currency="")], Cost.of(5, "USD"), "5"),
        ([NOTHING], Cost.of(0, "USD"), "0"),
        ([entry(input_tokens=0, cost_nanos=0, currency="")], None, "0"),
        ([], None, "0"),
    ],
)
def test_the_cost_of_several_calls(entries: list[LedgerEntry], cost: Cost | None, nanos: str) -> None:
    assert cost_of_calls(entries) == cost
    assert nanos_of_calls(entries) == nanos


NUMBERS = st.integers(min_value=0, max_value=10**12)
PRICED = st.tuples(NUMBERS, st.sampled_from(["USD", "EUR", ""])) | st.just((None, ""))
ENTRIES = st.builds(
    lambda cost, **fields: LedgerEntry(**fields, cost_nanos=cost[0], currency=cost[1], key_id="k"),
    cost=PRICED,
    at=NUMBERS,
    provider=st.sampled_from(["openai", "x.y_z-1"]),
    model=st.text(min_size=1),
    outcome=st.sampled_from(["completed", "failed", "cancelled", "broken_off"]),
    input_tokens=NUMBERS,
    output_tokens=NUMBERS,
    cached_tokens=NUMBERS,
    cache_write_tokens=NUMBERS,
    reasoning_tokens=NUMBERS,
    estimated=st.booleans(),
    calls=st.integers(min_value=1, max_value=10**6),
)


@given(st.lists(ENTRIES, max_size=5))
def test_a_ledger_is_decoded_as_it_was(entries: list[LedgerEntry]) -> None:
    assert decode_ledger(encode_ledger(entries), "k") == entries
    assert decode_ledger(encode_ledger(entries).encode(), "k") == entries


def test_the_usual_entry_is_short() -> None:
    """Redis keeps a hash whose values have up to 64 bytes in a third of the memory."""
    usual = entry(
        at=1_796_001_234_567,
        provider="anthropic",
        model="claude-sonnet-4-5-20250929",
        input_tokens=12_345,
        output_tokens=450,
        cost_nanos=41_234_000,
    )
    assert len(encode_ledger([usual])) <= 64


def test_a_long_ledger_is_added_up() -> None:
    calls = [entry(outcome="failed", at=20_000 * DAY_MS + n, model=f"m{n % 3}") for n in range(5 * MOST_ENTRIES)]
    kept = bounded(calls)
    assert len(kept) == MOST_ENTRIES
    assert sum(each.calls for each in kept) == len(calls)
    assert sum(each.cost_nanos or 0 for each in kept) == 5 * len(calls)
    assert len(decode_ledger(encode_ledger(calls))) == MOST_ENTRIES


# --- calls of dead workers

LOG = [
    events.encode(Start("id", "m", "a", 1, usage=PartialUsage(30, cached_tokens=20))),
    events.encode(Token("abcdefghijkl", 0, 2)),
    events.encode(Continued("b", "n", 2, 12)),
    events.encode(Token("mnop", 2, 4)),
]
FIELDS = {"log_epoch": b"7", "prompt_characters": b"40", "key_id": b"k"}


def test_the_calls_of_a_log_are_estimated_from_their_output() -> None:
    first, second = lost_calls({"a/m": price(cached_input=0.3)}, FIELDS, LOG)
    assert (first.provider, first.input_tokens, first.cached_tokens, first.output_tokens) == ("a", 30, 20, 3)
    assert first.cost_nanos == 10 * 3000 + 20 * 300 + 3 * 15_000
    assert (second.provider, second.model, second.input_tokens, second.output_tokens) == ("b", "n", 13, 4)
    assert (second.cost_nanos, second.currency, second.key_id) == (None, "", "k")
    assert {first.outcome, second.outcome} == {"broken_off"}
    assert first.estimated


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"accounted": b"7:1"}, ["b"]),
        ({"accounted": b"7:2"}, []),
        ({"accounted": b"6:2"}, ["a", "b"]),
        ({"accounted": b"6:1", "lineage": b"6:2"}, ["b"]),
        ({"accounted": b"6:1 7:2", "lineage": b"6:2"}, []),
    ],
)
def test_a_call_that_the_ledger_has_is_not_added_again(fields: dict[str, bytes], lost: list[str]) -> None:
    assert [each.provider for each in lost_calls({}, {**FIELDS, **fields}, LOG)] == lost


def test_a_call_without_tokens_costs_nothing_even_without_a_price() -> None:
    assert priced({}, ("a", "m"), "failed", None).cost_nanos == 0
    assert priced({}, ("a", "m"), "completed", Usage(1, 0)).cost_nanos is None
