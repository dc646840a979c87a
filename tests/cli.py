"""The command ``headrace`` as a child process, and a gateway that misbehaves by script."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = ("HEADRACE_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")


def environment(**settings: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)} | settings


async def headrace(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", *arguments),
        cwd=ROOT,
        env=environment(**settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@dataclass(frozen=True)
class Ended:
    code: int | None
    out: str
    err: str


async def finish(process: asyncio.subprocess.Process, stdin: str = "", *, timeout_s: float = 60) -> Ended:
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode, out.decode(), err.decode())


async def ask(url: str, *options: str, prompt: str = "Tell me a story", stdin: str = "") -> Ended:
    return await finish(await headrace("chat", prompt, "--url", url, *options), stdin)


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]],
    *,
    backlog: int = 100,
) -> AsyncIterator[str]:
    """Yield the URL, and close every connection at the end. A browser keeps some open that it does not use."""
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=backlog)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


# --- a scripted gateway, one answer per connection


def accepted() -> bytes:
    """Return the response to a start of the stream ``s1``."""
    body = b'{"stream_id": "s1", "stream_url": "/chat/stream/s1", "status_url": "/chat/s1"}'
    return b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def event(name: str, event_id: str = "", retry: int | None = None, /, **data: object) -> bytes:
    head = (f"id: {event_id}\n" if event_id else "") + (f"retry: {retry}\n" if retry is not None else "")
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def start(event_id: str = "3-1", *, reset: bool = False) -> bytes:
    return event("start", event_id, 10, stream_id="s1", model="demo", provider="demo", attempt=1, reset=reset)


def token(event_id: str, text: str) -> bytes:
    return event("token", event_id, token=text, token_index=0, n=1)


def done(event_id: str, finish_reason: str = "stop", reason: str | None = None) -> bytes:
    return event("done", event_id, finish_reason=finish_reason, reason=reason, usage=None)


def stream(*pieces: bytes, whole: bool = True) -> bytes:
    """Return a chunked SSE answer; without ``whole`` its last chunk is missing, as after a broken connection."""
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\nx-stream-id: s1\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if whole else b"")


def refusal(status: int, code: str, message: str, *, retryable: bool, headers: str = "") -> bytes:
    body = json.dumps({"error": {"code": code, "message": message, "retryable": retryable}})
    head = f"HTTP/1.1 {status} No\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}"
    return (f"{head}content-length: {len(body)}\r\n\r\n{body}").encode()


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedGateway:
    """Gateway that sends the nth answer on the nth connection and closes it."""

    answers: list[bytes]
    url: str = ""
    requests: list[Request] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append(Request(head, headers, body))
            writer.write(self.answers.pop(0))
            await writer.drain()

    @property
    def lines(self) -> list[str]:
        return [request.line.removesuffix(" HTTP/1.1") for request in self.requests]


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    async with listening(gateway.serve) as gateway.url:
        yield gateway


def json_event(event_id: str, path: list[str | int], value: object) -> bytes:
    return event("json", event_id, path=path, value=value, complete=True)


def lines(out: str) -> list[tuple[list[str | int], object]]:
    """Return every printed line as (path, value)."""
    printed = [json.loads(line) for line in out.splitlines()]
    assert all(list(value) == ["path", "value"] for value in printed)
    return [(value["path"], value["value"]) for value in printed]


async def until(condition: Callable[[], bool], state: str, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {state}"
        await asyncio.sleep(0.02)
