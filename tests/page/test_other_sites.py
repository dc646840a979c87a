"""Pages of other sites, in a real Chromium, start and read nothing on a gateway without authentication."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from selenium.webdriver import Chrome

from tests.browser import browser, need_browser
from tests.conformance.node import NODE
from tests.fakes.answer import Answer
from tests.page.other_sites import ATTEMPTS, other_site
from tests.ports import free_port
from tests.system import REPOSITORY, System, ask

VITE = REPOSITORY / "examples" / "react-chat" / "node_modules" / "vite" / "bin" / "vite.js"
#: The browser's own barrier between public sites and this machine is taken away: not every browser has it.
FLAGS = (
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights",
)
SECRET_TEXT = "canary"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacker() -> AsyncIterator[Chrome]:
    need_browser()
    with ExitStack() as stack:
        driver = await asyncio.to_thread(stack.enter_context, browser(*FLAGS))
        yield driver
        await asyncio.to_thread(stack.close)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site() -> AsyncIterator[int]:
    async with other_site() as port:
        yield port


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacked(tmp_path_factory: pytest.TempPathFactory, site: int) -> AsyncIterator[System]:
    """One gateway without authentication, which lists one other origin."""
    system = System(
        tmp_path_factory.mktemp("attacked"),
        gateways=1,
        workers=1,
        providers=("openai",),
        cors_origins=f"http://friend.example:{site}",
    )
    system.fake.play("held", *[Answer(deltas=(f"{SECRET_TEXT} ",) * 5, end="hang")] * 20)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def attempt(driver: Chrome, page: str, system: System, host: str, stream_id: str) -> dict[str, str]:
    """Make all attempts from ``page``, one after the other, and return the texts that it could read."""
    body = json.dumps(ask("csrf", "hi", metadata={"a": "="}))
    script = f"""
      const [url, stream, chat, done] = arguments;
      const attempts = (() => {{ {ATTEMPTS} }})();
      (async () => {{
        const read = {{}};
        for (const [name, attempt] of Object.entries(attempts)) read[name] = await attempt();
        done(read);
      }})();
    """

    def run() -> Any:
        driver.get(page)
        return driver.execute_async_script(script, f"http://{host}:{system.gateways[0].port}", stream_id, body)

    read: dict[str, str] = await asyncio.to_thread(run)
    return read


async def streams_of(system: System) -> dict[str, str]:
    listed = (await system.http.get(f"{system.url}/chat", params={"limit": 100})).json()["streams"]
    return {stream["stream_id"]: stream["status"] for stream in listed}


async def held_stream(system: System) -> str:
    """Start a stream that runs until it is cancelled."""
    stream_id = await system.post("held", on_disconnect="continue")
    await system.eventually(lambda: system.field(stream_id, "started"))
    return stream_id


def refusals(system: System) -> int:
    lines = [json.loads(line) for line in system.gateways[0].log.read_text().splitlines()]
    return sum(line["event"] == "request" and line["status"] == 403 for line in lines)


@pytest.mark.parametrize(
    ("page", "host"),
    [
        ("evil.example", "localhost"),
        ("evil.example", "127.0.0.1"),
        ("localhost", "localhost"),  # another port of the same site
        ("127.0.0.1", "localhost"),
    ],
)
async def test_another_page_starts_cancels_and_reads_nothing(
    attacker: Chrome, attacked: System, site: int, page: str, host: str
) -> None:
    stream_id = await held_stream(attacked)
    before, refused = await streams_of(attacked), refusals(attacked)
    read = await attempt(attacker, f"http://{page}:{site}/", attacked, host, stream_id)
    assert {name for name, text in read.items() if text} == set()

    async def is_refused() -> bool:
        """Each attempt reached the gateway, and all but the opened window were refused there."""
        return refusals(attacked) - refused == len(read) - 1

    await attacked.eventually(is_refused)
    after = await streams_of(attacked)
    assert after.keys() == before.keys()
    assert before[stream_id] == after[stream_id] == "running"  # older ones may have timed out meanwhile


async def test_the_same_attempts_succeed_from_a_listed_origin(attacker: Chrome, attacked: System, site: int) -> None:
    """The attempts themselves work, so their failure elsewhere is the gateway's doing."""
    stream_id = await held_stream(attacked)
    before = await streams_of(attacked)
    read = await attempt(attacker, f"http://friend.example:{site}/", attacked, "localhost", stream_id)
    for name in ("fetchText", "fetchJson", "list", "eventSource"):
        assert read[name], name
    assert SECRET_TEXT in read["eventSource"]

    async def have_begun() -> bool:
        """Return True with the streams of form, opaque, fetchText, fetchJson and beacon. Pages wait for no beacon."""
        after = await streams_of(attacked)
        return len(after) - len(before) == 5 and after[stream_id] == "cancelled"

    await attacked.eventually(have_begun)


async def test_the_own_page_works(attacker: Chrome, attacked: System) -> None:
    stream_id = await held_stream(attacked)
    for host in ("localhost", "127.0.0.1"):
        own = f"http://{host}:{attacked.gateways[0].port}"
        assert await calls_from(attacker, own, stream_id) == [202, 200, True]


async def calls_from(driver: Chrome, page: str, stream_id: str) -> list[Any]:
    """Return the results of calls by a page whose own server has the gateway's paths."""
    script = """
      const [chat, stream, done] = arguments;
      (async () => {
        const post = await fetch("/chat",
          {method: "POST", headers: {"Content-Type": "application/json"}, body: chat});
        const list = await fetch("/chat");
        const source = new EventSource(`/chat/stream/${stream}`);
        source.addEventListener("token", () => { source.close(); done([post.status, list.status, true]); });
        source.onerror = () => { source.close(); done([post.status, list.status, false]); };
      })();
    """

    def run() -> Any:
        driver.get(page)
        return driver.execute_async_script(script, json.dumps(ask("csrf")), stream_id)

    result: list[Any] = await asyncio.to_thread(run)
    return result


@asynccontextmanager
async def vite(system: System, folder: Path, target: str) -> AsyncIterator[str]:
    """Run Vite's development server, which forwards ``/chat`` to the gateway."""
    (folder / "index.html").write_text("<!doctype html><title>app</title><body></body>")
    config = folder / "vite.config.mjs"
    config.write_text(f"export default {{ server: {{ proxy: {{ '/chat': {target} }} }} }};")
    port = free_port()
    options = ("--host", "127.0.0.1", "--port", str(port), "--strictPort", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        str(NODE), str(VITE), str(folder), *options, env={**os.environ, "NO_COLOR": "1"}
    )

    async def answers() -> bool:
        try:
            return (await system.http.get(f"http://127.0.0.1:{port}/")).status_code == 200
        except httpx2.TransportError:
            return False

    try:
        await system.eventually(answers, timeout_s=60)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("options", ["'URL'", "{ target: 'URL' }"])  # the first replaces Host, the second keeps it
async def test_a_page_of_a_development_server_works(
    attacker: Chrome, attacked: System, tmp_path: Path, options: str
) -> None:
    if not VITE.exists():
        pytest.skip("needs examples/react-chat; npm ci")
    stream_id = await held_stream(attacked)
    async with vite(attacked, tmp_path, options.replace("URL", attacked.url)) as url:
        assert await calls_from(attacker, url, stream_id) == [202, 200, True]
