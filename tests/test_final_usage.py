"""HEADRACE_USAGE_ON_CANCEL=exact: the provider's count of a cancelled answer comes after its end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from shared.broker.keys import of_key
from shared.protocol.ledger import LedgerEntry, decode_ledger
from tests.fakes.answer import Answer, Counts
from tests.system import System
from tests.webhook_receiver import SECRET, WebhookReceiver

PRICE = """
[prices."openai/{model}"]
currency = "USD"
as_of = "2026-11-01"
input = 3
output = 15
"""
MODELS = [f"m{n}" for n in range(10)]
CONFIGURATION = "".join(PRICE.format(model=model) for model in MODELS)
_numbers = count()


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = await WebhookReceiver().start()
    yield receiver
    await receiver.stop()


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> AsyncIterator[System]:
    """Yield a system that waits for a count for longer than a busy machine takes."""
    async with started(tmp_path_factory.mktemp("final"), receiver, usage_final_s=60) as system:
        yield system


@pytest.fixture(scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> AsyncIterator[System]:
    """Yield a system that waits for a count that does not come."""
    async with started(tmp_path_factory.mktemp("hasty"), receiver, usage_final_s=1) as system:
        yield system


@asynccontextmanager
async def started(folder: Path, receiver: WebhookReceiver, *, usage_final_s: float) -> AsyncIterator[System]:
    system = System(
        folder,
        gateways=1,
        workers=1,
        providers=("openai",),
        configuration=CONFIGURATION,
        usage_on_cancel="exact",
        usage_final_s=usage_final_s,
        webhook_url=receiver.url,
        webhook_secret=SECRET,
        lease_s=1,
    )
    try:
        await system.start()
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def cancelled(system: System, answer: Answer) -> tuple[str, str, dict[str, Any]]:
    """Cancel an answer after its first token. Return its model, its id and its `done`."""
    name = MODELS[next(_numbers)]
    system.fake.play(name, answer)
    async with await system.stream(name, "x" * 400) as connection:
        await connection.next("token")
        (await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")).raise_for_status()
        done = (await connection.rest())[-1].data
    assert (done["finish_reason"], done["usage"]["estimated"], done["usage"]["input_tokens"]) == (
        "cancelled",
        True,
        100,
    )
    return name, connection.stream_id, done


async def entry(system: System, stream_id: str) -> LedgerEntry:
    (only,) = decode_ledger(await system.field(stream_id, "ledger"))
    return only


async def counted(system: System, model: str) -> dict[str, Any]:
    """Return the sums of a model, once it is in them."""

    async def look() -> dict[str, Any] | None:
        answer = await system.http.get(f"{system.url}/v1/usage", params={"by": "model"})
        groups = {group["model"]: group for group in answer.json()["usage"]}
        return groups.get(f"openai/{model}")

    return await system.eventually(look, timeout_s=40)


async def test_the_count_of_the_provider_is_billed(system: System, receiver: WebhookReceiver) -> None:
    """Readers get their end at once, with the estimate; sums, ledger and webhook have the count."""
    gate = asyncio.Event()
    answer = Answer(deltas=["a"] * 50, gate=gate, gate_after=3, usage=Counts(33, 50))
    model, stream_id, done = await cancelled(system, answer)
    status = await system.status(stream_id)
    assert (status["usage"], status["usage_final"], status["cost_final"]) == (done["usage"], None, None)
    assert receiver.of(stream_id) == []
    gate.set()
    group = await counted(system, model)
    assert (group["calls"], group["input_tokens"], group["output_tokens"], group["estimated_calls"]) == (1, 33, 50, 0)
    cost = {"amount": (33 * 3_000 + 50 * 15_000) / 1e9, "currency": "USD"}
    assert group["cost"] == cost
    status = await system.status(stream_id)
    assert (status["usage"], status["cost"], status["status"]) == (done["usage"], done["cost"], "cancelled")
    assert status["usage_final"] == {"input_tokens": 33, "output_tokens": 50, "estimated": False}
    assert status["cost_final"] == cost
    only = await entry(system, stream_id)
    assert (only.outcome, only.estimated, only.output_tokens) == ("cancelled", False, 50)
    (delivery,) = await receiver.next_of(stream_id)
    data = delivery.event["data"]
    assert (data["usage"], data["usage_final"], data["cost_final"]) == (done["usage"], status["usage_final"], cost)


async def test_the_place_of_the_stream_stays_taken_meanwhile(system: System) -> None:
    """Its lease is one second; the worker extends it for as long as the call is read."""
    gate = asyncio.Event()
    answer = Answer(deltas=["a"] * 50, gate=gate, gate_after=3, usage=Counts(33, 50))
    model, stream_id, _ = await cancelled(system, answer)
    ended = int(await system.field(stream_id, "ended") or 0)
    async with system.broker.client() as client:

        async def is_held_longer() -> bool:
            until: bytes | None = await client.hget(of_key(stream_id), "until")  # type: ignore[misc]
            assert until is not None, "the ending is settled without the count"
            return int(until) > ended + 2000

        assert await system.eventually(is_held_longer, timeout_s=40)
    gate.set()
    group = await counted(system, model)
    assert (group["calls"], group["estimated_calls"]) == (1, 0)


async def test_a_count_that_does_not_come_in_time_stays_estimated(hasty: System) -> None:
    model, stream_id, done = await cancelled(hasty, Answer(deltas=["a"] * 3, end="hang"))
    group = await counted(hasty, model)
    assert (group["calls"], group["estimated_calls"], group["input_tokens"]) == (1, 1, 100)
    status = await hasty.status(stream_id)
    assert (status["usage_final"], status["cost"]) == (None, done["cost"])
    await hasty.fake.calls[-1].wait_closed()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_stops_gives_the_count_up(hasty: System, number: signal.Signals) -> None:
    """The ending is settled all the same: by the worker itself, or by the sweep."""
    gate = asyncio.Event()
    answer = Answer(deltas=["a"] * 50, gate=gate, gate_after=3, usage=Counts(33, 50))
    model, stream_id, _ = await cancelled(hasty, answer)
    worker = hasty.workers[0]
    worker.signal(number)
    await worker.wait()
    worker.start()
    group = await counted(hasty, model)
    assert (group["calls"], group["estimated_calls"]) == (1, 1)
    assert (await hasty.status(stream_id))["usage_final"] is None
    gate.set()
