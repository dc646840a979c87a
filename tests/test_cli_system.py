"""The command ``headrace chat`` against a real ``headrace up``, over broken connections and killed processes."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.cli import ROOT, ask, environment, finish, headrace, lines, listening, until
from tests.ports import free_port

README = ROOT / "README.md"


@dataclass
class Running:
    url: str
    log: Path

    def pid(self, name: str) -> int:
        """Return the process id of the latest start."""
        return int(re.findall(rf"\| {name} has pid (\d+)", self.log.read_text())[-1])


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    data_dir = tmp_path_factory.mktemp("up")
    port = free_port()
    log = data_dir / "log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace", "up", "--port", str(port), "--data-dir", str(data_dir)),
            cwd=ROOT,
            env=environment(HEADRACE_RETRY_MS="20", HEADRACE_DEMO_TOKENS_PER_S="60"),
            stdout=out,
            stderr=out,
        )
    try:
        await until(lambda: "curl -N" in log.read_text() or process.returncode is not None, "ready")
        assert process.returncode is None, log.read_text()
        yield Running(f"http://127.0.0.1:{port}", log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), 60)
    assert process.returncode == 0, log.read_text()


class CuttingProxy:
    """Proxy that breaks the nth connection after as many bytes of the answer as the nth number of ``cuts``."""

    def __init__(self, target: str, cuts: Iterator[int]) -> None:
        self.stream_ids: set[str] = set()
        self.cut = 0
        self._target = httpx2.URL(target)
        self._cuts = cuts

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection(self._target.host, self._target.port)
            with contextlib.closing(up_writer):
                ways = (
                    asyncio.create_task(self._forward(reader, up_writer)),
                    asyncio.create_task(self._answer(up_reader, writer, next(self._cuts, None))),
                )
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(65536):
            writer.write(received)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while received := await reader.read(65536):
            self.stream_ids.update(re.findall(r"x-stream-id: (\S+)", received.decode(errors="replace")))
            if left is not None and len(received) >= left:
                self.cut += 1
                writer.write(received[:left])
                return
            left = None if left is None else left - len(received)
            writer.write(received)
            await writer.drain()


@asynccontextmanager
async def cutting(target: str, *cuts: int) -> AsyncIterator[tuple[str, CuttingProxy]]:
    proxy = CuttingProxy(target, iter(cuts))
    async with listening(proxy.serve) as url:
        yield url, proxy


async def as_json(up: Running, stream_id: str) -> dict[str, object]:
    """Return a stream's status, once the gateway answers: a test may have killed it or Redis."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client, asyncio.timeout(60):
        while True:
            with contextlib.suppress(httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError):
                answer = await client.get(f"{up.url}/chat/{stream_id}")
                if answer.status_code != 503:
                    found: dict[str, object] = answer.raise_for_status().json()
                    return found
            await asyncio.sleep(0.05)


async def test_the_demo_answers(up: Running) -> None:
    ended = await ask(up.url)
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.out.split()) > 10


SCENES = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "scenes": {"type": "array", "items": {"type": "object", "properties": {"place": {"type": "string"}}}},
    },
    "required": ["title", "scenes"],
}


async def test_the_demo_answers_by_a_schema_over_broken_connections(up: Running, tmp_path: Path) -> None:
    schema = tmp_path / "scenes.json"
    schema.write_text(json.dumps(SCENES))
    async with cutting(up.url, 600, 900, 1200) as (url, proxy):
        ended = await ask(url, "--json-schema", str(schema))
    assert ended.code == 0, ended.err
    assert proxy.cut == 3
    *pieces, (path, whole) = lines(ended.out)
    assert path == []
    assert isinstance(whole, dict)
    printed: list[tuple[list[str | int], object]] = [(["title"], whole["title"])]
    printed += [(["scenes", at], scene) for at, scene in enumerate(whole["scenes"])]
    assert pieces == [*printed, (["scenes"], whole["scenes"])]
    (stream_id,) = proxy.stream_ids
    assert (await as_json(up, stream_id))["json"] == whole


async def test_the_readmes_example_of_json_schema(up: Running, tmp_path: Path) -> None:
    (block,) = [b for b in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if "--json-schema" in b]
    command = block.replace(".venv/bin/headrace chat", f"'{sys.executable}' -m headrace chat --url {up.url}")
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_shell(
        f"set -e\n{command}", cwd=tmp_path, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe
    )
    ended = await finish(shell)
    assert (ended.code, ended.err) == (0, "")
    assert len(lines(ended.out)) > 3
    assert lines(ended.out)[-1][0] == []


async def test_the_demo_answers_with_json_without_a_schema(up: Running) -> None:
    ended = await ask(up.url, "--json")
    assert ended.code == 0, ended.err
    whole = lines(ended.out)[-1][1]
    assert isinstance(whole, dict)
    assert set(whole) == {"title", "paragraphs"}


async def test_an_invalid_schema_is_refused_by_the_gateway(up: Running, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "objekt"}')
    ended = await ask(up.url, "--json-schema", str(schema))
    assert (ended.code, ended.out) == (1, "")
    assert "not a JSON schema" in ended.err


async def test_broken_connections_lose_and_double_nothing(up: Running) -> None:
    async with cutting(up.url, 30, 700, 0, 900, 1500, 450) as (url, proxy):
        ended = await ask(url)
    assert ended.code == 0, ended.err
    assert proxy.cut == 6
    assert len(proxy.stream_ids) == 1
    found = await as_json(up, proxy.stream_ids.pop())
    assert ended.out == found["text"]
    assert ended.err.count("retrying") >= 4  # one note for failures without an event between them


@pytest.mark.parametrize("name", ["gateway.1", "broker"])
async def test_a_killed_process_loses_and_doubles_nothing(up: Running, name: str) -> None:
    async with cutting(up.url) as (url, proxy):
        process = await headrace("chat", "Tell me a story", "--url", url)
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readexactly(100), 60)
        os.kill(up.pid(name), signal.SIGKILL)
        ended = await finish(process)
    assert ended.code == 0, ended.err
    (stream_id,) = proxy.stream_ids
    assert first.decode() + ended.out == (await as_json(up, stream_id))["text"]


async def test_ctrl_c_cancels(up: Running) -> None:
    async with cutting(up.url) as (url, proxy):
        process = await headrace("chat", "Tell me a story of 3000 words", "--url", url)  # a minute
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.read(1), 60)
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
    assert ended.code == 130
    assert ended.err == "cancelled\n"
    (stream_id,) = proxy.stream_ids
    deadline = time.monotonic() + 30
    while (found := await as_json(up, stream_id))["status"] != "cancelled":
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("module", ["typer", "headrace.cli", "headrace.chat"])
async def test_ctrl_c_during_the_start_prints_no_traceback(module: str) -> None:
    """The interpreter names each module that it has imported."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "headrace", "chat", "hi", "--url", "http://127.0.0.1:9"),
        cwd=ROOT,
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while not (line := await process.stderr.readline()).rstrip().endswith(f" {module}".encode()):
        assert line, "it ended before"
    process.send_signal(signal.SIGINT)
    rest = await process.stderr.read()
    await process.wait()
    assert b"Traceback" not in rest, rest.decode()[-2000:]
    assert process.returncode in (-signal.SIGINT, 130, 1)  # 1: it has just failed to connect
