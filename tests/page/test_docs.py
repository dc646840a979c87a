"""The viewer of the API's description runs under the strict Content-Security-Policy of all pages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
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

        def found(selector: str) -> Any:
            return wait.until(lambda d: d.find_element(By.CSS_SELECTOR, selector))

        for operation in ("Streams-stream_chat", "OpenAI-create_response", "Anthropic-create_message"):
            found(f"#operations-{operation}")
        click = "arguments[0].scrollIntoView(); arguments[0].click()"
        driver.execute_script(click, found("#operations-Server-get_health .opblock-summary-control"))
        driver.execute_script(click, found("#operations-Server-get_health .try-out__btn"))
        driver.execute_script(click, found("#operations-Server-get_health .execute"))
        wait.until(lambda d: '"ok"' in found("#operations-Server-get_health .live-responses-table").text)
        driver.execute_script(click, found("#operations-Streams-create_stream .opblock-summary-control"))
        found("#operations-Streams-create_stream .model-example")
        assert driver.execute_script("return window.violations") == []
        assert all(name.startswith(f"{url}/") for name in driver.execute_script(LOADED))
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_no_other_page_loads_the_viewer() -> None:
    """It is larger than all the rest."""
    files = [path for path in PAGE.rglob("*") if path.suffix in {".html", ".js"} and "vendor" not in path.parts]
    assert len(files) > 20
    assert [path.parent.name for path in files if "swagger-ui" in path.read_text()] == ["docs"]
