"""The chat page in a real browser: what it shows is what the stream holds, however often the connection goes."""

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import pytest
import pytest_asyncio
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import browser, browser_missing
from tests.fakes.answer import Answer
from tests.system import System

WORDS = [f"word{i} " for i in range(400)]
SLOW = Answer(deltas=WORDS, delay_s=0.02)
BRIEF = Answer(deltas=WORDS[:200], delay_s=0.02)
ENDED = ("done", "error", "cancelled")


class Page:
    """The page as a user has it. Selenium blocks, so everything runs in a thread."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    async def open(self) -> None:
        await asyncio.to_thread(self.driver.get, self.url)
        await self.until(self._models_are_there)

    def element(self, test_id: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

    async def text_of(self, test_id: str) -> str:
        return await asyncio.to_thread(lambda: self.element(test_id).text)

    async def click(self, test_id: str) -> None:
        await asyncio.to_thread(lambda: self.element(test_id).click())

    async def script(self, source: str) -> Any:
        return await asyncio.to_thread(self.driver.execute_script, source)

    async def ask(self, prompt: str, *, model: str) -> None:
        await self.until(lambda: self._choose(model))
        await asyncio.to_thread(lambda: self.element("prompt").send_keys(prompt, Keys.ENTER))

    async def raw_text(self) -> str:
        return str(await self.script("return window.headraceText ?? ''"))

    async def figures(self) -> dict[str, int]:
        await asyncio.sleep(0.1)  # they are shown with the next frame
        return {name: int(await self.text_of(name)) for name in ("connections", "events", "duplicates")}

    async def entry(self) -> dict[str, Any]:
        """The newest stream in this browser's list."""
        stored = await self.script("return localStorage.getItem('headrace.streams')")
        newest: dict[str, Any] = json.loads(stored)[0]
        return newest

    async def status(self) -> dict[str, Any]:
        """What the gateway says of that stream, asked past the browser."""
        url = urljoin(self.url, (await self.entry())["statusUrl"])
        return await asyncio.to_thread(_get_json, url)

    async def until_state(self, *states: str, timeout_s: float = 25) -> str:
        seen = ""

        async def reached() -> bool:
            nonlocal seen
            seen = await self.text_of("answer-state")
            return seen in states

        await self.until(reached, timeout_s=timeout_s)
        return seen

    async def until_longer(self, than: int) -> None:
        async def is_longer() -> bool:
            return len(await self.raw_text()) > than

        await self.until(is_longer)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 15) -> None:
        async with asyncio.timeout(timeout_s):
            while not await condition():
                await asyncio.sleep(0.03)

    async def _models_are_there(self) -> bool:
        return await asyncio.to_thread(lambda: self.element("model").is_enabled())

    async def _choose(self, model: str) -> bool:
        """False, with the page loaded anew, while the model is not offered."""
        chosen = await asyncio.to_thread(self.driver.execute_script, _CHOOSE, model)
        if not chosen:
            await asyncio.sleep(0.3)
            await self.open()
        return bool(chosen)


_CHOOSE = """
const select = document.querySelector('[data-testid="model"]');
const ids = Array.from(select.options, (option) => option.value);
const any = arguments[0].split("/")[0] + "/*";
const value = [arguments[0], any].find((id) => ids.includes(id));
if (!value) return false;
select.value = value;
const name = document.querySelector('[data-testid="model-name"]');
if (value === any) name.value = arguments[0].slice(any.length - 1);
select.dispatchEvent(new Event("change"));
return true;
"""


def _get_json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: dict[str, Any] = json.load(response)
        return body


