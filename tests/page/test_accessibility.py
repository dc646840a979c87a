"""The chat page has no violation that axe-core finds, says why nothing comes, and tells screen readers of the end."""

import asyncio
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.fakes.answer import Answer, ToolCall
from tests.page.axe import need_axe, violations
from tests.page.chat_page import ENDED, Page
from tests.system import System

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

$$
a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r + s + t + u + v + w + x + y + z = \\frac{1}{2}
$$

مرحبا بالعالم.
"""
#: Texts of the regions that screen readers announce, as they change.
_LISTEN = """
window.said = [];
const regions = "[role=status], [role=alert], [role=log], [aria-live]";
new MutationObserver((changes) => {
  for (const { target } of changes) {
    const region = (target.closest ? target : target.parentElement)?.closest(regions);
    const isLive = region?.checkVisibility() && region.getAttribute("aria-live") !== "off";
    if (isLive) window.said.push(region.textContent.trim());
  }
}).observe(document.body, { childList: true, subtree: true, characterData: true });
"""
_TOOL = ToolCall("c1", "get_weather", ('{"city": "Bern"}',))


@pytest.fixture
def axe() -> Path:
    return need_axe()


@pytest.mark.timeout(300)  # axe-core takes the whole of a processor
async def test_no_state_of_the_page_has_a_violation(page: Page, system: System, axe: Path) -> None:
    assert await violations(page, "empty") == {}, "empty"
    gate = asyncio.Event()
    held = Answer(deltas=[_RICH, "The end."], reasoning=["Hm."], gate=gate, gate_after=1)
    system.fake.play("held", held)
    await page.ask("First", model="openai/held")
    assert await page.until_state("waiting") == "waiting"  # 3 s without an event
    assert await page.script(_FLOWING) == []
    assert await violations(page, "waiting") == {}, "waiting"
    await asyncio.to_thread(lambda: page.element("prompt").send_keys("Next", Keys.ENTER))
    assert "press Esc" in await page.script("return document.getElementById('keys').textContent")
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    assert await page.script("return document.querySelector('.bar').textContent") == "pythonCopy"
    await page.until(lambda: has(page, "pre .keyword"))
    await page.until(lambda: has(page, ".formula math"))
    assert await violations(page, "done") == {}, "done"

    system.fake.play("tool", Answer(tools=(_TOOL,)))
    await page.script("document.getElementById('prompt').value = ''")
    await page.ask("Second", model="openai/tool")
    assert await page.until_state(*ENDED) == "done"
    assert await violations(page, "tool call") == {}, "tool call"

    system.fake.play("refusing", Answer(refusal=["I cannot help with that."]))
    await page.ask("Third", model="openai/refusing")
    assert await page.until_state(*ENDED) == "done"
    assert await violations(page, "refusal") == {}, "refusal"

    system.fake.play("busy", Answer(status=429))
    await page.ask("Fourth", model="openai/busy")
    assert await page.until_state(*ENDED) == "error"
    assert await violations(page, "error") == {}, "error"


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


async def has(page: Page, selector: str) -> bool:
    return bool(await page.script(f"return document.querySelector('{selector}') !== null"))


async def has_said(page: Page, words: str) -> bool:
    return any(words in each for each in await page.script("return window.said"))


async def test_screen_readers_get_the_answer_at_its_end_and_no_token_before(page: Page, system: System) -> None:
    words = [f"word{i} " for i in range(8)]
    text = ["## Title\n\n", *words, "\n\n```python\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"]
    gate = asyncio.Event()
    system.fake.play("short", Answer(deltas=text, gate=gate, gate_after=5))
    await page.script(_LISTEN)
    await page.ask("Tell me", model="openai/short")
    await page.until_longer(20)
    gate.set()
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: has_said(page, "Answer complete"))
    said = await page.script("return window.said")
    assert said.count("done") == 1
    *before, end = [each for each in said if "word" in each or "Title" in each]
    assert before == []
    assert end == f"Answer complete: Title {' '.join(map(str.strip, words))} (code in python) a b 1 2"

    system.fake.play("long", Answer(deltas=["word " * 400]))
    await page.ask("More", model="openai/long")
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: has_said(page, "begins: word"))
    end = [each for each in await page.script("return window.said") if "word" in each][-1]
    assert end.startswith("Answer complete. It begins: word word")
    assert len(end) < 700

    system.fake.play("dense", Answer(deltas=["水" * 2000]))
    await page.ask("In a language without spaces", model="openai/dense")
    assert await page.until_state(*ENDED) == "done"
    await page.until(lambda: has_said(page, "begins: 水"))
    end = [each for each in await page.script("return window.said") if "水" in each][-1]
    assert end.startswith("Answer complete. It begins: 水")
    assert len(end) < 700
