"""The chat page as a user sees it, driven by Selenium."""

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from tests.fakes.answer import Answer, ToolCall

WORDS = [f"word{i} " for i in range(400)]
BRIEF = Answer(deltas=WORDS[:200], delay_s=0.02)
#: A tool call whose arguments have no end yet.
HALF_CALL = ToolCall("c1", "get_weather", ('{"city": ', '"Bé'))
#: A name of this machine in the test's browser that is not one of loopback.
OTHER_NAME = "headrace.test"
OTHER_NAME_FLAG = f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1"
ENDED = ("done", "error", "cancelled")


class Page:
    """The page in a browser. Selenium blocks, so everything runs in a thread."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    async def open(self) -> None:
        await asyncio.to_thread(self.driver.get, self.url)
        await self.until(self.models_are_there)

    def element(self, test_id: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

    async def text_of(self, test_id: str) -> str:
        return await asyncio.to_thread(lambda: self.element(test_id).text)

    async def click(self, test_id: str) -> None:
        await asyncio.to_thread(lambda: self.element(test_id).click())

    async def script(self, source: str) -> Any:
        return await asyncio.to_thread(self.driver.execute_script, source)

    async def answer_as(self, form: str, schema: str | None = None) -> None:
        """Choose the form of the answer in the options: ``text``, ``JSON`` or ``JSON by schema``."""

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
        """Open a stream that another client created, by its address."""
        await self.visit(f"#stream={stream_id}")
        assert await self.until_state(*ENDED) == "done"

    async def visit(self, fragment: str) -> None:
        """Open an address of the page in a new document."""
        await asyncio.to_thread(self.driver.get, "about:blank")
        await asyncio.to_thread(self.driver.get, f"{self.url}/{fragment}")

    async def reload(self) -> None:
        await asyncio.to_thread(self.driver.refresh)

    async def fragment(self) -> str:
        """The part of the address after ``#``."""
        return str(await self.script("return location.hash.slice(1)"))

    async def turns(self) -> list[list[str]]:
        """The question, answer and state of each turn on the screen. A turn that streams and is silent counts as one
        that streams: how long a test holds its answer depends on the machine."""
        shown: list[list[str]] = await self.script(_TURNS)
        return [[question, answer, _without_silence(state)] for question, answer, state in shown]

    async def titles(self) -> list[str]:
        """The listed chats."""
        listed: list[str] = await self.script(
            "return Array.from(document.querySelectorAll('#history .title'), (title) => title.textContent)"
        )
        return listed

    async def figures(self) -> dict[str, int]:
        await asyncio.to_thread(self.driver.execute_async_script, _NEXT_FRAME)  # figures are updated with it
        return {name: int(await self.text_of(name)) for name in ("connections", "events", "duplicates")}

    async def stream_id(self) -> str:
        """The stream of the last answer."""
        return str(await self.script(f"return {_LAST_TURN}.dataset.stream"))

    async def status(self) -> dict[str, Any]:
        """Return the gateway's status of that stream, without the browser."""
        return await asyncio.to_thread(_get_json, urljoin(self.url, f"/chat/{await self.stream_id()}"))

    async def until_state(self, *states: str, timeout_s: float = 60) -> str:
        """Wait until the last turn has one of these states, and return it. ``streaming`` includes ``waiting``."""
        states = (*states, *(["waiting"] if "streaming" in states else []))
        seen = ""

        async def reached() -> bool:
            nonlocal seen
            seen = str(await self.script(f"return {_LAST_TURN}?.dataset.state ?? ''"))
            return seen in states

        await self.until(reached, timeout_s=timeout_s)
        return seen

    async def until_longer(self, than: int) -> None:
        async def is_longer() -> bool:
            return len(await self.raw_text()) > than

        await self.until(is_longer)

    async def until(self, condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 60) -> None:
        async with asyncio.timeout(timeout_s):
            while not await condition():
                await asyncio.sleep(0.03)

    async def models_are_there(self) -> bool:
        return await asyncio.to_thread(lambda: self.element("model").is_enabled())

    async def _choose(self, model: str) -> bool:
        """Choose the model. If it is not offered yet, reload the page and return False."""
        chosen = await asyncio.to_thread(self.driver.execute_script, _CHOOSE, model)
        if not chosen:
            await asyncio.sleep(0.3)
            await self.open()
        return bool(chosen)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The visible parts of the newest answer. ``calls``: each tool's name and arguments."""

    tree: str
    raw: str
    calls: list[list[str]]
    reasoning: str
    refusal: str
    footer: str

    @property
    def value(self) -> Any:
        return json.loads(self.tree or "null")


_NEXT_FRAME = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
_LAST_TURN = "[...document.querySelectorAll('.turn')].at(-1)"
_TURNS = """
return Array.from(document.querySelectorAll(".turn"), (turn) => [
  turn.querySelector(".bubble")?.textContent ?? "",
  turn.querySelector(".assistant .body").textContent.trim(),
  turn.dataset.state,
]);
"""
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
    with urllib.request.urlopen(url, timeout=60) as response:
        body: dict[str, Any] = json.load(response)
        return body


async def holds(condition: Callable[[], bool]) -> bool:
    return condition()


INSPECT = """
const all = [...document.querySelectorAll('.message *')];
return {
  tags: [...new Set(all.map((e) => e.tagName))],
  handlers: all.flatMap((e) => e.getAttributeNames()).filter((name) => name.startsWith("on") || name === "style"),
  links: all.filter((e) => e.tagName === "A").map((e) => [e.getAttribute("href"), e.rel]),
};
"""


def _without_silence(state: str) -> str:
    return "streaming" if state == "waiting" else state
