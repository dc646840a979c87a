"""Violations that axe-core finds in the state that a browser shows."""

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.page.chat_page import Page
from tests.system import REPOSITORY

_AXE = REPOSITORY / "clients" / "javascript" / "node_modules" / "axe-core" / "axe.min.js"
#: The viewer at ``/docs`` is not ours.
_RUN = """
const done = arguments[arguments.length - 1];
axe.run({ exclude: [["#api"]] }, { rules: { region: { enabled: false } } }).then(({ violations }) =>
  done(violations.map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html)])));
"""
#: Folder for a screenshot of each state; none are taken without it.
_SCREENSHOTS = os.environ.get("SCREENSHOTS")
SIZES = {"desktop": (1200, 900), "phone": (390, 800)}


def need_axe() -> Path:
    """Return the file of axe-core. Skip the test if there is none; in CI, fail it."""
    if not _AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("no axe-core; make .venv/installed-node")
        pytest.skip("no axe-core; make .venv/installed-node")
    return _AXE


async def violations(page: Page, state: str | None = None) -> dict[str, Any]:
    """Return axe's violations in light and dark, on a desktop and on a phone. ``state`` names the screenshots;
    without it there are none."""
    return await asyncio.to_thread(_violations, page.driver, state)


def _violations(driver: Chrome, state: str | None) -> dict[str, Any]:
    found = {}
    if not driver.execute_script("return Boolean(window.axe)"):
        driver.execute_script(_AXE.read_text())
    for scheme in ("light", "dark"):
        for device, size in SIZES.items():
            show_as(driver, scheme, *size)
            result = driver.execute_async_script(_RUN)
            if result:
                found[f"{scheme}, {device}"] = result
            if _SCREENSHOTS and state:
                image = base64.b64decode(driver.get_screenshot_as_base64())
                (Path(_SCREENSHOTS) / f"{state}-{scheme}-{device}.png".replace(" ", "-")).write_bytes(image)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    return found


def show_as(driver: Chrome, scheme: str, width: int, height: int) -> None:
    """Emulate a colour scheme and a window. Without motion, no colour changes gradually."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
