"""One ``headrace up`` with a file of five servers of different kinds serves all of them through every dialect."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.cli import headrace
from tests.fakes import Answer, FakeProvider
from tests.ports import free_port

CONFIGURATION: Final = """
[providers.chat]
kind = "openai"
base_url = "{chat.openai_base_url}"
api_keys = ["env:CHAT_KEY"]

[providers.azure]
kind = "openai"
base_url = "{azure.openai_base_url}"
api_keys = ["env:AZURE_KEY"]
auth = "api-key"

[providers.responses]
kind = "openai-responses"
base_url = "{responses.openai_base_url}"
api_keys = ["env:RESPONSES_KEY"]

[providers.claude]
kind = "anthropic"
base_url = "{claude.anthropic_base_url}"
api_keys = ["env:CLAUDE_KEY"]

[providers.local]
kind = "ollama"
base_url = "{local.ollama_host}"

[models.any]
targets = ["chat/m", "azure/m", "responses/m", "claude/m", "local/m"]
"""
NAMES: Final = ("chat", "azure", "responses", "claude", "local")
KEYS: Final = {f"{name.upper()}_KEY": f"key-of-{name}" for name in NAMES[:-1]}
_BOOT_S: Final = 100
USER: Final = {"role": "user", "content": "hi"}
Ask = Callable[[httpx2.AsyncClient, str], Awaitable[str]]


@pytest.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of the gateway."""
    folder: Path = tmp_path_factory.mktemp("five")
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeProvider()) for name in NAMES}
        for name, fake in fakes.items():
            fake.models = ()
            fake.play("m", Answer(deltas=["I am ", name]))
        (folder / "headrace.toml").write_text(CONFIGURATION.format(**fakes))
        port = free_port()
        options = ("--config", str(folder / "headrace.toml"), "--port", str(port), "--data-dir", str(folder / "data"))
        process = await headrace("up", *options, **KEYS)
        reading = asyncio.create_task(process.communicate())
        client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        try:
            async with asyncio.timeout(_BOOT_S):
                while not await _offers_all(client):
                    await asyncio.sleep(0.05)
            yield client
        finally:
            await client.aclose()
            process.send_signal(signal.SIGINT)
            await reading


async def _offers_all(client: httpx2.AsyncClient) -> bool:
    try:
        listed = await client.get("/v1/models")
    except httpx2.HTTPError:
        return False
    return listed.status_code == 200 and {*NAMES} <= {model["owned_by"] for model in listed.json()["data"]}


async def by_native(http: httpx2.AsyncClient, model: str) -> str:
    stream_id = (await post(http, "/chat", {"model": model, "messages": [USER]}))["stream_id"]
    while not (status := (await http.get(f"/chat/{stream_id}")).json())["ended_at"]:
        await asyncio.sleep(0.02)
    return str(status["text"])


async def by_chat(http: httpx2.AsyncClient, model: str) -> str:
    answer = await post(http, "/v1/chat/completions", {"model": model, "messages": [USER]})
    return str(answer["choices"][0]["message"]["content"])


async def by_responses(http: httpx2.AsyncClient, model: str) -> str:
    answer = await post(http, "/v1/responses", {"model": model, "input": "hi"})
    return str(answer["output"][-1]["content"][0]["text"])


async def by_messages(http: httpx2.AsyncClient, model: str) -> str:
    answer = await post(http, "/v1/messages", {"model": model, "max_tokens": 99, "messages": [USER]})
    return str(answer["content"][-1]["text"])


async def by_ui_messages(http: httpx2.AsyncClient, model: str) -> str:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"id": f"chat-{model}", "messages": [message], "model": model, "trigger": "submit-message"}
    answer = await http.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(part["delta"] for part in map(json.loads, data) if part["type"] == "text-delta")


async def post(http: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    assert answer.status_code in {200, 202}, answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.mark.parametrize("ask", [by_native, by_chat, by_responses, by_messages, by_ui_messages])
async def test_every_server_answers_through_every_dialect(http: httpx2.AsyncClient, ask: Ask) -> None:
    assert {name: await ask(http, f"{name}/m") for name in NAMES} == {name: f"I am {name}" for name in NAMES}
    assert (await ask(http, "any")).removeprefix("I am ") in NAMES
