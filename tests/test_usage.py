"""The ledger: each call of a provider is in it once, with its tokens and its cost."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from shared.protocol.ledger import LedgerEntry, decode_ledger
from tests.fakes.answer import Answer, Counts
from tests.sse_client import Frame
from tests.system import System

NAMES = ("dollars", "euros", "claude", "free")
#: Amounts per million tokens, so that a token costs so many thousands of nanos.
PRICES = """
[providers.dollars]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "prefix"

[providers.euros]
kind = "openai"
base_url = "{fake.openai_base_url}"
continues = "prefix"

[providers.claude]
kind = "anthropic"
base_url = "{fake.anthropic_base_url}"
continues = "assistant_prefill"

[providers.free]
kind = "openai"
base_url = "{fake.openai_base_url}"

"""
PRICE = """
[prices."{target}"]
currency = "{currency}"
as_of = "2026-11-01"
input = {input}
cached_input = 0.3
cache_write = 3.75
output = {output}
reasoning = 30
"""
MODELS = [f"m{n}" for n in range(30)]
_numbers = count()


def configuration(*, dollars: float = 3) -> str:
    prices = [PRICE.format(target=f"dollars/{model}", currency="USD", input=dollars, output=15) for model in MODELS]
    prices += [PRICE.format(target=f"claude/{model}", currency="USD", input=3, output=15) for model in MODELS]
    prices += [PRICE.format(target=f"euros/{model}", currency="EUR", input=2, output=8) for model in MODELS]
    return PRICES + "".join(prices)


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(
        tmp_path_factory.mktemp("usage"),
        gateways=1,
        workers=2,
        providers=NAMES,
        configuration=configuration(),
        provider_retries=1,
        breaker_failures=1000,
        lease_s=1,
        queue_depth=10_000,
    )
    try:
        await system.start()
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


def model() -> str:
    """Return a name of a model for one test, which has a price."""
    return MODELS[next(_numbers)]


async def ask(system: System, target: str, **body: Any) -> list[Frame]:
    async with await system.stream(target, **{"provider": None, **body}) as connection:
        return await connection.rest()


async def ledger(system: System, stream_id: str) -> list[LedgerEntry]:
    return decode_ledger(await system.field(stream_id, "ledger"))


def stream_of(frames: list[Frame]) -> str:
    return str(next(frame for frame in frames if frame.event == "queued").data["stream_id"])


def of_calls(entries: list[LedgerEntry]) -> list[tuple[object, ...]]:
    return [(e.provider, e.outcome, e.input_tokens, e.output_tokens, e.cost_nanos, e.currency) for e in entries]


async def usage(system: System, by: str = "model", **parameters: str) -> dict[str, dict[str, Any]]:
    """Return the groups of a report by their model."""
    answer = await system.http.get(f"{system.url}/v1/usage", params={"by": by, **parameters})
    assert answer.status_code == 200, answer.text
    return {group["model"]: group for group in answer.json()["usage"]}


async def counted(system: System, target: str, calls: int) -> dict[str, Any]:
    """Return the sums of a target, once they have this number of calls."""

    async def look() -> dict[str, Any] | None:
        group = (await usage(system)).get(target)
        return group if group is not None and group["calls"] >= calls else None

    found = await system.eventually(look)
    assert found["calls"] == calls
    return found


# --- one stream


async def test_an_answer_has_its_cost(system: System) -> None:
    """Cached tokens are part of the input and reasoning is part of the output: no token is paid twice."""
    name = model()
    system.fake.play(name, Answer(deltas=["a", "b"], usage=Counts(100, 40, cached=30, reasoning=10)))
    frames = await ask(system, f"dollars/{name}")
    nanos = 70 * 3_000 + 30 * 300 + 30 * 15_000 + 10 * 30_000
    cost = {"amount": nanos / 1e9, "currency": "USD"}
    assert frames[-1].data["cost"] == cost
    stream_id = stream_of(frames)
    assert (await system.status(stream_id))["cost"] == cost
    assert of_calls(await ledger(system, stream_id)) == [("dollars", "completed", 100, 40, nanos, "USD")]
    group = await counted(system, f"dollars/{name}", 1)
    assert group["cost"] == cost
    tokens = {"input_tokens": 100, "output_tokens": 40, "cached_tokens": 30, "reasoning_tokens": 10}
    assert {key: group[key] for key in tokens} == tokens
    assert (group["failed_calls"], group["estimated_calls"], group["unpriced_calls"]) == (0, 0, 0)
