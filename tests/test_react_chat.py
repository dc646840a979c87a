"""The example ``examples/react-chat``, built by Vite, survives reloads and a killed gateway in a real browser, and
its stop button works."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser import browser, need_browser
from tests.conformance.node import NODE
from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.system import REPOSITORY, System

FOLDER = REPOSITORY / "examples" / "react-chat"
MODEL = "react"
WORDS = ("Once ", "upon ", "a ", "time", ".")
TEXT = "".join(WORDS)


@asynccontextmanager
async def served(system: System, built: Path, port: int) -> AsyncIterator[str]:
    """Build and serve the page, and yield its address."""
    vite = FOLDER / "node_modules" / "vite" / "bin" / "vite.js"
    environment = {**os.environ, "HEADRACE_URL": system.url, "HEADRACE_MODEL": f"openai/{MODEL}"}
    build = await asyncio.create_subprocess_exec(
        str(NODE), vite, "build", "--outDir", built, "--logLevel", "error", cwd=FOLDER, env=environment
    )
    assert await build.wait() == 0
    options = ["--outDir", str(built), "--host", "127.0.0.1", "--port", str(port), "--strictPort"]
    preview = await asyncio.create_subprocess_exec(str(NODE), vite, "preview", *options, cwd=FOLDER, env=environment)

    async def answers() -> bool:
        try:
            return (await system.http.get(f"http://127.0.0.1:{port}")).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        await system.eventually(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        preview.kill()
        await preview.wait()


async def test_an_answer_survives_a_reload_and_a_killed_gateway_and_can_be_stopped(
    start_system: StartSystem, tmp_path: Path
) -> None:
    need_browser()
    port = free_port()
    system = await start_system(gateways=1, workers=1, cors_origins=f"http://127.0.0.1:{port}")
    gates = [asyncio.Event() for _ in range(3)]
    system.fake.play(MODEL, *(Answer(deltas=WORDS, gate=gate, gate_after=3) for gate in gates))
    async with served(system, tmp_path / "dist", port) as url:
        with browser() as driver:
            await _go_through(system, driver, url, gates)


async def _go_through(system: System, driver: Chrome, url: str, gates: list[asyncio.Event]) -> None:
    def answers() -> list[str]:
        script = "return [...document.querySelectorAll('article.assistant')].map((each) => each.textContent)"
        found: list[str] = driver.execute_script(script)
        return found

    async def shows(*expected: str) -> None:
        async def look() -> bool:
            return await asyncio.to_thread(answers) == list(expected)

        await system.eventually(look)

    async def ask() -> None:
        """Send a prompt like a person, who presses Enter again if the page was still busy."""
        field = await asyncio.to_thread(driver.find_element, By.TAG_NAME, "input")
        before = len(driver.find_elements(By.CSS_SELECTOR, "article.user"))
        await asyncio.to_thread(field.send_keys, "hi")

        def is_sent() -> bool:
            field.send_keys(Keys.ENTER)
            return len(driver.find_elements(By.CSS_SELECTOR, "article.user")) > before

        await system.eventually(lambda: asyncio.to_thread(is_sent))

    so_far = "".join(WORDS[:3])
    await _in_thread(lambda: driver.get(url))
    await ask()
    await shows(so_far)
    await _in_thread(driver.refresh)
    await shows(so_far)
    gates[0].set()
    await shows(TEXT)
    await _in_thread(driver.refresh)  # after the end: nothing is there twice
    await shows(TEXT)

    await ask()
    await shows(TEXT, so_far)
    system.gateways[0].signal(signal.SIGKILL)
    await system.gateways[0].wait()
    gates[1].set()
    system.gateways[0].start()
    await shows(TEXT, TEXT)

    await ask()
    await shows(TEXT, TEXT, so_far)
    await _in_thread(lambda: driver.find_element(By.XPATH, "//button[text()='Stop']").click())
    await system.fake.calls[-1].wait_closed()
    assert system.fake.calls[-1].closed_by_client
    await shows(TEXT, TEXT, so_far)
    assert len(system.fake.calls) == 3


async def _in_thread(call: Callable[[], object]) -> None:
    await asyncio.to_thread(call)
