"""A phone with its keyboard up: the prompt and the question that is edited stay in view. The panel folds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.answer import Answer
from tests.page.chat_page import ENDED, Page
from tests.system import System

#: The part of elements that is above the keyboard, from 0 to 1. `arguments`: the elements' selectors, its edge.
_IN_VIEW = """
return SELECTORS.map((selector) => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return Math.max(0, Math.min(box.bottom, EDGE) - Math.max(box.top, 0)) / box.height;
});
"""
#: What Safari does: the keyboard covers the page, and only the visual viewport is smaller.
_COVER = """
for (const [name, value] of [["height", 380], ["scale", 1]]) {
  Object.defineProperty(visualViewport, name, { configurable: true, get: () => value });
}
visualViewport.dispatchEvent(new Event("resize"));
"""
_UNCOVER = """
for (const name of ["height", "scale"]) delete visualViewport[name];
visualViewport.dispatchEvent(new Event("resize"));
return getComputedStyle(document.body).height;
"""


@pytest.fixture
async def phone(page: Page) -> AsyncIterator[Page]:
    await resize(page, 390, 800)
    yield page
    await asyncio.to_thread(page.driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})


async def resize(page: Page, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    await asyncio.to_thread(page.driver.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", size)


async def until_in_view(page: Page, edge: int, *selectors: str) -> None:
    script = _IN_VIEW.replace("SELECTORS", str(list(selectors))).replace("EDGE", str(edge))

    async def are_in_view() -> bool:
        return bool(min(await page.script(script)) > 0.99)

    await page.until(are_in_view)


async def test_the_prompt_and_an_edited_question_stay_above_the_keyboard(phone: Page, system: System) -> None:
    lines = "\n\n".join(f"Paragraph {i}." for i in range(40))
    system.fake.play("long", Answer(deltas=[lines]))
    await phone.ask("Count", model="openai/long")
    assert await phone.until_state(*ENDED) == "done"
    await asyncio.to_thread(phone.element("prompt").click)
    await resize(phone, 390, 360)  # the browser makes the page smaller
    await until_in_view(phone, 360, "#prompt", "#send", ".attach")
    await resize(phone, 390, 800)
    await phone.script(_COVER)
    await until_in_view(phone, 380, "#prompt", "#send", ".attach")
    assert await phone.script(_UNCOVER) == "800px"

    await phone.script("document.querySelector('.edit').click()")
    await phone.until(lambda: phone.script("return document.activeElement.closest('.editor') !== null"))
    await resize(phone, 390, 360)
    await until_in_view(phone, 360, ".editor textarea", ".editor [type=submit]")
    await resize(phone, 390, 800)
    await phone.script(_COVER)
    await until_in_view(phone, 380, ".editor textarea", ".editor [type=submit]")


async def test_the_connection_panel_folds_and_stays_folded(page: Page, system: System) -> None:
    system.fake.play("brief", Answer(deltas=["Brief."]))
    for is_open in (True, False, False):
        await page.ask("Hello", model="openai/brief")
        assert await page.until_state(*ENDED) == "done"
        assert await asyncio.to_thread(page.element("cut").is_displayed) == is_open
        assert await page.text_of("answer-state") == "done"
        assert await asyncio.to_thread(page.element("fold").get_attribute, "aria-expanded") == str(is_open).lower()
        if is_open:
            await page.click("fold")
        else:
            await page.reload()
            await page.until(page.models_are_there)
