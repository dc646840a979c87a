"""A chat, or one answer of it, opens on another device by a link or a QR code, in the middle of an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest_asyncio
from selenium.webdriver import Chrome, Keys

from tests.browser import browser
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, boot_credentials, make_key
from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, OTHER_NAME, OTHER_NAME_FLAG, WORDS, Page
from tests.page.qr_decoder import decode
from tests.system import System

#: The modules of the QR code as a browser draws them, without the margin.
_MODULES = """
const finish = arguments[0];
const svg = document.querySelector("#share-code svg").cloneNode(true);
const { width: size } = svg.viewBox.baseVal;
const scale = 3;
svg.setAttribute("width", size * scale);
svg.setAttribute("height", size * scale);
const image = new Image();
image.onload = () => {
  const canvas = new OffscreenCanvas(size * scale, size * scale).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const isDark = (x, y) => canvas.getImageData((x + 0.5) * scale, (y + 0.5) * scale, 1, 1).data[0] < 128;
  const places = Array.from({ length: size - 8 }, (_, at) => at + 4);
  finish(places.map((y) => places.map((x) => isDark(x, y))));
};
image.src = "data:image/svg+xml," + encodeURIComponent(new XMLSerializer().serializeToString(svg));
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def phone() -> AsyncIterator[Chrome]:
    """A browser of its own, as narrow as a phone."""
    with ExitStack() as stack:
        flags = (OTHER_NAME_FLAG, "--window-size=360,740")
        yield await asyncio.to_thread(stack.enter_context, browser(*flags))
        await asyncio.to_thread(stack.close)


async def open_dialog(page: Page) -> str:
    """Open the dialog, and return its link."""
    await page.click("share")

    async def has_link() -> bool:
        return bool(await link_of(page))

    await page.until(has_link)
    return await link_of(page)


async def link_of(page: Page) -> str:
    return str(await page.script("return document.getElementById('share-link').value"))


async def scanned(page: Page) -> str:
    """The text of the QR code on the screen."""
    return decode(await asyncio.to_thread(page.driver.execute_async_script, _MODULES))


async def follow(link: str, driver: Chrome) -> Page:
    """Open a link on the other device."""
    parts = urlsplit(link)
    page = Page(driver, f"{parts.scheme}://{parts.netloc}")
    await page.visit(f"#{parts.fragment}")
    return page


async def test_without_keys_the_address_of_the_chat_is_enough(page: Page, system: System, phone: Chrome) -> None:
    gate = asyncio.Event()
    system.fake.play("brief", Answer(deltas=["Brief."]))
    system.fake.play("long", Answer(deltas=WORDS[:30], gate=gate, gate_after=10))
    await page.ask("First", model="openai/brief")
    assert await page.until_state(*ENDED) == "done"
    await page.ask("Second", model="openai/long")
    await page.until_longer(30)
    link = await open_dialog(page)
    assert link == f"{page.url}/#{await page.fragment()}"
    assert "requires no key" in await page.text_of("share-about")
    assert "Another device cannot open this link" in await page.text_of("share-warning")  # it is one of loopback
    assert "headrace up --host" in await page.text_of("share-warning")
    assert await page.script("return document.querySelector('#share-code svg')") is None
    await asyncio.to_thread(lambda: page.driver.switch_to.active_element.send_keys(Keys.ESCAPE))
    assert await page.script("return document.activeElement.id") == "share"
    assert await link_of(page) == ""

    other = await follow(link, phone)
    await other.until_longer(30)
    await other.until_state("streaming")
    gate.set()
    for device in (page, other):
        assert await device.until_state(*ENDED) == "done"
        assert await device.raw_text() == "".join(WORDS[:30])
        assert [turn[0] for turn in await device.turns()] == ["First", "Second"]
    await other.until(other.models_are_there)
    assert await other.script("return document.documentElement.scrollWidth <= innerWidth")
    await other.ask("Third, from the phone", model="openai/brief")
    assert await other.until_state(*ENDED) == "done"
    await page.script("window.dispatchEvent(new Event('focus'))")

    async def has_third() -> bool:
        return len(await page.turns()) == 3

    await page.until(has_third)
    await asyncio.to_thread(phone.get, "about:blank")


async def test_a_link_reads_one_answer_without_a_key(
    driver: Chrome, phone: Chrome, start_system: StartSystem
) -> None:
    system = await start_system(
        gateways=1, workers=1, auth="keys,jwt", credentials=boot_credentials(), **JWT_SETTINGS
    )
    key = await make_key(system, "alice")
    gate = asyncio.Event()
    system.fake.play("told", Answer(deltas=["canary"]))
    system.fake.play("long", Answer(deltas=WORDS[:30], gate=gate, gate_after=10))
    page = Page(driver, f"http://{OTHER_NAME}:{system.gateways[0].port}")
    await asyncio.to_thread(driver.get, page.url)
    await page.until(lambda: _is_shown(page, "use-key"))
    await asyncio.to_thread(page.element("key").send_keys, key, Keys.ENTER)
    await page.until(page.models_are_there)
    await page.ask("A canary", model="openai/told")
    assert await page.until_state(*ENDED) == "done"
    await page.ask("Tell me", model="openai/long")
    await page.until_longer(30)

    link = await open_dialog(page)
    assert await page.text_of("share-warning") == ""
    assert "can read this answer" in await page.text_of("share-about")
    assert "until " in await page.text_of("share-about")
    assert "ticket=" in link
    assert key not in link
    assert await scanned(page) == link

    other = await follow(link, phone)
    await other.until_longer(30)
    await other.until_state("streaming")
    assert not await _is_shown(other, "prompt")
    assert not await _is_shown(other, "key")
    gate.set()
    assert await other.until_state(*ENDED) == "done"
    assert await other.raw_text() == "".join(WORDS[:30])
    assert "canary" not in await other.script("return document.documentElement.textContent")

    await page.click("share-chat")

    async def is_other_link() -> bool:
        return (await link_of(page)) not in ("", link)

    await page.until(is_other_link)
    chat = await link_of(page)
    assert chat == f"{page.url}/#{await page.fragment()}"
    assert await scanned(page) == chat
    assert "asks for one" in await page.text_of("share-about")
    await page.click("share-close")
    await follow(chat, phone)
    await other.until(lambda: _is_shown(other, "key"))  # the whole chat is for its owner
    assert "canary" not in await other.script("return document.documentElement.textContent")
    await asyncio.to_thread(other.element("key").send_keys, key, Keys.ENTER)

    async def has_both() -> bool:
        return [turn[0] for turn in await other.turns()] == ["A canary", "Tell me"]

    await other.until(has_both)
    await asyncio.to_thread(phone.get, "about:blank")


async def _is_shown(page: Page, test_id: str) -> bool:
    return await asyncio.to_thread(page.element(test_id).is_displayed)