class CuttingProxy:
    """TCP between the browser and a gateway, whose connections can be cut as a network cuts them."""

    def __init__(self, upstream_url: str) -> None:
        self.upstream = urlsplit(upstream_url)
        self.refused = 0
        #: New connections are answered as a load balancer does during a deploy.
        self.is_deploying = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server:
            self._server.close()
        self.cut()
        while self._writers:
            await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> int:
        """How many connections there were."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        return len(writers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_deploying:
            self.refused += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # cut
        finally:
            self._writers.discard(writer)
            writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium() -> AsyncIterator[Chrome]:
    if missing := browser_missing():
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with ExitStack() as stack:
        driver = await asyncio.to_thread(stack.enter_context, browser())
        yield driver
        await asyncio.to_thread(stack.close)


@pytest.fixture
async def driver(chromium: Chrome) -> AsyncIterator[Chrome]:
    """The same browser for every test, each time without a past."""
    yield chromium
    everything = {"origin": "*", "storageTypes": "all"}
    await asyncio.to_thread(chromium.execute_cdp_cmd, "Storage.clearDataForOrigin", everything)
    await asyncio.to_thread(chromium.get, "about:blank")


@pytest.fixture
async def page(driver: Chrome, system: System) -> Page:
    page = Page(driver, system.gateways[0].url)
    await page.open()
    return page


async def test_an_answer_streams_to_its_end(page: Page) -> None:
    await page.ask("Hello, what is a headrace?", model="demo/demo")
    await page.until_longer(40)
    assert await page.text_of("answer")
    assert await page.until_state(*ENDED) == "done"

    status = await page.status()
    assert await page.raw_text() == status["text"] != ""
    assert (await page.figures())["connections"] == 1
    assert (await page.figures())["duplicates"] == 0
    log = await asyncio.to_thread(page.driver.get_log, "browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


async def test_a_cut_connection_costs_nothing(page: Page, system: System) -> None:
    system.fake.play("slow", SLOW)
    await page.ask("Count", model="openai/slow")
    for _ in range(3):
        await page.until_state("streaming")
        before = len(await page.raw_text())
        await page.until_longer(before)
        await page.click("cut")
        await page.until_state("reconnecting")
        assert len(await page.raw_text()) < len("".join(WORDS))
    assert await page.until_state(*ENDED) == "done"

    assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS)
    figures = await page.figures()
    assert (figures["connections"], figures["duplicates"]) == (4, 0)
    assert await page.text_of("last-id") == f"{(await page.text_of('last-id')).split('-')[0]}-{figures['events']}"


async def test_keep_cutting_cuts_by_itself(page: Page, system: System) -> None:
    system.fake.play("brief", BRIEF)
    await page.ask("Count", model="openai/brief")
    await page.script("document.querySelector('[data-testid=\"keep-cutting\"]').click()")
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == "".join(WORDS[:200])
    figures = await page.figures()
    assert figures["connections"] >= 2
    assert figures["duplicates"] == 0


async def test_a_lost_network_costs_nothing(driver: Chrome, system: System) -> None:
    system.fake.play("slow", SLOW)
    async with CuttingProxy(system.gateways[0].url) as proxy:
        page = Page(driver, proxy.url)
        await page.open()
        await page.ask("Count", model="openai/slow")
        for _ in range(3):
            await page.until_state("streaming")
            await page.until_longer(len(await page.raw_text()) + 20)
            assert proxy.cut() > 0
            await page.until_state("reconnecting")
        assert await page.until_state(*ENDED) == "done"

        assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS)
        figures = await page.figures()
        assert (figures["connections"], figures["duplicates"]) == (4, 0)


async def test_a_deploy_behind_a_load_balancer_costs_nothing(driver: Chrome, system: System) -> None:
    """A 502 makes EventSource give up for good; the page does not."""
    system.fake.play("brief", BRIEF)
    async with CuttingProxy(system.gateways[0].url) as proxy:
        page = Page(driver, proxy.url)
        await page.open()
        await page.ask("Count", model="openai/brief")
        await page.until_longer(50)
        proxy.is_deploying = True
        proxy.cut()
        await page.until(lambda: _is(lambda: proxy.refused >= 3))
        assert await page.text_of("answer-state") == "reconnecting"
        proxy.is_deploying = False
        assert await page.until_state(*ENDED) == "done"

        assert await page.raw_text() == "".join(WORDS[:200])
        assert (await page.figures())["duplicates"] == 0


async def _is(condition: Callable[[], bool]) -> bool:
    return condition()


async def test_stop_keeps_what_there_is(page: Page, system: System) -> None:
    system.fake.play("slow", SLOW)
    await page.ask("Count", model="openai/slow")
    await page.until_longer(50)
    await page.click("stop")
    assert await page.until_state(*ENDED) == "cancelled"

    status = await page.status()
    assert status["finish_reason"] == "cancelled"
    text = await page.raw_text()
    assert text == status["text"]
    assert 50 < len(text) < len("".join(WORDS))
    assert (await page.text_of("answer")).startswith("word0 word1")


HOSTILE = (
    "Look: <img src=x onerror=alert(1)> <b onclick=alert(2)>bold</b>\n\n",
    "<script>alert(3)</script>\n\n<iframe src='javascript:alert(4)'></iframe>\n\n<svg onload=alert(5)></svg>\n\n",
    "[run](javascript:alert(6)) [again](&#106;avascript:alert(7)) <a href='javascript:alert(8)'>raw</a> ",
    "[data](data:text/html,<script>alert(9)</script>)\n\n",
    '![spy](https://spy.example/?q=secret) ![x](x onerror=alert(10)) ["onmouseover=alert(11)//](https://a.example)\n\n',
    '[fine](https://fine.example/?a=1&b=2 "a title")\n',
)

_INSPECT = """
const all = [...document.querySelectorAll('.message *')];
return {
  tags: [...new Set(all.map((e) => e.tagName))],
  handlers: all.flatMap((e) => e.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style"),
  links: all.filter((e) => e.tagName === "A").map((e) => [e.getAttribute("href"), e.rel]),
};
"""


async def test_a_hostile_answer_is_only_text(page: Page, system: System) -> None:
    """Without the gateway's CSP, so that the page has to hold alone."""
    await asyncio.to_thread(page.driver.execute_cdp_cmd, "Page.setBypassCSP", {"enabled": True})
    try:
        await page.open()
        reasoning = ("<img src=x onerror=alert(12)>",)
        system.fake.play("hostile", Answer(deltas=HOSTILE, reasoning=reasoning, delay_s=0.05))
        await page.ask("<img src=x onerror=alert(13)>", model="openai/hostile")
        assert await page.until_state(*ENDED) == "done"
        await asyncio.sleep(0.3)
        with pytest.raises(NoAlertPresentException):
            await asyncio.to_thread(lambda: page.driver.switch_to.alert)
    finally:
        await asyncio.to_thread(page.driver.execute_cdp_cmd, "Page.setBypassCSP", {"enabled": False})

    assert await page.raw_text() == "".join(HOSTILE)
    shown = await page.text_of("answer")
    assert "<script>alert(3)</script>" in shown
    found = await page.script(_INSPECT)
    assert not {"IMG", "SCRIPT", "IFRAME", "SVG", "svg", "B"} & set(found["tags"])
    assert found["handlers"] == []
    links = {href: rel for href, rel in found["links"] if href}
    assert set(links) == {"https://spy.example/?q=secret", "https://a.example", "https://fine.example/?a=1&b=2"}
    assert all("noopener" in rel for rel in links.values())


async def test_a_reload_reads_on_and_the_list_reopens(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=WORDS[:100], delay_s=0.02))
    await page.ask("Count to a hundred", model="openai/brief")
    await page.until_longer(50)
    await page.open()  # in the middle
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == "".join(WORDS[:100])

    await page.open()
    await page.click("new-chat")
    assert await page.text_of("history-item") != ""
    assert await page.script("return document.querySelectorAll('.message').length") == 0
    await page.click("history-item")
    assert await page.until_state(*ENDED) == "done"
    assert await page.raw_text() == (await page.status())["text"] == "".join(WORDS[:100])
    assert "word99" in await page.text_of("answer")
    assert (await page.entry())["title"] == "Count to a hundred"


