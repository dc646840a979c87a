"""One real system for all tests without special needs; other tests start their own."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.fakes import FakeProvider
from tests.provider_client import NETWORK, Make, provider_named, settings_for
from tests.system import PROVIDERS, System
from workers.providers.base import Provider

StartSystem = Callable[..., Awaitable[System]]

# A busy machine may pause a test. The inputs are the same in every run.
settings.register_profile(
    "tests", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

#: Timeouts of the models that tests let fall silent, by the code of the error. Those of all others are long: a busy
#: machine must make none of them late.
SILENT = {
    f"{name}/{name}-{code}-{end}": timeouts
    for name in NETWORK
    for code, timeouts in {
        "provider_first_token_timeout": {"first_token_s": 1},
        "provider_idle_timeout": {"between_tokens_s": 1},
    }.items()
    for end in ("finish", "hang", "ping")
}
#: Some timeouts are short, and the breaker is out of the way.
IMPATIENT: dict[str, Any] = {
    "model_timeouts": json.dumps(SILENT),
    "provider_retries": 1,
    "breaker_failures": 1000,
}
#: A provider without a short form in the environment.
RESPONSES = """
[providers.responses]
kind = "openai-responses"
base_url = "{fake.openai_base_url}"
"""
#: No retries, and the breaker is out of the way. A finish reason without an end marker ends an answer soon.
ONE_ATTEMPT: dict[str, Any] = {"end_grace_s": 3, "provider_retries": 0, "breaker_failures": 1000}


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as server:
        yield server


@pytest.fixture
async def make(fake: FakeProvider) -> AsyncIterator[Make]:
    """Build adapters that call ``fake``: ``make("openai", window=8)``."""
    made: list[Provider] = []

    def build(name: str, **overrides: object) -> Provider:
        made.append(provider_named(name, settings_for(fake, **overrides)))
        return made[-1]

    yield build
    for provider in made:
        await provider.aclose()


@pytest.fixture(scope="session")
async def shared_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder, names = tmp_path_factory.mktemp("system"), (*PROVIDERS, "responses")
    system = System(folder, providers=names, configuration=RESPONSES, max_body_bytes=1024 * 1024)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def system(shared_system: System) -> AsyncIterator[System]:
    """Yield two gateways, two workers, a broker and a fake provider. All tests share them; each uses its own
    streams."""
    yield shared_system
    assert await shared_system.keys_without_expiry() == []


@pytest.fixture(scope="session")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield one gateway and one worker with :data:`IMPATIENT`, for tests of failing providers."""
    folder, names = tmp_path_factory.mktemp("impatient"), (*PROVIDERS, "responses")
    system = System(folder, gateways=1, workers=1, providers=names, configuration=RESPONSES, **IMPATIENT)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture(scope="session")
async def wire_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield one gateway and one worker with :data:`ONE_ATTEMPT`, for replays of providers' responses."""
    folder, names = tmp_path_factory.mktemp("wires"), (*PROVIDERS, "responses")
    system = System(folder, gateways=1, workers=1, providers=names, configuration=RESPONSES, **ONE_ATTEMPT)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def start_system(tmp_path: Path) -> AsyncIterator[StartSystem]:
    """Function that starts a system for one test; its options are those of :class:`System`, as ``window=8``. The only
    provider is OpenAI, unless the test names others."""
    started: list[System] = []

    async def start(**options: object) -> System:
        made: dict[str, Any] = {"providers": ("openai",), **options}
        system = System(tmp_path / f"system{len(started)}", **made)
        started.append(system)
        system.folder.mkdir()
        await system.start()
        return system

    try:
        yield start
        for system in started:
            assert await system.keys_without_expiry() == []
    finally:
        for system in started:
            await system.stop()
