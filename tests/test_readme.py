"""The README's examples with `curl`, `headrace chat`, API keys, JSON Web Tokens and a browser run as pasted.

Only the gateway's address and the folder of `headrace` are replaced, and a running system stands in for `make run`.
The blocks that only start a system, for CORS and for a real model, are not run.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import jwt
from selenium.webdriver import Chrome

from shared.settings import PREFIX, Settings
from tests.browser import browser, need_browser
from tests.conftest import StartSystem
from tests.nginx import PROGRAM as NGINX
from tests.nginx import need_nginx
from tests.page.cutting_proxy import CuttingProxy
from tests.ports import free_port
from tests.system import REPOSITORY, System

README = (REPOSITORY / "README.md").read_text()
BLOCKS: list[str] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
#: Of the demo's answer, which has some 15,000.
BEGINNING_BYTES = 4000
SCRIPT = re.findall(r"```js\n(.*?)```", README, re.DOTALL)[0]


def block_with(text: str) -> str:
    (block,) = [block for block in BLOCKS if text in block]
    return block


def first_curl() -> str:
    return next(line for block in BLOCKS for line in block.splitlines() if line.startswith("curl"))


def on(system: System, commands: str) -> str:
    return commands.replace("http://localhost:8000", system.url)


async def shell(command: str, folder: Path = REPOSITORY) -> str:
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE, cwd=folder)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def ids_of_complete_events(text: str) -> list[str]:
    """Return the ids of the events in ``text``. A last event without its blank line does not count."""
    events = text.split("\n\n")[:-1]
    return [line.removeprefix("id: ") for event in events for line in event.splitlines() if line.startswith("id: ")]


async def test_the_first_example_streams_to_the_end(system: System) -> None:
    assert "event: done" in await shell(on(system, first_curl()))


async def test_a_follow_up_question_is_answered(system: System) -> None:
    answers = await shell(on(system, block_with('"chat_id":"tale"')))
    assert answers.count("event: done") == 2
    chat = json.loads(answers.rpartition("\n\n")[2])
    asked = [turn["messages"][-1]["content"] for turn in chat["turns"]]
    assert asked == ["Tell me a story", "And then?"]


async def test_the_resume_example_continues_right_after_the_last_saved_event(system: System, tmp_path: Path) -> None:
    save, resume = block_with("| tee answer.sse"), block_with("$STREAM")
    saved = tmp_path / "answer.sse"

    async def has_some() -> bool:
        return saved.exists() and len(ids_of_complete_events(saved.read_text())) >= 2

    async with CuttingProxy(system.url) as proxy:
        proxy.passes = BEGINNING_BYTES  # the cut falls in the middle of the answer, and probably of an event
        process = await asyncio.create_subprocess_shell(
            save.replace("http://localhost:8000", proxy.url),
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            start_new_session=True,
        )
        await system.eventually(has_some)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C in a terminal
        await process.communicate()
    before = ids_of_complete_events(saved.read_text())
    assert "event: done" not in saved.read_text()

    output = await shell(on(system, resume), tmp_path)
    rest = ids_of_complete_events(output)
    stream_id = json.loads(re.findall(r"event: queued\ndata: (.*)", saved.read_text())[0])["stream_id"]
    async with await system.read(stream_id) as connection:
        whole = [frame.id for frame in await connection.rest() if frame.id]
    assert rest[0] == whole[len(before)]
    assert before + rest == whole
    assert "event: done" in output


async def test_the_authentication_blocks_run(start_system: StartSystem, tmp_path: Path) -> None:
    """Runs the two blocks of "Authentication" against a system that replaces `make run`."""
    blocks = [block for block in BLOCKS if "HEADRACE_AUTH=keys" in block]
    assert len(blocks) == 2
    secret = "0f" * 32
    settings = {"auth": "keys,jwt", "jwt_audience": "headrace", "jwt_secret": secret}
    token = jwt.encode({"sub": "boot", "aud": "headrace", "exp": time.time() + 600}, secret)
    system = await start_system(**settings, credentials={"Authorization": f"Bearer {token}"})
    for block in blocks:
        lines = [line for line in block.splitlines() if "make run" not in line]
        script = on(system, "\n".join(lines)).replace("curl -N", "curl -sN")
        script = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        script = script.replace("openssl rand -hex 32", f"echo {secret}")
        answer = await shell(f"export HEADRACE_REDIS_URL={system.broker.url}\n{script}", tmp_path)
        assert "event: done" in answer


async def test_two_gateways_serve_one_stream_alone_and_behind_nginx(
    start_system: StartSystem, tmp_path: Path
) -> None:
    need_nginx()
    system = await start_system(gateways=2, auth="none", trusted_proxies="127.0.0.1")
    ports = [str(gateway.port) for gateway in system.gateways]
    addresses = dict(zip(("8000", "8001", "8080", "8443"), [*ports, str(free_port()), str(free_port())], strict=True))
    two, proxy = block_with("8001$URL"), block_with("nginx -p")
    for old, new in addresses.items():
        two = two.replace(f"localhost:{old}", f"localhost:{new}")
        proxy = re.sub(rf"\b{old}\b", new, proxy)
    assert "event: done" in await shell(two.replace("curl -N", "curl -sN"))

    shutil.copytree(REPOSITORY / "deploy", tmp_path / "deploy")
    gateways = tmp_path / "deploy" / "nginx" / "headrace.d" / "gateways.conf"
    gateways.write_text("".join(f"server 127.0.0.1:{port};\n" for port in ports))
    proxy = proxy.replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("nginx -p", f"{NGINX} -p")
    output = await shell(f"export HEADRACE_REDIS_URL={system.broker.url}\n{proxy}", tmp_path)
    assert "event: done" in output
    assert "tokens arrive one by one" in output
    assert "WRONG" not in output


async def test_the_terminal_examples_run(system: System, tmp_path: Path) -> None:
    plain, by_schema = (block for block in BLOCKS if "headrace chat" in block)
    folder = Path(sys.executable).parent
    story, values = [
        await shell(block.replace(".venv/bin/headrace chat", f"{folder}/headrace chat --url {system.url}"), tmp_path)
        for block in (plain, by_schema)
    ]
    assert "the same story every time" in story
    assert set(json.loads(values.splitlines()[-1])["value"]) == {"title", "scenes"}


async def test_the_browser_script_continues_after_a_reload(start_system: StartSystem) -> None:
    need_browser()
    system = await start_system(gateways=1, workers=1, providers=())
    page = "const pre = document.createElement('pre'); pre.id = 'output'; document.body.append(pre);"
    ended = "source.addEventListener('done', () => { window.readmeText = output.textContent; });"

    def start(driver: Chrome, passes: int | None) -> None:
        driver.get(proxy.url)
        proxy.passes = passes
        driver.execute_script(f"{page} (async () => {{ {SCRIPT}\n{ended} }})();")

    def value_of(driver: Chrome, expression: str) -> str:
        """Wait until the expression is true."""
        value: str = driver.execute_async_script(
            "const resolve = arguments[0];"
            f"const poll = () => {expression} ? resolve({expression}) : setTimeout(poll, 20); poll();"
        )
        return value

    def run() -> tuple[str, str | None]:
        with browser() as driver:
            driver.set_script_timeout(60)
            start(driver, BEGINNING_BYTES)
            value_of(driver, "document.querySelector('#output').textContent")
            driver.get("about:blank")  # the page leaves in the middle of the answer, and cannot read on
            proxy.passes = None
            start(driver, None)
            text = value_of(driver, "window.readmeText")
            return text, driver.execute_script("return sessionStorage.getItem('stream_url');")

    async with CuttingProxy(system.url) as proxy:
        text, kept = await asyncio.to_thread(run)
    (stream,) = (await system.http.get(f"{system.url}/chat")).json()["streams"]
    assert text == (await system.http.get(f"{system.url}/chat/{stream['stream_id']}")).json()["text"]
    assert kept is None


def test_paths_in_docs_exist() -> None:
    for page in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for path in re.findall(
            r"`((?:gateway|workers|shared|tests|headrace|bench)/[\w/]+\.(?:py|lua))`", page.read_text()
        ):
            assert (REPOSITORY / path).exists(), f"{page.name} names {path}"


def test_each_setting_is_documented() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / ".env.example", *(REPOSITORY / "docs").glob("*.md")]
    documented = "".join(page.read_text() for page in pages)
    settings = [field.validation_alias or PREFIX + name.upper() for name, field in Settings.model_fields.items()]
    assert [name for name in settings if not re.search(rf"\b{name}\b", documented)] == []
