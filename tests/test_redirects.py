"""A redirect to another server is not followed, and nothing that a provider sends without end takes memory without
end."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from shared.errors import ProviderError
from tests.provider_client import KEY, PROMPT, Make, ask, collect, failure, network, text_in
from tests.raw_server import answering
from workers.providers.framing import MAX_PIECE_BYTES
from workers.providers.redirects import ERROR_BODY_S

ANSWERS = {
    "openai": (
        "text/event-stream",
        b'data: {"choices":[{"index":0,"delta":{"content":"here"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    ),
    "anthropic": (
        "text/event-stream",
        b'data: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"here"}}\n\n'
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}\n\n'
        b'data: {"type":"message_stop"}\n\n',
    ),
    "responses": (
        "text/event-stream",
        b'data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"here"}\n\n'
        b'data: {"type":"response.completed","response":{"status":"completed","output":[]}}\n\n',
    ),
    "ollama": (
        "application/x-ndjson",
        b'{"message":{"role":"assistant","content":"here"},"done":true,"done_reason":"stop"}\n',
    ),
}
STATUSES = (301, 302, 303, 307, 308)


@dataclass
class Server:
    """Redirects the first request to ``location``, if set, and answers all others in the format of ``name``."""

    name: str
    url: str = ""
    location: str = ""
    status: int = 307
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().splitlines() if line.startswith(b"content-length")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        self.requests.append(head + body)
        if self.location and len(self.requests) == 1:
            head = f"HTTP/1.1 {self.status} Moved\r\nlocation: {self.location}\r\ncontent-length: 0\r\n".encode()
            writer.write(head + b"connection: close\r\n\r\n")
        else:
            kind, answer = ANSWERS[self.name]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nconnection: close\r\n\r\n" % kind.encode() + answer)
        writer.close()


@asynccontextmanager
async def running(server: Server, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    async with await asyncio.start_server(server.serve, host, 0) as listener:
        server.url = f"http://{host}:{listener.sockets[0].getsockname()[1]}"
        yield server


def addresses(url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": url, "ANTHROPIC_BASE_URL": url, "OLLAMA_HOST": url, "OLLAMA_API_KEY": KEY}


# --- redirects


@network
@pytest.mark.parametrize("status", STATUSES)
async def test_another_server_gets_neither_key_nor_prompt(make: Make, name: str, status: int) -> None:
    async with (
        running(Server(name)) as other,
        running(Server(name, location=f"{other.url}/v1", status=status)) as server,
    ):
        error = await failure(make(name, **addresses(server.url)), ask("m"))
        assert (error.code, error.retryable) == ("provider_protocol", False)
        assert f"HTTP {status}, a redirect to {other.url}" in error.detail
        assert other.url.removeprefix("http://") not in error.message
        assert len(server.requests) == 1
        assert other.requests == []


@network
@pytest.mark.parametrize(
    "location",
    [
        "//localhost:{port}/v1",
        "https://127.0.0.1:{port}/v1",
        "http://127.0.0.1@localhost:{port}/v1",
        "http://127.0.0.1/v1",
        "ftp://127.0.0.1:{port}/v1",
        "http://[/v1",
    ],
)
async def test_another_scheme_host_or_port_is_another_server(make: Make, name: str, location: str) -> None:
    async with running(Server(name)) as server:
        server.location = location.format(port=server.url.rpartition(":")[2])
        error = await failure(make(name, **addresses(server.url)), ask("m"))
        assert (error.code, error.retryable) == ("provider_protocol", False)
        assert len(server.requests) == 1


@network
@pytest.mark.parametrize("status", STATUSES)
async def test_the_same_server_gets_the_same_request_again(make: Make, name: str, status: int) -> None:
    """Statuses that turn the POST into a GET are an error: the answer would be to another question."""
    async with running(Server(name, location="/elsewhere", status=status)) as server:
        provider = make(name, **addresses(server.url))
        if status in {307, 308}:
            assert text_in(await collect(provider, ask("m"))) == "here"
            assert server.requests[1].startswith(b"POST /elsewhere ")
            assert KEY.encode() in server.requests[1]
            assert PROMPT.encode() in server.requests[1]
        else:
            assert (await failure(provider, ask("m"))).code == "provider_protocol"
            assert len(server.requests) == 1


@network
async def test_the_list_of_models_is_not_fetched_elsewhere(make: Make, name: str) -> None:
    async with running(Server(name)) as other, running(Server(name, location=f"{other.url}/v1")) as server:
        models = await make(name, **addresses(server.url)).list_models()
        assert models.open
        assert other.requests == []


# --- bodies without end


@asynccontextmanager
async def endless(status: int, kind: str, opening: bytes, piece: bytes) -> AsyncIterator[str]:
    """Yield the URL of a server that sends ``opening`` and then ``piece`` again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode() + opening)
        with suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def error_and_memory(make: Make, name: str, url: str) -> tuple[ProviderError, int, int]:
    """Return the error of one answer, the most memory in use until then, and the memory in use after it."""
    provider = make(name, **addresses(url))
    tracemalloc.start()
    try:
        error = await failure(provider, ask("m"))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return error, most, kept


LINE, LINES = b"x" * 65_536, b"data: x\n" * 8_192
WITHOUT_END = [
    ("openai", b'data: {"choices":[{"delta":{"content":"', LINE),
    ("openai", b"event: x\n", LINES),
    ("openai", b": ", LINE),
    ("openai", b'{"choices":[{"message":{"content":"', LINE),
    ("openai", b"[", LINES),
    ("anthropic", b'data: {"type":"content_block_delta","delta":{"text":"', LINE),
    ("anthropic", b"event: x\n", LINES),
    ("anthropic", b'{"type":"error","error":{"message":"', LINE),
    ("ollama", b'{"message":{"content":"', LINE),
]


@pytest.mark.parametrize(("name", "opening", "piece"), WITHOUT_END, ids=range(len(WITHOUT_END)))
async def test_a_piece_without_end_is_bounded_and_freed(make: Make, name: str, opening: bytes, piece: bytes) -> None:
    kind = "application/json" if opening[:1] in b"{[" else "text/event-stream"
    async with endless(200, kind, opening, piece) as url:
        error, most, kept = await error_and_memory(make, name, url)
    assert error.code == "provider_protocol"
    assert most < 3 * MAX_PIECE_BYTES
    assert kept < MAX_PIECE_BYTES / 4


@network
async def test_the_body_of_an_error_is_read_in_part(make: Make, name: str) -> None:
    async with endless(503, "text/plain", b"", b"x" * 65_536) as url:
        error, most, _ = await error_and_memory(make, name, url)
    assert error.code == "provider_unavailable"
    assert most < MAX_PIECE_BYTES


@network
async def test_the_body_of_an_error_is_not_awaited_for_long(make: Make, name: str) -> None:
    head = b"HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    async with asyncio.timeout(ERROR_BODY_S + 30), answering(b"{", head, keeps_open=True) as url:
        error = await failure(make(name, **addresses(url)), ask("m"))
    assert error.code == "provider_auth"
