"""States that need a system of their own: keys, a queue, dead workers, links, the operators' page. The page says the
right words in each, and axe-core finds no violation."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, boot_credentials, make_key
from tests.fakes.answer import Answer
from tests.page.axe import need_axe, violations
from tests.page.chat_page import ENDED, OTHER_NAME, Page
from tests.system import System

_SCOPES = "chat,read,cancel,admin"


class Visit:
    """A user's visit to the pages of one gateway, with one browser."""

    def __init__(self, driver: Chrome, system: System, key: str) -> None:
        self.driver = driver
        self.system = system
        self.key = key
        self.page = Page(driver, system.url)

    async def shows(self, test_id: str, words: str) -> None:
        async def is_there() -> bool:
            return words in await self.page.text_of(test_id)

        await self.page.until(is_there, timeout_s=40)

    async def sees(self, selector: str) -> None:
        script = f"return document.querySelector('{selector}')?.checkVisibility() ?? false"
        await self.page.until(lambda: self.page.script(script), timeout_s=40)

    async def type(self, test_id: str, *keys: str) -> None:
        await asyncio.to_thread(lambda: self.page.element(test_id).send_keys(*keys))

    async def is_accessible(self, state: str) -> None:
        assert await violations(self.page, state) == {}, state


@pytest.mark.timeout(900)  # a minute is usual; axe-core takes the whole of a processor
async def test_every_state_is_named_and_accessible(driver: Chrome, start_system: StartSystem) -> None:
    need_axe()
    system = await start_system(
        gateways=1,
        workers=1,
        auth="keys,jwt",
        concurrency=1,
        retry_longest_wait_s=300,
        providers=("openai", "anthropic"),
        credentials=boot_credentials(),
        **JWT_SETTINGS,
    )
    visit = Visit(driver, system, await make_key(system, "alice", "--scopes", _SCOPES))
    steps: tuple[Callable[[Visit], Awaitable[None]], ...] = (
        key_dialog,
        no_worker,
        queue,
        lost_worker,
        taken,
        options_and_json,
        share_dialog,
        operators_page,
        description,
    )
    for step in steps:
        await step(visit)


async def key_dialog(visit: Visit) -> None:
    await asyncio.to_thread(visit.driver.get, visit.system.url)
    await visit.sees("#login[open]")
    await visit.is_accessible("key dialog")
    await visit.type("key", "hr-000000000000-wrong", Keys.ENTER)
    await visit.shows("key-problem", "is unknown or was revoked")
    await visit.is_accessible("wrong key")
    await visit.type("key", visit.key, Keys.ENTER)
    await visit.page.until(visit.page.models_are_there)
    await visit.is_accessible("new chat")


async def no_worker(visit: Visit) -> None:
    worker = visit.system.workers[0]
    worker.signal(signal.SIGTERM)
    await worker.wait()
    visit.system.fake.play("brief", Answer(deltas=["A short answer."]))
    await visit.page.ask("Is anybody there?", model="openai/brief")
    await visit.shows("note", "no worker is running")
    assert await visit.page.text_of("answer-state") == "queued"
    await visit.is_accessible("no worker")
    worker.start()
    assert await visit.page.until_state(*ENDED, timeout_s=60) == "done"


