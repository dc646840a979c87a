"""The viewer of the API's description runs under the strict Content-Security-Policy of all pages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import WebDriverWait

from tests.system import System

LISTENER = """
  window.violations = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
  });
"""
#: Loads of other origins, of which there must be none.
LOADED = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
PAGE = Path(__file__).parents[2] / "gateway" / "page"


@pytest.mark.timeout(180)
async def test_the_description_is_shown_and_tried_out(driver: Chrome, system: System) -> None:
    await asyncio.to_thread(show, driver, system.gateways[0].url)


def show(driver: Chrome, url: str) -> None:
    added: dict[str, Any] = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTENER})
    try:
        driver.get(f"{url}/docs")
        wait = WebDriverWait(driver, 60)

        def until(script: str, selector: str) -> None:
            """Wait for a condition of an element. The viewer may replace the element at any moment."""
            found = f"const found = document.querySelector(arguments[0]); return Boolean(found && ({script}));"
            wait.until(lambda d: d.execute_script(found, selector))

        def click(selector: str) -> None:
            until("(found.scrollIntoView(), found.click(), true)", selector)

        for operation in ("Streams-stream_chat", "OpenAI-create_response", "Anthropic-create_message"):
            until("true", f"#operations-{operation}")
        click("#operations-Server-get_health .opblock-summary-control")
        click("#operations-Server-get_health .try-out__btn")
        click("#operations-Server-get_health .execute")
        until("found.textContent.includes('\"ok\"')", "#operations-Server-get_health .live-responses-table")
        click("#operations-Streams-create_stream .opblock-summary-control")
        until("true", "#operations-Streams-create_stream .model-example")
        assert driver.execute_script("return window.violations") == []
        assert all(name.startswith(f"{url}/") for name in driver.execute_script(LOADED))
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_no_other_page_loads_the_viewer() -> None:
    """It is larger than all the rest."""
    files = [path for path in PAGE.rglob("*") if path.suffix in {".html", ".js"} and "vendor" not in path.parts]
    assert len(files) > 20
    assert [path.parent.name for path in files if "swagger-ui" in path.read_text()] == ["docs"]
