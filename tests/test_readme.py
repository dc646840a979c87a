"""What the README says to paste is pasted, as it stands."""

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path

import jwt
import pytest

from shared.settings import PREFIX, Settings
from tests.browser import browser, browser_missing
from tests.conftest import StartSystem
from tests.system import REPOSITORY, System

README = (REPOSITORY / "README.md").read_text()
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
SCRIPT = re.findall(r"```js\n(.*?)```", README, re.DOTALL)[0]


async def shell(command: str, folder: Path = REPOSITORY) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE, cwd=folder)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_the_curl_lines(system: System) -> None:
    first, resume = [line.replace("http://localhost:8000", system.url) for line in SHELL if "curl" in line][:2]
    whole = await shell(first.replace("curl -N", "curl -sN"))
    assert "event: done" in whole
    stream_id = json.loads(re.findall(r"event: queued\ndata: (.*)", whole)[0])["stream_id"]
    ids = re.findall(r"^id: (.*)$", whole, re.MULTILINE)
    rest = await shell(resume.replace("STREAM_ID", stream_id).replace("4-17", ids[9]).replace("-N", "-sN"))
    assert re.findall(r"^id: (.*)$", rest, re.MULTILINE) == ids[10:]


async def test_from_keys_to_tokens(start_system: StartSystem, tmp_path: Path) -> None:
    """The two blocks of "Who may come in", with another system in place of `make run`."""
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "HEADRACE_AUTH" in block]
    assert len(blocks) == 2
    secret = "0f" * 32
    settings = {"auth": "keys,jwt", "jwt_audience": "headrace", "jwt_secret": secret}
    token = jwt.encode({"sub": "boot", "aud": "headrace", "exp": time.time() + 600}, secret)
    system = await start_system(**settings, credentials={"Authorization": f"Bearer {token}"})
    for block in blocks:
        lines = [line for line in block.splitlines() if "make run" not in line]
        script = "\n".join(lines).replace("http://localhost:8000", system.url).replace("curl -N", "curl -sN")
        script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        script = script.replace("openssl rand -hex 32", f"echo {secret}")
        answer = await shell(f"export HEADRACE_REDIS_URL={system.broker.url}\n{script}", tmp_path)
        assert "event: done" in answer


async def test_the_browser_script(system: System) -> None:
    missing = browser_missing()
    if missing and not os.environ.get("CI"):
        pytest.skip(missing)
    page = "const output = document.body.appendChild(document.createElement('pre'));"
    ended = "source.addEventListener('done', () => { window.readmeText = output.textContent; });"

    def run() -> str:
        with browser() as driver:
            driver.get(system.url)
            driver.execute_script(f"(async () => {{ {page}\n{SCRIPT}\n{ended} }})();")
            driver.set_script_timeout(30)
            text: str = driver.execute_async_script(
                "const tell = arguments[0];"
                "const look = () => window.readmeText ? tell(window.readmeText) : setTimeout(look, 20); look();"
            )
            return text

    text = await asyncio.to_thread(run)
    async with await system.stream("demo", provider="demo") as connection:
        frames = await connection.rest()
    assert text == "".join(frame.data["token"] for frame in frames if frame.event == "token")


def test_paths_in_docs_exist() -> None:
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for path in re.findall(
            r"`((?:gateway|workers|shared|tests|headrace|bench)/[\w/]+\.(?:py|lua))`", page.read_text()
        ):
            assert (REPOSITORY / path).exists(), f"{page.name} names {path}"


def test_each_setting_is_told_of() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / ".env.example", *(REPOSITORY / "docs").glob("*.md")]
    told = "".join(page.read_text() for page in pages)
    settings = [field.validation_alias or PREFIX + name.upper() for name, field in Settings.model_fields.items()]
    assert [name for name in settings if not re.search(rf"\b{name}\b", told)] == []
