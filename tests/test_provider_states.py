"""The command ``headrace providers`` shows limits, paused keys and open breakers of a running system."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.client import connect
from shared.configuration.configuration import load_configuration
from shared.settings import Settings
from tests.cli import Ended, finish, headrace
from tests.fakes import Answer, FakeProvider
from tests.fakes.answer import Call
from tests.system import System
from tests.tap import Tap
from workers.providers.endpoint import endpoints_of
from workers.providers.errors import provider_failure
from workers.providers.keys import Keys

CONFIGURATION = """
[providers.alpha]
kind = "openai"
base_url = "{fake.openai_base_url}"
api_keys = ["env:KEY_ONE", "env:KEY_TWO"]
models = ["m", "down", "limited"]
concurrent_streams = 7
requests_per_minute = 100

[providers.single]
kind = "openai"
base_url = "{fake.openai_base_url}"
api_keys = ["env:KEY_THREE"]
models = ["m"]
"""
KEYS = {
    "KEY_ONE": "first-key-of-the-team-1111",
    "KEY_TWO": "second-key-of-the-team-2222",
    "KEY_THREE": "a-wrong-key-of-the-team-3333",
}


@pytest.fixture(scope="module")
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
async def system(fake: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("states")
    (folder / "headrace.toml").write_text(CONFIGURATION.format(fake=fake))
    system = System(
        folder,
        gateways=1,
        workers=1,
        providers=["alpha", "single"],
        environment={**KEYS, "HEADRACE_BREAKER_FAILURES": "1", "HEADRACE_BREAKER_OPEN_S": "3600"},
        config=folder / "headrace.toml",
        provider_retries=0,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def listed(system: System, file: Path | None, **environment: str) -> Ended:
    options = ["--config", str(file)] if file else []
    ended = await finish(
        await headrace("providers", *options, HEADRACE_REDIS_URL=system.broker.url, **environment), timeout_s=100
    )
    assert (ended.code, ended.err) == (0, "")
    assert not any(key in ended.out for key in KEYS.values())
    return ended


def row(ended: Ended, *begin: str) -> str:
    """Return the rest of the line that begins with these cells."""
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    prefix = " ".join(begin) + " "
    (found,) = [line.removeprefix(prefix) for line in lines if line.startswith(prefix)]
    return found


async def test_limits_keys_and_breakers_are_listed(system: System, fake: FakeProvider) -> None:
    gate = asyncio.Event()
    answers = {
        "m": Answer(gate=gate, gate_after=1),
        "down": Answer(status=503),
        "limited": Answer(status=429, retry_after="600"),
    }

    def answer(call: Call) -> Answer:
        is_first = call.headers["authorization"].endswith("1111")
        return Answer(status=401) if is_first and call.model == "m" else answers[call.model]

    fake.director = answer
    streams = [await system.post("alpha/m", provider=None, messages=with_system(n)) for n in range(4)]
    await fake.wait_calls(4)
    for model in ("down", "limited"):
        await system.ended(await system.post(f"alpha/{model}", provider=None))

    async def has_first_key() -> bool:
        ended = await listed(system, system.folder / "headrace.toml", **KEYS)
        return "refused by the provider" in ended.out

    while not await has_first_key():  # requests prefer a key by their beginning
        streams.append(await system.post("alpha/m", provider=None, messages=with_system(len(streams))))
    ended = await listed(system, system.folder / "headrace.toml", **KEYS)
    models, running, waiting, requests, _, state = row(ended, "alpha", "openai").split(maxsplit=5)
    assert models == "3"
    assert running.endswith("/7")
    assert int(running.partition("/")[0]) >= 4
    assert waiting == "0"
    assert requests.endswith("/100")
    assert state == "1 breakers open, keys paused"
    assert "refused by the provider" in row(ended, "alpha", "env:KEY_ONE", "…1111", "id")
    assert "rate limited: limited until" in row(ended, "alpha", "env:KEY_TWO", "…2222", "id")
    assert row(ended, "alpha", "down") == "breaker open after 1 failures"
    gate.set()
    for stream_id in streams:
        await system.ended(stream_id)


async def test_without_file_and_keys_the_state_is_that_of_redis(system: System) -> None:
    ended = await listed(system, None)
    assert row(ended, "alpha", "openai").startswith("3 ")
    assert row(ended, "demo", "demo").startswith("1 - 0 - - ok")
    ended = await listed(system, system.folder / "headrace.toml")
    assert row(ended, "alpha", "env:KEY_ONE") == "not readable here; only workers need it"


async def test_the_only_key_of_a_provider_is_shown_as_refused_until_it_is_accepted(
    system: System, fake: FakeProvider
) -> None:
    fake.director = lambda call: Answer(status=401) if call.headers["authorization"].endswith("3333") else Answer()
    for _ in range(2):
        status = await system.ended(await system.post("single/m", provider=None))
        assert status["error"] is not None
    lines = system.workers[0].log.read_text().splitlines()
    assert len([line for line in lines if '"key paused"' in line and '"single"' in line]) == 1
    ended = await listed(system, system.folder / "headrace.toml", **KEYS)
    assert any("…3333" in line and "refused by the provider" in line for line in ended.out.splitlines()), ended.out
    fake.director = lambda _: Answer()
    assert (await system.ended(await system.post("single/m", provider=None)))["status"] == "completed"
    ended = await listed(system, system.folder / "headrace.toml", **KEYS)
    assert not any("KEY_THREE" in line and "refused" in line for line in ended.out.splitlines())


async def test_a_pause_outlives_a_read_that_began_before_it(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "headrace.toml"
    file.write_text('[providers.own]\nkind = "openai"\napi_keys = ["env:KEY_ONE", "env:KEY_TWO"]')
    tap = Tap(system.broker.port)
    await tap.start()
    client = connect(f"redis://127.0.0.1:{tap.port}/0")
    keys = Keys(client, endpoints_of(load_configuration(Settings(config=file)))[0])
    await keys.read()
    tap.holds_replies = True
    reading = asyncio.create_task(keys.read())
    while not tap.held:
        await asyncio.sleep(0.01)
    both = keys.usable("own", "m", None)
    limited = provider_failure("provider_rate_limited", "own", model="m", detail="", retry_after_s=600)
    pausing = asyncio.create_task(keys.failed("own", "m", both[0], limited))
    while keys.usable("own", "m", None) == both:
        await asyncio.sleep(0)
    tap.release()
    await reading
    assert keys.usable("own", "m", None) == both[1:]
    assert await pausing
    await client.aclose()
    await tap.stop()


async def test_a_key_that_was_replaced_in_the_environment_is_no_longer_shown(
    system: System, fake: FakeProvider
) -> None:
    """The configuration is the same, so the new worker finds the pause of the old key."""
    fake.director = lambda call: Answer(status=401) if call.headers["authorization"].endswith("3333") else Answer()
    await system.ended(await system.post("single/m", provider=None))
    assert "refused by the provider" in (await listed(system, system.folder / "headrace.toml", **KEYS)).out
    worker = system.workers[0]
    worker.signal(signal.SIGTERM)
    await worker.wait()
    worker.environment["KEY_THREE"] = "a-right-key-of-the-team-4444"
    worker.start()

    async def is_forgotten() -> bool:
        return not row(await listed(system, None), "single", "openai").endswith("keys paused")

    await system.eventually(is_forgotten, timeout_s=100)


def with_system(number: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": f"instructions {number}"}, {"role": "user", "content": "hi"}]
