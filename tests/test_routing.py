"""Routing over the keys of a provider and over the targets of an alias, by two workers that share all state."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shared.broker.keys import provider_limit_keys
from tests.fakes import Answer, FakeProvider
from tests.fakes.answer import Call
from tests.sse_client import error_of, text_of
from tests.system import System

NAMES = ("twins", "pair", "keyed", "small", "tight", "left", "right", "rated")
Fakes = dict[str, FakeProvider]
FIRST, SECOND = "Bearer key-one-of-keyed", "Bearer key-two-of-keyed"
CONFIGURATION = """
[providers.keyed]
kind = "openai"
base_url = "{keyed.openai_base_url}"
api_keys = ["env:KEY_ONE", "env:KEY_TWO"]

[providers.twins]
kind = "openai"
base_url = "{twins.openai_base_url}"
api_keys = ["env:KEY_ONE", "env:KEY_TWO"]

[providers.pair]
kind = "openai"
base_url = "{pair.openai_base_url}"
api_keys = ["env:KEY_ONE", "env:KEY_TWO"]

[providers.small]
kind = "openai"
base_url = "{small.openai_base_url}"
concurrent_streams = 1

[providers.tight]
kind = "openai"
base_url = "{tight.openai_base_url}"
concurrent_streams = 2

[providers.rated]
kind = "openai"
base_url = "{rated.openai_base_url}"
requests_per_minute = 2

[providers.left]
kind = "openai"
base_url = "{left.openai_base_url}"

[providers.right]
kind = "openai"
base_url = "{right.openai_base_url}"

[models.overflow]
targets = ["small/m", "tight/m"]
fallbacks = ["left/never"]

[models.patient]
targets = ["keyed/down", "right/up"]