async def test_a_deleted_stream_says_so(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=WORDS[:5]))
    await page.ask("Count", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    url = f"{page.url}/chat/{(await page.entry())['id']}"
    delete = urllib.request.Request(url, method="DELETE")
    await asyncio.to_thread(lambda: urllib.request.urlopen(delete, timeout=10).close())

    await page.click("new-chat")
    await page.click("history-item")
    assert await page.until_state(*ENDED) == "error"
    assert "deleted" in await page.text_of("problem")


async def test_an_error_of_the_stream_is_not_a_lost_connection(page: Page, system: System) -> None:
    system.fake.play("busy", Answer(status=429))
    await page.ask("Hello", model="openai/busy")
    assert await page.until_state(*ENDED) == "error"
    assert "provider_rate_limited" in await page.text_of("problem")
    assert (await page.figures())["connections"] == 1
    assert (await page.status())["finish_reason"] == "error"


async def test_a_conversation_carries_what_was_said(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["One."]))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    await page.ask("Second", model="openai/brief")
    calls = await system.fake.wait_calls(len(system.fake.calls) or 1)
    await page.until(lambda: _is(lambda: calls[-1].prompt == "Second"))
    said = [(m["role"], m["content"]) for m in calls[-1].request["messages"]]
    assert said == [("user", "First"), ("assistant", "One."), ("user", "Second")]
