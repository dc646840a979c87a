"""One browser for all tests of this folder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from selenium.webdriver import Chrome

from tests.browser import browser, need_browser
from tests.page.chat_page import OTHER_NAME_FLAG, Page
from tests.system import System


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def chromium() -> AsyncIterator[Chrome]:
    need_browser()
    with ExitStack() as stack:
        driver = await asyncio.to_thread(stack.enter_context, browser(OTHER_NAME_FLAG))
        yield driver
        await asyncio.to_thread(stack.close)


@pytest.fixture
async def driver(chromium: Chrome) -> AsyncIterator[Chrome]:
    """Yield the shared browser with an empty log, and clear its storage after the test."""
    await asyncio.to_thread(chromium.get_log, "browser")
    yield chromium
    everything = {"origin": "*", "storageTypes": "all"}
    await asyncio.to_thread(chromium.execute_cdp_cmd, "Storage.clearDataForOrigin", everything)
    await asyncio.to_thread(chromium.get, "about:blank")


@pytest.fixture
async def page(driver: Chrome, system: System) -> Page:
    page = Page(driver, system.gateways[0].url)
    await page.open()
    return page
