"""Processes that have read different files: the newest one counts for all, and the others are marked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.browser import browser, browser_missing
from tests.cli import finish, headrace
from tests.system import Process, System
from tests.test_ops import OpsPage

FILE = """
[providers.second]
kind = "demo"
concurrent_streams = {limit}
"""


@pytest.fixture
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("configurations")
    (folder / "old.toml").write_text(FILE.format(limit=1))
    (folder / "new.toml").write_text(FILE.format(limit=2))
    config = folder / "old.toml"
    system = System(folder, gateways=1, workers=1, providers=("second",), config=config, demo_tokens_per_s=2)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def marks(system: System) -> dict[str, bool]:
    """Return the processes of the overview, by kind and number, and whether they are marked."""
    seen: dict[str, Any] = (await system.http.get(f"{system.url}/ops/overview")).json()
    processes = [(kind, each) for kind in ("gateway", "worker") for each in seen[f"{kind}s"]]
    return {f"{kind} {each['pid']}": each["other_configuration"] for kind, each in processes}


async def marks_on_page(system: System) -> list[str]:
    """Return the processes that the operators' page marks, as a browser shows them."""
    script = """
        return Array.from(document.querySelectorAll("#processes .process"))
          .filter((process) => process.querySelector(".draining")?.textContent === "other configuration")
          .map((process) => process.dataset.kind);
    """
    with ExitStack() as stack:
        page = OpsPage(await asyncio.to_thread(stack.enter_context, browser()))
        await page.open(f"{system.url}/ops")
        await page.until("#processes", "other configuration")
        found = await asyncio.to_thread(page.driver.execute_script, script)
        await asyncio.to_thread(stack.close)
    return sorted(found)


async def test_the_newest_file_counts_for_all_and_the_others_are_marked(system: System) -> None:
    old = {f"gateway {system.gateways[0].pid}", f"worker {system.workers[0].pid}"}

    async def all_agree() -> bool:
        return await marks(system) == dict.fromkeys(old, False)

    await system.eventually(all_agree)
    environment = system.workers[0].environment | {"HEADRACE_CONFIG": str(system.folder / "new.toml")}
    newer = Process("worker.2", ["worker"], environment, system.folder / "worker.2.log")
    newer.start()
    system.workers.append(newer)

    async def are_marked() -> bool:
        return await marks(system) == dict.fromkeys(old, True) | {f"worker {newer.pid}": False}

    await system.eventually(are_marked, timeout_s=100)
    shown = await finish(await headrace("top", "--once", "--url", system.url))
    assert shown.out.count("other configuration") == 2
    if browser_missing() is None:  # tests/test_ops.py fails in CI without one
        assert await marks_on_page(system) == ["gateway", "worker"]

    async def is_warned() -> bool:
        logs = [process.log.read_text() for process in (*system.gateways, *system.workers)]
        return ["configuration differs" in log for log in logs] == [True, True, False]

    await system.eventually(is_warned)
    newer.stop()  # the old worker alone keeps to the new limit

    ids = [await system.post("demo", "200 words", provider="second") for _ in range(3)]

    async def two_run() -> bool:
        positions = [(await system.status(stream_id))["position"] for stream_id in ids]
        return positions.count(None) == 2 and 1 in positions

    await system.eventually(two_run)
    assert await system.keys_without_expiry() == []