[models.busy]
targets = ["left/m", "right/m"]
routing = "least_busy"
"""


@pytest.fixture(scope="module")
async def fakes() -> AsyncIterator[Fakes]:
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeProvider()) for name in NAMES}
        for fake in fakes.values():
            fake.models = ()
        yield fakes


@pytest.fixture(scope="module")
async def system(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("routing")
    (folder / "headrace.toml").write_text(CONFIGURATION.format(**fakes))
    system = System(
        folder,
        gateways=1,
        workers=2,
        providers=NAMES,
        environment={"KEY_ONE": "key-one-of-keyed", "KEY_TWO": "key-two-of-keyed"},
        config=folder / "headrace.toml",
        provider_retries=0,
        concurrency=20,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()
        assert_no_key_is_logged(system)


def assert_no_key_is_logged(system: System) -> None:
    for process in (*system.workers, *system.gateways):
        assert "-of-keyed" not in process.log.read_text()


@pytest.fixture(autouse=True)
async def _reset(fakes: Fakes, system: System) -> AsyncIterator[None]:
    """Each test begins without calls, counts and pauses."""
    for fake in fakes.values():
        fake.calls.clear()
        fake.director = None
    async with system.broker.client() as client:
        for pattern in ("hr:{desk}:paused:*", "hr:{desk}:lane:*", "hr:{desk}:breaker*"):
            async for key in client.scan_iter(match=pattern):
                await client.delete(key)
    yield
    assert await system.keys_without_expiry() == []


async def post(system: System, model: str, prompt: str = "hi", **body: Any) -> str:
    return await system.post(model, prompt, **{"provider": None, **body})


def with_system(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": text}, {"role": "user", "content": "hi"}]


def key_of(call: Call) -> str:
    return call.headers["authorization"]


def running(fake: FakeProvider) -> int:
    return sum(not call.closed.is_set() for call in fake.calls)


def by_key(answers: dict[str, Answer]) -> Callable[[Call], Answer]:
    return lambda call: answers.get(key_of(call), Answer(deltas=["spoken"]))


# --- keys


async def test_a_key_that_is_revoked_under_load_is_noticed_by_no_client(system: System, fakes: Fakes) -> None:
    fake = fakes["twins"]
    fake.director = by_key({})

    async def ask(number: int) -> None:
        messages = with_system(f"instructions {number}")
        async with await system.stream("m", provider="twins", messages=messages) as connection:
            frames = await connection.rest()
        assert text_of(frames) == "spoken", frames
        assert [frame.event for frame in frames].count("start") == 1

    await asyncio.gather(*(ask(number) for number in range(12)))
    assert {key_of(call) for call in fake.calls} == {FIRST, SECOND}
    fake.director = by_key({FIRST: Answer(status=401)})
    await asyncio.gather(*(ask(number) for number in range(12)))

    async def is_unused() -> bool:
        fake.calls.clear()
        await asyncio.gather(*(ask(number) for number in range(12)))
        return {key_of(call) for call in fake.calls} == {SECOND}

    await system.eventually(is_unused)


async def test_a_limited_key_is_paused_and_the_other_one_answers(system: System, fakes: Fakes) -> None:
    fake = fakes["keyed"]
    fake.director = by_key({FIRST: Answer(status=429, retry_after="3600")})

    async def is_paused() -> bool:
        fake.calls.clear()
        for number in range(6):
            stream_id = await post(system, "keyed/limited", messages=with_system(f"instructions {number}"))
            assert (await system.ended(stream_id))["text"] == "spoken"
        return {key_of(call) for call in fake.calls} == {SECOND}

    await system.eventually(is_paused)
    async with system.broker.client() as client:
        pauses = [await client.zrange(key, 0, -1) async for key in client.scan_iter("hr:{desk}:paused:*:keyed")]
    assert [len(each) for each in pauses] == [1]
    assert b"key-one" not in pauses[0][0]


async def test_requests_with_the_same_beginning_prefer_the_same_key(system: System, fakes: Fakes) -> None:
    fake = fakes["keyed"]
    fake.director = by_key({})
    chosen = set()
    for number in range(10):
        fake.calls.clear()
        for turn in range(3):
            messages = [*with_system(f"instructions {number}"), {"role": "user", "content": str(turn)}]
            await system.ended(await post(system, "keyed/m", messages=messages))
        (key,) = {key_of(call) for call in fake.calls}
        chosen.add(key)
    assert chosen == {FIRST, SECOND}


async def test_if_all_keys_are_limited_the_error_names_it(system: System, fakes: Fakes) -> None:
    fake = fakes["keyed"]
    limited = Answer(status=429, retry_after="3600")
    fake.director = by_key({FIRST: limited, SECOND: limited})
    for _ in range(2):
        async with await system.stream("all-limited", provider="keyed") as connection:
            assert error_of(await connection.rest()) == ("provider_rate_limited", True)
    assert {key_of(call) for call in fake.calls} == {FIRST, SECOND}


async def test_keys_that_are_all_refused_are_tried_again(system: System, fakes: Fakes) -> None:
    fake = fakes["pair"]
    fake.director = by_key({FIRST: Answer(status=401), SECOND: Answer(status=401)})
    async with await system.stream("m", provider="pair") as connection:
        assert error_of(await connection.rest()) == ("provider_auth", False)
    assert {key_of(call) for call in fake.calls} == {FIRST, SECOND}
    fake.director = by_key({})
    for number in range(4):
        stream_id = await post(system, "pair/m", messages=with_system(str(number)))
        assert (await system.ended(stream_id))["text"] == "spoken"


async def test_a_key_without_access_to_one_model_is_not_paused(system: System, fakes: Fakes) -> None:
    fake = fakes["keyed"]
    fake.director = by_key({FIRST: Answer(status=403)})
    for _ in range(2):
        fake.calls.clear()
        for number in range(8):
            stream_id = await post(system, "keyed/forbidden", messages=with_system(str(number)))
            assert (await system.ended(stream_id))["text"] == "spoken"
        assert {key_of(call) for call in fake.calls} == {FIRST, SECOND}


# --- targets


async def test_start_and_log_name_the_target_that_answered(system: System, fakes: Fakes) -> None:
    fakes["keyed"].director = lambda _: Answer(status=503)
    fakes["right"].play("up", Answer(deltas=["up"]))
    async with await system.stream("patient", provider=None) as connection:
        frames = await connection.rest()
    (start,) = [frame.data for frame in frames if frame.event == "start"]
    assert (start["provider"], start["model"]) == ("right", "up")

    async def is_logged() -> bool:
        lines = [line for worker in system.workers for line in worker.log.read_text().splitlines()]
        ended = [line for line in lines if "stream ended" in line and connection.stream_id in line]
        return any("right" in line and "keyed" not in line for line in ended)

    await system.eventually(is_logged)


async def test_a_full_target_is_passed_over_and_a_request_waits_if_all_are_full(system: System, fakes: Fakes) -> None:
    gate = asyncio.Event()
    for name in ("small", "tight"):
        fakes[name].play("m", Answer(deltas=[name, " done"], gate=gate))
    ids = [await post(system, "overflow", str(number)) for number in range(5)]
    await fakes["small"].wait_calls(1)
    await fakes["tight"].wait_calls(2)

    async def waits() -> bool:
        positions = [(await system.status(stream_id))["position"] for stream_id in ids]
        return sorted(position for position in positions if isinstance(position, int)) == [1, 2]

    await system.eventually(waits)
    assert (running(fakes["small"]), running(fakes["tight"])) == (1, 2)
    gate.set()
    texts = [(await system.ended(stream_id))["text"] for stream_id in ids]
    assert set(texts) <= {"small done", "tight done"}
    assert fakes["left"].calls == []


async def test_the_limit_of_a_target_holds_for_fallbacks_over_all_workers(system: System, fakes: Fakes) -> None:
    gate = asyncio.Event()
    fakes["right"].play("down", Answer(status=503))
    fakes["tight"].play("fallback", Answer(deltas=["fell", " back"], gate=gate))
    ids = [await post(system, "right/down", fallbacks=["tight/fallback"]) for _ in range(8)]
    await fakes["tight"].wait_calls(2)
    await fakes["right"].wait_calls(8)

    async def refused() -> bool:
        return sum([(await system.status(stream_id))["status"] == "failed" for stream_id in ids]) == 6

    await system.eventually(refused)
    gate.set()
    ended = [await system.ended(stream_id) for stream_id in ids]
    assert sorted(str(each["text"]) for each in ended) == [""] * 6 + ["fell back"] * 2
    assert len(fakes["tight"].calls) == 2


async def test_a_failed_stream_frees_the_slot_of_its_target_for_others(system: System, fakes: Fakes) -> None:
    """A target that fails gives its slot back when the fallback is called, not when the stream ends."""
    gate = asyncio.Event()
    fakes["small"].play("down", Answer(status=503))
    fakes["small"].play("up", Answer(deltas=["up"]))
    fakes["left"].play("held", Answer(deltas=["held"], gate=gate))
    held = await post(system, "small/down", fallbacks=["left/held"])
    await fakes["left"].wait_calls(1)
    assert (await system.ended(await post(system, "small/up")))["text"] == "up"
    gate.set()
    assert (await system.ended(held))["text"] == "held"


async def test_requests_above_the_rate_of_a_target_wait(system: System, fakes: Fakes) -> None:
    fakes["rated"].play("m", Answer(deltas=["rated"]))
    ids = [await post(system, "rated/m") for _ in range(3)]

    async def waits() -> bool:
        states = [await system.status(stream_id) for stream_id in ids]
        return [state["position"] for state in states if not state["ended_at"]] == [1]

    await system.eventually(waits)
    async with system.broker.client() as client:
        await client.delete(provider_limit_keys("rated")[3])  # as if a minute had passed
    assert [(await system.ended(stream_id))["text"] for stream_id in ids] == ["rated"] * 3


async def test_the_least_busy_target_gets_a_request_without_a_preference(system: System, fakes: Fakes) -> None:
    gate = asyncio.Event()
    for name in ("left", "right"):
        fakes[name].play("m", Answer(deltas=[name], gate=gate))
    held = [await post(system, "left/m") for _ in range(4)]
    await fakes["left"].wait_calls(4)
    chosen = [await post(system, "busy") for _ in range(3)]
    await fakes["right"].wait_calls(3)
    # Those with the same beginning keep their target, however busy it is.
    alike = [await post(system, "busy", messages=with_system("instructions 1")) for _ in range(3)]
    gate.set()
    assert {(await system.ended(stream_id))["text"] for stream_id in held} == {"left"}
    assert {(await system.ended(stream_id))["text"] for stream_id in chosen} == {"right"}
    assert len({(await system.ended(stream_id))["text"] for stream_id in alike}) == 1
