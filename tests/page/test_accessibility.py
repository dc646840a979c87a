"""The chat page has no violation that axe-core finds, says why nothing comes, and tells screen readers of the end."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.fakes.answer import Answer, ToolCall
from tests.page.chat_page import ENDED, Page
from tests.system import REPOSITORY, System

_AXE = REPOSITORY / "clients" / "javascript" / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """
const done = arguments[arguments.length - 1];
axe.run({ rules: { region: { enabled: false } } }).then(({ violations }) =>
  done(violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html)])));
"""
_FLOWING = """
return document.getAnimations().map(({ animationName }) => animationName).filter((name) => name);
"""
_RICH = """# Heading

Text with `code`, [a link](https://example.com) and *emphasis*.

```python
def wheel(speed: int) -> str:
    return f"{speed} turns a minute, and a long line that has to be scrolled from one side to the other"
```

| place | turns |
|---|---:|
| lake | 3 |

مرحبا بالعالم.
"""
_TOOL = ToolCall("c1", "get_weather", ('{"city": "Bern"}',))


async def violations(page: Page) -> dict[str, Any]:
    """Return axe's violations in light and dark, on a desktop and on a phone."""
    found = {}
    driver = page.driver
    for scheme in ("light", "dark"):
        for width, height in ((1200, 900), (390, 800)):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            await asyncio.to_thread(driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", media)
            await asyncio.to_thread(driver.execute_cdp_cmd, "Emulation.setDeviceMetricsOverride", size)
            await page.script(_AXE.read_text())
            await asyncio.sleep(0.4)  # colours change gradually
            result = await asyncio.to_thread(driver.execute_async_script, _RUN)
            if result:
                found[f"{scheme} {width}"] = result
    await asyncio.to_thread(driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
    await asyncio.to_thread(driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
    return found


@pytest.fixture
def axe() -> Path:
    if not _AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("no axe-core; make .venv/installed-node")
        pytest.skip("no axe-core; make .venv/installed-node")
    return _AXE


async def test_no_state_of_the_page_has_a_violation(page: Page, system: System, axe: Path) -> None:
    assert await violations(page) == {}, "empty"
    gate = asyncio.Event()
    held = Answer(deltas=[_RICH, "The end."], reasoning=["Hm."], gate=gate, gate_after=1)
    system.fake.play("held", held)
    await page.ask("First", model="openai/held")
    assert await page.until_state("waiting") == "waiting"  # 3 s without an event
    assert await page.script(_FLOWING) == []
    assert await violations(page) == {}, "waiting"
    await asyncio.to_thread(lambda: page.element("prompt").send_keys("Next", Keys.ENTER))
    assert "press Esc" in await page.script("return document.getElementById('keys').textContent")
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    assert await page.script("return document.querySelector('.bar').textContent") == "pythonCopy"
    assert (await page.text_of("ended")).startswith("Answer complete, ")
    assert await violations(page) == {}, "done"

    system.fake.play("tool", Answer(tools=(_TOOL,)))
    await page.script("document.getElementById('prompt').value = ''")
    await page.ask("Second", model="openai/tool")
    assert await page.until_state(*ENDED) == "done"
    assert await violations(page) == {}, "tool call"

    system.fake.play("refusing", Answer(refusal=["I cannot help with that."]))
    await page.ask("Third", model="openai/refusing")
    assert await page.until_state(*ENDED) == "done"
    assert await violations(page) == {}, "refusal"

    system.fake.play("busy", Answer(status=429))
    await page.ask("Fourth", model="openai/busy")
    assert await page.until_state(*ENDED) == "error"
    assert await violations(page) == {}, "error"


async def test_the_answer_is_scrolled_and_stopped_by_keyboard(page: Page, system: System) -> None:
    lines = "\n\n".join(f"Paragraph {i}." for i in range(100))
    system.fake.play("long", Answer(deltas=[lines], end="hang"))
    await page.ask("Count", model="openai/long")
    await page.until_longer(len(lines) - 1)

    async def is_scrolled(to_end: bool) -> bool:
        top = await page.script("return document.getElementById('scroll').scrollTop")
        return bool(top > 0) == to_end

    await page.until(lambda: is_scrolled(True))
    await page.script("document.getElementById('scroll').focus()")
    await asyncio.to_thread(lambda: page.driver.switch_to.active_element.send_keys(Keys.HOME))
    await page.until(lambda: is_scrolled(False))
    await asyncio.to_thread(lambda: page.driver.switch_to.active_element.send_keys(Keys.ESCAPE))
    assert await page.until_state(*ENDED) == "cancelled"
