"""The chat page asks for an API key when the gateway requires one, and keeps the key in the tab only."""

import asyncio
import json

from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, boot_credentials, make_key, run_headrace, token
from tests.fakes.answer import Answer
from tests.page.chat_page import BRIEF, ENDED, WORDS, Page


async def has_no_conversation(page: Page) -> bool:
    script = "return document.querySelectorAll('#messages > *, #history > *').length"
    return bool(await page.script(f"if (document.readyState !== 'complete') return 1; {script}") == 0)


async def lists_a_conversation(page: Page) -> bool:
    return bool(await page.script("return document.querySelector('[data-testid=history-item]') !== null"))


async def is_asked(page: Page) -> bool:
    return await asyncio.to_thread(page.element("use-key").is_displayed)


async def sign_in(page: Page, name: str) -> None:
    await asyncio.to_thread(page.driver.get, page.url)
    await page.until(lambda: is_asked(page))
    assert not await page.script("return document.getElementById('messages').checkVisibility()")
    await asyncio.to_thread(page.element("key").send_keys, token(name), Keys.ENTER)
    await page.until(page.models_are_there)


async def test_the_key_is_requested_kept_in_the_tab_and_forgotten(driver: Chrome, start_system: StartSystem) -> None:
    """The test enters a wrong key and a right one, reloads, revokes the key in the middle, enters another owner's,
    and forgets it."""
    system = await start_system(
        gateways=1, workers=1, auth="keys,jwt", credentials=boot_credentials(), **JWT_SETTINGS
    )
    key, next_key = await make_key(system, "alice"), await make_key(system, "bob")
    page = Page(driver, system.url)

    async def is_asked_after(problem: str) -> bool:
        return problem in (await page.text_of("key-problem")) and await is_asked(page)

    async def give(text: str) -> None:
        await asyncio.to_thread(page.element("key").send_keys, text, Keys.ENTER)

    await asyncio.to_thread(driver.get, page.url)
    await page.until(lambda: is_asked_after(""))
    await give("hr-000000000000-wrong")
    await page.until(lambda: is_asked_after("is unknown or was revoked"))
    await give(key)
    await page.until(page.models_are_there)
    system.fake.play("told", BRIEF)
    await page.ask("Tell me", model="openai/told")
    await page.until_longer(30)

    await asyncio.to_thread(driver.refresh)  # the same tab goes on, with the key and with the answer
    await page.until(page.models_are_there)
    assert await page.until_state(*ENDED) == "done"
    text = await page.raw_text()
    assert text == "".join(WORDS[:200])

    key_id = key.split("-")[1]
    assert (await asyncio.to_thread(run_headrace, system, "keys", "revoke", key_id)).returncode == 0

    async def is_refused() -> bool:
        answer = await system.http.get(f"{system.url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        return answer.status_code == 401

    await page.until(is_refused)
    await page.ask("And more", model="openai/told")
    await page.until(lambda: is_asked_after("is unknown or was revoked"))
    assert not await page.script("return document.getElementById('messages').checkVisibility()")
    calls = len(system.fake.calls)
    await give(next_key)
    await page.until(lambda: has_no_conversation(page))
    assert len(system.fake.calls) == calls
    assert "Tell me" not in await page.script(
        "return document.body.textContent + document.getElementById('prompt').value"
    )
    await page.until(page.models_are_there)
    await page.ask("A new one", model="openai/told")
    assert await page.until_state(*ENDED) == "done"

    everything = (
        "return document.documentElement.outerHTML + location.href + JSON.stringify(localStorage) + key.value"
    )
    seen = await page.script(everything)
    assert key not in seen
    assert next_key not in seen
    await page.click("forget-key")
    await page.until(lambda: is_asked_after(""))
    assert await page.script("return sessionStorage.getItem('headrace.key')") is None


async def test_forgetting_a_key_forgets_its_conversations_in_all_tabs(
    driver: Chrome, start_system: StartSystem
) -> None:
    """A third tab, with another key, never shows them."""
    system = await start_system(gateways=1, workers=1, auth="jwt", credentials=boot_credentials(), **JWT_SETTINGS)
    system.fake.play("told", Answer(deltas=["canary-answer"]))
    page = Page(driver, system.url)

    async def shown() -> str:
        return str(await page.script("return document.documentElement.textContent"))

    await sign_in(page, "alice")
    await page.ask("canary-prompt", model="openai/told")
    assert await page.until_state(*ENDED) == "done"
    first = driver.current_window_handle
    await asyncio.to_thread(driver.switch_to.new_window, "tab")
    second = driver.current_window_handle
    await sign_in(page, "alice")
    await page.until(lambda: lists_a_conversation(page))
    await page.click("history-item")
    assert await page.until_state(*ENDED) == "done"
    assert "canary-answer" in await shown()
    await asyncio.to_thread(driver.switch_to.new_window, "tab")
    third = driver.current_window_handle
    await sign_in(page, "bob")
    assert "canary" not in await shown()

    await asyncio.to_thread(driver.switch_to.window, first)
    await page.click("forget-key")
    for tab in (first, second, third):
        await asyncio.to_thread(driver.switch_to.window, tab)
        await page.until(lambda: is_asked(page))
        await page.until(lambda: has_no_conversation(page))
        stored = "return JSON.stringify([localStorage, sessionStorage]) + document.getElementById('prompt').value"
        left = str(await page.script(stored)) + await shown()
        assert "canary" not in left
        assert "ticket=" not in left
    for tab in (second, third):
        await asyncio.to_thread(driver.switch_to.window, tab)
        await asyncio.to_thread(driver.close)
    await asyncio.to_thread(driver.switch_to.window, first)


async def test_nothing_returns_after_a_key_was_forgotten(driver: Chrome, start_system: StartSystem) -> None:
    """Neither from a tab that was at another site meanwhile, nor from a response that arrives later."""
    system = await start_system(gateways=1, workers=1, auth="jwt", credentials=boot_credentials(), **JWT_SETTINGS)
    system.fake.play("told", Answer(deltas=["canary-answer"]))
    page = Page(driver, system.url)
    stored = "return JSON.stringify([localStorage, sessionStorage]) + document.documentElement.textContent"

    await sign_in(page, "alice")
    first = driver.current_window_handle
    await asyncio.to_thread(driver.switch_to.new_window, "tab")
    await sign_in(page, "alice")
    elsewhere = driver.current_window_handle
    await asyncio.to_thread(driver.get, "about:blank")
    await asyncio.to_thread(driver.switch_to.window, first)
    await page.click("forget-key")
    await page.until(lambda: is_asked(page))
    await asyncio.to_thread(driver.switch_to.window, elsewhere)
    await asyncio.to_thread(driver.get, page.url)
    await page.until(lambda: is_asked(page))
    assert "headrace.key" not in json.loads(await page.script("return JSON.stringify(sessionStorage)"))

    await sign_in(page, "alice")  # a key that is entered after that stays, also over a reload
    await asyncio.to_thread(driver.refresh)
    await page.until(page.models_are_there)
    await asyncio.to_thread(driver.execute_cdp_cmd, "Network.enable", {})
    await set_latency(driver, 1000)
    calls = len(system.fake.calls)
    await page.ask("canary-prompt", model="openai/told")
    await page.click("forget-key")  # before the response to `POST /chat`

    async def was_called() -> bool:
        return len(system.fake.calls) > calls

    await page.until(was_called)
    await page.until(lambda: is_asked(page))
    left = str(await page.script(stored))
    assert "canary" not in left
    assert "ticket=" not in left
    await set_latency(driver, 0)
    await asyncio.to_thread(driver.close)
    await asyncio.to_thread(driver.switch_to.window, first)


async def set_latency(driver: Chrome, latency_ms: int) -> None:
    """Delay every response of the network to this tab."""
    conditions = {"offline": False, "latency": latency_ms, "downloadThroughput": -1, "uploadThroughput": -1}
    await asyncio.to_thread(driver.execute_cdp_cmd, "Network.emulateNetworkConditions", conditions)