async def queue(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.system.fake.play("held", Answer(deltas=["Later."], gate=gate))
    before = len(visit.system.fake.calls)
    first = await visit.system.post("held")
    await visit.system.fake.wait_calls(before + 1)
    await visit.page.ask("Next, please", model="openai/brief")
    await visit.shows("note", "number 1 in the queue")
    await visit.is_accessible("queued")
    gate.set()
    assert await visit.page.until_state(*ENDED) == "done"
    await visit.system.ended(first)


async def lost_worker(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.system.fake.play("thinking", Answer(deltas=["At last."], gate=gate))
    await visit.page.ask("Think about it", model="openai/thinking")
    await visit.shows("note", "waiting for the model")
    await visit.is_accessible("model")
    worker = visit.system.workers[0]
    worker.stop()
    await visit.shows("note", "the worker was lost; another one takes over")
    await visit.is_accessible("worker lost")
    gate.set()
    worker.start()
    assert await visit.page.until_state(*ENDED, timeout_s=60) == "done"
    assert await visit.page.text_of("answer") == "At last."


async def taken(visit: Visit) -> None:
    """The worker waits before its next call, as the provider has asked for."""
    visit.system.fake.play("limited", Answer(status=429, retry_after="300"), Answer(deltas=["Now."]))
    await visit.page.ask("Hurry", model="anthropic/limited")
    await visit.shows("note", "a worker prepares the request")
    await visit.is_accessible("taken")
    await visit.page.click("stop")
    assert await visit.page.until_state(*ENDED, timeout_s=60) == "cancelled"


async def options_and_json(visit: Visit) -> None:
    visit.system.fake.play("scenes", Answer(deltas=['{"title": "The mill", "scenes": [{"place": "lake"}]}']))
    await visit.page.answer_as("JSON by schema", "{oops")
    await visit.type("prompt", "Scenes", Keys.ENTER)
    await visit.sees('[data-testid="schema-problem"]:not(:empty)')
    await visit.is_accessible("options")
    await visit.page.script("document.getElementById('prompt').value = ''")
    await visit.page.answer_as("JSON")
    await visit.page.ask("Scenes", model="openai/scenes")
    assert await visit.page.until_state(*ENDED) == "done"
    await visit.page.script("document.querySelector('.raw').open = true")
    await visit.is_accessible("JSON")
    await visit.page.answer_as("text")


async def share_dialog(visit: Visit) -> None:
    """Under a name that is not one of loopback, as a QR code of a loopback address would open nothing."""
    page = Page(visit.driver, f"http://{OTHER_NAME}:{visit.system.gateways[0].port}")
    await asyncio.to_thread(visit.driver.get, page.url)
    await visit.sees("#login[open]")
    await visit.type("key", visit.key, Keys.ENTER)
    await page.until(page.models_are_there)
    await visit.sees("#history li")
    await asyncio.to_thread(lambda: visit.driver.find_element(By.CSS_SELECTOR, "#history .open").click())
    await visit.sees(".message.assistant footer")
    await visit.is_accessible("stored chat")
    await page.click("share")
    await visit.sees("#share-code svg")
    await visit.is_accessible("share dialog")
    await page.click("share-close")
    await page.script("document.getElementById('menu').click()")
    await visit.is_accessible("list of chats")


async def operators_page(visit: Visit) -> None:
    gate = asyncio.Event()
    visit.system.fake.play("told", Answer(deltas=["One.", "Two."], gate=gate, gate_after=1))
    stream_id = await visit.system.post("told")
    await asyncio.to_thread(visit.driver.get, f"{visit.system.url}/ops")
    await visit.sees(f'tr[data-id="{stream_id}"]')
    await visit.is_accessible("operations")
    await both_classes(visit)
    await asyncio.to_thread(
        lambda: visit.driver.find_element(By.CSS_SELECTOR, f'tr[data-id="{stream_id}"] button').click()
    )
    await visit.shows("timeline", "first token")
    await visit.is_accessible("operations, a stream")
    gate.set()
    await visit.shows("timeline", "ended")
    await visit.page.click("close")
    await visit.page.click("list-ended")
    await visit.is_accessible("operations, ended")
    await visit.page.click("forget-key")
    await visit.sees("#login[open]")
    await visit.is_accessible("operations, key dialog")


async def both_classes(visit: Visit) -> None:
    """The only slot is taken. Batch streams wait alone, and then behind an interactive one."""

    async def waiting(*words: str) -> None:
        script = "return document.querySelector('.figure:has([data-testid=\"figure-waiting\"])').textContent"

        async def is_shown() -> bool:
            shown = await visit.page.script(script)
            return all(each in shown for each in words)

        await visit.page.until(is_shown, timeout_s=40)

    batch = [await visit.system.post("brief", priority="batch") for _ in range(2)]
    await waiting("2the oldest for", "s2 batch")
    await visit.is_accessible("operations, batch streams wait")
    interactive = await visit.system.post("brief")
    await waiting("3oldest interactive: ", "1 interactive", "2 batch")
    for stream_id, name in ((batch[0], "batch"), (interactive, "interactive")):
        cell = f"return document.querySelector('tr[data-id=\"{stream_id}\"]').children[2].textContent"
        assert await visit.page.script(cell) == name
    await visit.is_accessible("operations, both classes wait")


async def description(visit: Visit) -> None:
    """Only the page around the vendored viewer is ours."""
    await asyncio.to_thread(visit.driver.get, f"{visit.system.url}/docs")
    await visit.sees("#api .information-container")
    await visit.is_accessible("description")
