"""The ledger: each call of a provider is in it once, with its tokens and its cost."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

from shared.protocol.ledger import LedgerEntry, decode_ledger
from shared.usage_report import parse_days
from tests.cli import finish, headrace
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
        lease_s=4,  # a worker that is merely slow must not lose its streams
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


async def test_a_model_without_a_price_has_no_cost(system: System) -> None:
    system.fake.play("unpriced", Answer(deltas=["a"], usage=Counts(7, 3)))
    frames = await ask(system, "free/unpriced")
    assert frames[-1].data["cost"] is None
    assert of_calls(await ledger(system, stream_of(frames))) == [("free", "completed", 7, 3, None, "")]
    group = await counted(system, "free/unpriced", 1)
    assert (group["unpriced_calls"], group["cost"], group["input_tokens"]) == (1, None, 7)


async def test_failed_calls_are_counted_and_cost_nothing(system: System) -> None:
    """A retry and a fallback: one answer, three calls."""
    first, second = model(), model()
    system.fake.play(first, Answer(status=503), Answer(status=503))
    system.fake.play(second, Answer(deltas=["a"], usage=Counts(10, 1)))
    frames = await ask(system, f"euros/{first}", fallbacks=[f"dollars/{second}"])
    assert frames[-1].data["cost"] == {"amount": (10 * 3_000 + 15_000) / 1e9, "currency": "USD"}
    failed = ("euros", "failed", 0, 0, 0, "EUR")
    answered = ("dollars", "completed", 10, 1, 45_000, "USD")
    assert of_calls(await ledger(system, stream_of(frames))) == [failed, failed, answered]
    group = await counted(system, f"euros/{first}", 2)
    assert (group["failed_calls"], group["cost"]) == (2, {"amount": 0, "currency": "EUR"})
    await counted(system, f"dollars/{second}", 1)


async def test_a_cancelled_call_is_estimated(system: System) -> None:
    name, gate = model(), asyncio.Event()
    system.fake.play(name, Answer(deltas=["abcd"] * 10, gate=gate, gate_after=4))
    async with await system.stream(f"dollars/{name}", "x" * 400, provider=None) as connection:
        await connection.next("token")
        (await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")).raise_for_status()
        done = (await connection.rest())[-1].data
    (entry,) = await ledger(system, connection.stream_id)
    used = done["usage"]
    assert (entry.outcome, entry.estimated) == ("cancelled", True)
    assert (entry.input_tokens, entry.output_tokens) == (used["input_tokens"], used["output_tokens"])
    assert done["cost"] == {
        "amount": (used["input_tokens"] * 3_000 + used["output_tokens"] * 15_000) / 1e9,
        "currency": "USD",
    }
    assert (await counted(system, f"dollars/{name}", 1))["estimated_calls"] == 1


async def test_a_call_that_is_cancelled_before_its_output_costs_nothing(system: System) -> None:
    name = model()
    system.fake.play(name, Answer(deltas=["late"], end="hang", first_delay_s=60))
    calls = len(system.fake.calls)
    async with await system.stream(f"dollars/{name}", provider=None) as connection:
        await system.fake.wait_calls(calls + 1)
        (await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")).raise_for_status()
        done = (await connection.rest())[-1].data
    assert of_calls(await ledger(system, connection.stream_id)) == [("dollars", "cancelled", 0, 0, 0, "USD")]
    assert done["cost"] == {"amount": 0, "currency": "USD"}


async def test_calls_that_continue_an_answer_are_counted_each(system: System) -> None:
    """The parts have their own costs. Amounts of two currencies have no sum."""
    first, second, third = model(), model(), model()
    broken = Answer(deltas=["The river flows", " past the old"], end="truncate", usage=Counts(11, 3))
    system.fake.play(first, broken)
    system.fake.play(second, Answer(deltas=[" mill."], usage=Counts(20, 5)))
    frames = await ask(system, f"claude/{first}", fallbacks=[f"dollars/{second}"], on_provider_lost="continue")
    done = frames[-1].data
    entries = await ledger(system, stream_of(frames))
    assert [(e.provider, e.outcome, e.estimated) for e in entries] == [
        ("claude", "broken_off", True),
        ("claude", "failed", True),  # it began anew, so nothing of it is in the answer
        ("dollars", "completed", False),
    ]
    parts = done["usage_by_target"]
    joined = [entries[0], entries[2]]
    assert [part["usage"]["output_tokens"] for part in parts] == [e.output_tokens for e in joined]
    assert [part["cost"]["amount"] for part in parts] == [(e.cost_nanos or 0) / 1e9 for e in joined]
    assert entries[1].output_tokens == len("The river flows past the old") // 4
    assert done["cost"]["amount"] == sum(e.cost_nanos or 0 for e in entries) / 1e9

    system.fake.play(third, broken)
    frames = await ask(system, f"claude/{third}", fallbacks=[f"euros/{second}"], on_provider_lost="continue")
    assert frames[-1].data["cost"] is None
    assert [part["cost"]["currency"] for part in frames[-1].data["usage_by_target"]] == ["USD", "EUR"]


async def test_a_call_whose_worker_died_is_estimated_from_its_output(system: System) -> None:
    """The next worker begins anew: the stream has two calls, and both are paid."""
    name, gate = model(), asyncio.Event()
    answer = Answer(deltas=["abcd"] * 10, gate=gate, gate_after=6, usage=Counts(50, 10))
    system.fake.play(name, answer)
    async with await system.stream(f"dollars/{name}", "x" * 400, provider=None) as connection:
        await connection.next("token")
        await system.eventually(partial(has_written, system, connection.stream_id, 6))
        holder = (await system.field(connection.stream_id, "holder") or "").split(".")[0]
        worker = next(each for each in system.workers if f'"worker":"{holder}"' in each.log.read_text())
        worker.stop()
        gate.set()
        done = (await connection.rest())[-1].data
    worker.start()
    lost, answered = await ledger(system, connection.stream_id)
    assert (lost.outcome, lost.estimated, lost.input_tokens, lost.output_tokens) == ("broken_off", True, 100, 6)
    assert (answered.outcome, answered.input_tokens, answered.output_tokens) == ("completed", 50, 10)
    assert done["usage"]["input_tokens"] == 50
    nanos = 100 * 3_000 + 6 * 15_000 + 50 * 3_000 + 10 * 15_000
    assert done["cost"] == {"amount": nanos / 1e9, "currency": "USD"}
    assert (await counted(system, f"dollars/{name}", 2))["cost"] == done["cost"]


async def has_written(system: System, stream_id: str, tokens: int) -> bool | None:
    text = (await system.status(stream_id))["text"]
    return len(str(text)) >= 4 * tokens or None


async def test_a_stream_that_is_deleted_while_it_runs_is_counted(system: System) -> None:
    name, gate = model(), asyncio.Event()
    system.fake.play(name, Answer(deltas=["abcd"] * 10, gate=gate, gate_after=4))
    async with await system.stream(f"dollars/{name}", "x" * 400, provider=None) as connection:
        await system.eventually(partial(has_written, system, connection.stream_id, 4))
        (await system.http.delete(f"{system.url}/chat/{connection.stream_id}")).raise_for_status()
    group = await counted(system, f"dollars/{name}", 1)
    assert (group["input_tokens"], group["output_tokens"], group["estimated_calls"]) == (100, 4, 1)


# --- sums


async def test_sums_are_exact_under_load_and_a_killed_worker(system: System) -> None:
    """The sums of the day are those of the ledgers of all streams: none is lost, none is counted twice."""
    name = model()
    system.fake.play(name, Answer(deltas=["a"] * 20, delay_s=0.02, usage=Counts(9, 20)))
    connections = [await system.stream(f"dollars/{name}", provider=None) for _ in range(100)]
    await connections[0].next("token")
    system.workers[0].stop()
    frames = await asyncio.gather(*(connection.rest() for connection in connections))
    system.workers[0].start()
    assert {each[-1].data["finish_reason"] for each in frames} == {"stop"}
    ledgers = [await ledger(system, connection.stream_id) for connection in connections]
    entries = [entry for each in ledgers for entry in each]
    assert len(entries) >= 100
    group = await counted(system, f"dollars/{name}", len(entries))
    assert group["input_tokens"] == sum(entry.input_tokens for entry in entries)
    assert group["output_tokens"] == sum(entry.output_tokens for entry in entries)
    assert round(group["cost"]["amount"] * 1e9) == sum(entry.cost_nanos or 0 for entry in entries)
    costs = [round(each[-1].data["cost"]["amount"] * 1e9) for each in frames]
    assert sum(costs) == round(group["cost"]["amount"] * 1e9)


async def test_a_reload_changes_the_prices_of_calls_that_end_later(system: System) -> None:
    name, gate = model(), asyncio.Event()
    system.fake.play(name, Answer(deltas=["a", "b"], gate=gate, gate_after=1, usage=Counts(10, 0)))
    file = system.folder / "headrace.toml"
    before = file.read_text()
    async with await system.stream(f"dollars/{name}", provider=None) as connection:
        await connection.next("token")
        file.write_text(configuration(dollars=4).format(fake=system.fake))
        await reloaded(system)
        gate.set()
        done = (await connection.rest())[-1].data
    assert done["cost"] == {"amount": 10 * 4_000 / 1e9, "currency": "USD"}
    file.write_text(before)
    await reloaded(system)


async def reloaded(system: System) -> None:
    ended = await finish(await headrace("reload", HEADRACE_REDIS_URL=system.broker.url))
    assert ended.code == 0, ended.err


# --- reports


async def test_reports_are_tables_and_csv(system: System) -> None:
    name = model()
    system.fake.play(name, Answer(deltas=["a"], usage=Counts(1_000_000, 2)))
    begun = datetime.now(UTC).date()
    await ask(system, f"dollars/{name}")
    await counted(system, f"dollars/{name}", 1)
    days = {day.isoformat() for day in (begun, datetime.now(UTC).date())}
    url = f"{system.url}/v1/usage"
    answers = [
        await system.http.get(url, params={"by": "day,key,model", "format": "csv"}),
        await system.http.get(url, params={"by": "day,key,model"}, headers={"Accept": "text/csv"}),
        await system.http.get(f"{system.url}/ops/usage", params={"by": "day,key,model", "format": "csv"}),
    ]
    printed = await finish(
        await headrace("usage", "--by", "day,key,model", "--csv", HEADRACE_REDIS_URL=system.broker.url)
    )
    for text in (*(answer.text for answer in answers), printed.out):
        (line,) = [line for line in csv.DictReader(io.StringIO(text)) if line["model"] == f"dollars/{name}"]
        assert line["day"] in days
        assert (line["key_id"], line["calls"]) == ("", "1")
        assert (line["cost"], line["currency"]) == ("3.00003", "USD")
    assert answers[0].headers["content-type"].startswith("text/csv")
    shown = await finish(await headrace("usage", "--by", "model", HEADRACE_REDIS_URL=system.broker.url))
    assert any(line.split()[0] == f"dollars/{name}" and "3.00003" in line for line in shown.out.splitlines())


def test_a_report_can_end_on_the_first_day_of_all() -> None:
    assert parse_days(None, date.min) == (date.min, date.min)
    assert parse_days(None, date(2026, 3, 1)) == (date(2026, 1, 31), date(2026, 3, 1))


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"by": "owner"}, "by: unknown or repeated name; use one or more of day, key, model"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "from: later than to; exchange them"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "from: more than 366 days before to"),
        ({"from": "yesterday"}, "from"),
        ({"format": "xml"}, "format"),
    ],
)
async def test_bad_parameters_are_named(system: System, parameters: dict[str, str], problem: str) -> None:
    answer = await system.http.get(f"{system.url}/v1/usage", params=parameters)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert problem in answer.json()["error"]["message"]
    ops = await system.http.get(f"{system.url}/ops/usage", params=parameters)
    assert (ops.status_code, ops.json()["error"]["code"]) == (422, "invalid_request")
