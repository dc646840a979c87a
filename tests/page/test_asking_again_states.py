"""The editor, images and branches of the chat page have no violation that axe-core finds."""

from pathlib import Path

import pytest

from tests.fakes.answer import Answer
from tests.page.axe import need_axe, violations
from tests.page.chat_page import ENDED, Page
from tests.page.test_images import choose, png
from tests.system import System


@pytest.mark.timeout(300)  # axe-core takes the whole of a processor
async def test_no_state_of_asking_again_has_a_violation(page: Page, system: System, tmp_path: Path) -> None:
    need_axe()
    system.fake.play("seen", Answer(deltas=["Seen."]), Answer(deltas=["Seen anew."]), Answer(deltas=["Edited."]))
    await choose(page, tmp_path, lake_png=png(300, 200), notes_txt=b"no image")
    await page.until(
        lambda: page.script("return document.querySelector('.attach-note').textContent !== 'Preparing…'")
    )
    await page.until(lambda: page.script("return document.querySelectorAll('.attached li').length === 1"))
    assert await violations(page, "image attached, file refused") == {}
    await page.ask("What is this?", model="openai/seen")
    assert await page.until_state(*ENDED) == "done"
    await page.script("document.querySelector('.actions button').focus()")
    assert await violations(page, "image in a question, buttons shown") == {}
    await page.script("document.querySelector('.edit').click()")
    await page.until(lambda: page.script("return document.activeElement.closest('.editor') !== null"))
    assert await violations(page, "question being edited") == {}
    await page.script("document.querySelector('.editor').requestSubmit()")
    await page.until(lambda: page.script("return document.querySelectorAll('.replaced').length === 1"))
    assert await page.until_state(*ENDED) == "done"
    await page.script("document.querySelector('.branch:not([hidden]) button').click()")
    await page.script("document.getElementById('fold').click()")
    assert await violations(page, "earlier version shown, panel folded") == {}
