"""One real system for all tests that need nothing special; others start their own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.system import System

StartSystem = Callable[..., Awaitable[System]]


@pytest.fixture(scope="session")
async def shared_system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("system"))
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def system(shared_system: System) -> AsyncIterator[System]:
    """Two gateways, two workers, a broker and a fake provider, shared by all tests: each uses its own streams."""
    yield shared_system
    assert await shared_system.keys_without_expiry() == []


@pytest.fixture
async def start_system(tmp_path: Path) -> AsyncIterator[StartSystem]:
    """Starts a system of the test's own: ``await start_system(gateways=1, workers=1, window=8)``."""
    started: list[System] = []

    async def start(**options: object) -> System:
        system = System(tmp_path / f"system{len(started)}", **options)  # type: ignore[arg-type]
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
