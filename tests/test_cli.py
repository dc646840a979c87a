"""``headrace chat`` as a process: against a gateway that misbehaves by script, and against a real one."""

import asyncio
import contextlib
import importlib.metadata
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from headrace.sse_decoder import SseDecoder
from shared.version import VERSION
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
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


async def finish(process: asyncio.subprocess.Process, stdin: str = "") -> Ended:
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
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
) -> AsyncIterator[str]:
    """Yield the URL, and close every connection at the end."""
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


# --- a scripted gateway, one answer per connection


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
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-stream-id: s1\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if whole else b"")


def refusal(status: int, code: str, message: str, *, retryable: bool, headers: str = "") -> bytes:
    body = json.dumps({"error": {"code": code, "message": message, "retryable": retryable}})
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n{headers}content-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


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


async def test_only_the_answer_goes_to_stdout() -> None:
    queued = event("queued", position=1)
    answer = stream(queued, start(), token("3-2", "Hel"), b": ping\n" + token("3-3", "lo\n☃"), done("3-4"))
    async with scripted(answer) as gateway:
        ended = await ask(gateway.url, prompt="Hi")
    assert (ended.code, ended.out, ended.err) == (0, "Hello\n☃", "")
    body = json.loads(gateway.requests[0].body)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["provider"], body["model"]) == ("demo", "demo")
    assert gateway.requests[0].headers["idempotency-key"]


async def test_a_dash_reads_the_prompt_from_stdin_and_a_model_needs_no_provider() -> None:
    async with scripted(stream(start(), done("3-2"))) as gateway:
        ended = await ask(gateway.url, "--model", "some-model", prompt="-", stdin="from a pipe")
    assert ended.code == 0
    body = json.loads(gateway.requests[0].body)
    assert body["messages"][0]["content"] == "from a pipe"
    assert body["model"] == "some-model"
    assert "provider" not in body


async def test_a_clean_end_and_a_cut_both_resume_after_the_last_whole_event() -> None:
    half = token("3-4", "never whole")[:-1]
    async with scripted(
        stream(start(), token("3-2", "one ")),
        stream(token("3-3", "two "), half, whole=False),
        stream(token("3-4", "three"), done("3-5")),
    ) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "one two three")
    assert gateway.lines == ["POST /chat/stream", "GET /chat/stream/s1", "GET /chat/stream/s1"]
    assert [r.headers.get("last-event-id") for r in gateway.requests] == [None, "3-2", "3-3"]


async def test_a_stream_that_had_no_event_yet_is_read_from_its_start() -> None:
    async with scripted(stream(whole=False), stream(start(), token("3-2", "x"), done("3-3"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "x")
    assert gateway.lines[1] == "GET /chat/stream/s1"
    assert "last-event-id" not in gateway.requests[1].headers


async def test_a_cut_before_any_header_repeats_the_post_with_the_same_key() -> None:
    async with scripted(b"", b"HTTP/1.1 200 O", stream(start(), token("3-2", "x"), done("3-3"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "x")
    assert gateway.lines == ["POST /chat/stream"] * 3
    assert len({r.headers["idempotency-key"] for r in gateway.requests}) == 1
    assert len({r.body for r in gateway.requests}) == 1


async def test_an_unavailable_gateway_is_retried() -> None:
    busy = refusal(503, "draining", "leaving", retryable=True, headers="retry-after: 0\r\n")
    page = b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno"
    async with scripted(busy, page, stream(start(), done("3-2"))) as gateway:
        ended = await ask(gateway.url)
    assert ended.code == 0
    assert "draining: leaving; retrying" in ended.err


@pytest.mark.parametrize("option", ["--retry-timeout", "--patience"])
async def test_retries_end(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    ended = await ask(f"http://127.0.0.1:{port}", option, "0.3")
    assert (ended.code, ended.out) == (1, "")
    assert "error: gave up after 0.3 s: " in ended.err
    assert "Traceback" not in ended.err


async def test_a_reset_is_marked_and_the_answer_restarts() -> None:
    lost = stream(start(), token("3-2", "half an ans"), whole=False)
    again = stream(start("9-1", reset=True), token("9-2", "a whole answer"), done("9-3"))
    async with scripted(lost, again) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (0, "half an ansa whole answer")
    assert "[the answer was lost; it restarts from the beginning]" in ended.err


async def test_an_error_event_is_printed_to_stderr() -> None:
    error = event("error", "3-3", code="provider_auth", message="the key is wrong", retryable=False)
    async with scripted(stream(start(), token("3-2", "x"), error, done("3-4", "error"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (1, "x")
    assert ended.err == "error: provider_auth: the key is wrong\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(400, "unknown_model", "no worker offers x", retryable=False), "unknown_model: no worker offers x"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope", "HTTP 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi", "not a Headrace gateway"),
    ],
)
async def test_a_refusal_is_printed_to_stderr_and_not_retried(answer: bytes, message: str) -> None:
    async with scripted(answer) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out) == (1, "")
    assert message in ended.err
    assert len(gateway.requests) == 1


async def test_an_early_end_is_reported() -> None:
    async with scripted(stream(start(), done("3-2", "length"))) as cut_short:
        length = await ask(cut_short.url)
    async with scripted(stream(start(), done("3-2", "cancelled", "abandoned"))) as cancelled:
        cancel = await ask(cancelled.url)
    assert (length.code, length.err) == (0, "the answer ended early: length\n")
    assert (cancel.code, cancel.err) == (1, "the answer ended early: cancelled (abandoned)\n")


@pytest.mark.parametrize(
    "arguments", [("--url", "localhost:8000"), ("--provider", "openai"), ("--retry-timeout", "-1")]
)
async def test_wrong_options_are_usage_errors(arguments: tuple[str, ...]) -> None:
    ended = await finish(await headrace("chat", "Hi", *arguments))
    assert ended.code == 2
    assert arguments[0] in ended.err


@pytest.mark.parametrize("command", [("chat", "Hi"), ("top",)])
@pytest.mark.parametrize("key", ["hr-gehe\nim", "hr-gehé"])
async def test_an_invalid_key_is_reported_and_not_shown(command: tuple[str, ...], key: str) -> None:
    ended = await finish(await headrace(*command, HEADRACE_API_KEY=key))
    assert ended.code == 2
    assert "HEADRACE_API_KEY" in ended.err
    assert "geh" not in ended.err


@pytest.mark.parametrize("body", [b"[1]", b'{"error": "no"}', b'{"workers": []}', b"null", b"<html>"])
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
async def test_top_of_something_that_is_not_a_gateway(status: bytes, body: bytes) -> None:
    answer = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
    async with scripted(answer) as other:
        ended = await finish(await headrace("top", "--once", "--url", other.url))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"error: {other.url}: not a Headrace gateway (HTTP {status[:3].decode()}); check --url\n"


# --- JSON, tools, refusals


def json_event(event_id: str, path: list[str | int], value: object) -> bytes:
    return event("json", event_id, path=path, value=value, complete=True)


def lines(out: str) -> list[tuple[list[str | int], object]]:
    """Return every printed line as (path, value)."""
    printed = [json.loads(line) for line in out.splitlines()]
    assert all(list(value) == ["path", "value"] for value in printed)
    return [(value["path"], value["value"]) for value in printed]


async def test_json_comes_as_lines_the_whole_last_and_no_text() -> None:
    whole = {"a": [1, "zwölf"], "b": "two\nlines"}
    answer = stream(
        start(),
        token("3-2", '{"a": [1, "zwölf"], "b": "two\\nlines"}'),
        json_event("3-3", ["a", 0], 1),
        json_event("3-4", ["a"], [1, "zwölf"]),
        json_event("3-5", [], whole),
        done("3-6"),
    )
    async with scripted(answer) as gateway:
        ended = await ask(gateway.url, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert lines(ended.out) == [(["a", 0], 1), (["a"], [1, "zwölf"]), ([], whole)]
    assert ended.out.splitlines()[1] == '{"path":["a"],"value":[1,"zwölf"]}'
    assert json.loads(gateway.requests[0].body)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(("file", "name"), [("my recipe.v2.json", "my_recipe_v2"), ("ü" * 80, "_")])
async def test_a_schema_is_sent_under_the_name_of_its_file(tmp_path: Path, file: str, name: str) -> None:
    schema = {"type": "object", "properties": {"ä": {"type": "string"}}}
    (tmp_path / file).write_text(json.dumps(schema, ensure_ascii=False))
    async with scripted(stream(start(), json_event("3-2", [], {}), done("3-3"))) as gateway:
        ended = await ask(gateway.url, "--json-schema", str(tmp_path / file))
    assert ended.code == 0
    sent = json.loads(gateway.requests[0].body)["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("{oops", "not valid JSON"), ("[1]", "not a JSON object"), ("\xff", "not valid JSON")],
)
async def test_a_schema_that_cannot_be_read_is_a_usage_error(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    async with scripted() as gateway:
        ended = await ask(gateway.url, "--json-schema", str(file))
    assert (ended.code, ended.out) == (2, "")
    assert "--json-schema" in ended.err
    assert str(file) in ended.err
    assert message in ended.err
    assert gateway.requests == []


async def test_incomplete_json_is_a_failure() -> None:
    violated = event("error", "3-3", code="schema_violation", message='$.a fails "type"', retryable=True)
    part = json_event("3-2", ["a"], 1)
    async with scripted(stream(start(), part, violated, done("3-4", "error"))) as gateway:
        broken = await ask(gateway.url, "--json")
    async with scripted(stream(start(), part, done("3-3", "length"))) as gateway:
        short = await ask(gateway.url, "--json")
    assert (broken.code, lines(broken.out)) == (1, [(["a"], 1)])
    assert broken.err == 'error: schema_violation: $.a fails "type"\n'
    assert (short.code, lines(short.out)) == (1, [(["a"], 1)])
    assert short.err == "the answer ended early: length\n"


async def test_json_that_restarts_is_marked_and_lines_stay_whole() -> None:
    lost = stream(start(), json_event("3-2", ["a"], 1), whole=False)
    again = stream(
        start("9-1", reset=True), json_event("9-2", ["a"], 2), json_event("9-3", [], {"a": 2}), done("9-4")
    )
    async with scripted(lost, again) as gateway:
        ended = await ask(gateway.url, "--json")
    assert ended.code == 0
    assert lines(ended.out) == [(["a"], 1), (["a"], 2), ([], {"a": 2})]
    assert "\n[the answer was lost; it restarts from the beginning]\n" in ended.err
    assert "\n\n" not in ended.err


async def test_tool_calls_refusals_and_thoughts_stay_out_of_stdout() -> None:
    answer = stream(
        start(),
        event("reasoning", "3-2", text="Hm.", index=0, n=1),
        token("3-3", "Let me see."),
        event("tool_call", "3-4", index=0, id="c", name="get_weather", arguments='{"ci', complete=False, n=1),
        event("tool_call", "3-5", index=0, arguments='ty":\n "Bérn"}', complete=False, n=1),
        event(
            "tool_call",
            "3-6",
            index=0,
            id="c",
            name="get_weather",
            arguments='{"city":\n "Bérn"}',
            complete=True,
            n=0,
        ),
        done("3-7", "tool_calls"),
    )
    async with scripted(answer) as gateway:
        called = await ask(gateway.url)
    assert (called.code, called.out) == (0, "Let me see.")
    assert called.err == 'tool call: get_weather {"city":"Bérn"}\n'

    refused = [
        event("refusal", f"3-{n}", text=text, index=n, n=1) for n, text in enumerate(["I can", "not."], start=2)
    ]
    async with scripted(stream(start(), *refused, done("3-4", "content_filter", "refusal"))) as gateway:
        ended = await ask(gateway.url)
    assert ended.out == ""
    assert ended.err == "refusal: I cannot.\nthe answer ended early: content_filter (refusal)\n"


async def test_an_empty_answer_is_reported() -> None:
    async with scripted(stream(start(), done("3-2", "stop", "empty_answer"))) as gateway:
        ended = await ask(gateway.url)
    assert (ended.code, ended.out, ended.err) == (0, "", "the answer is empty\n")


async def test_a_closed_pipe_cancels_the_answer() -> None:
    answer = stream(start(), *(token(f"3-{n}", "word " * 1000) for n in range(2, 60)), whole=False)
    async with scripted(answer, b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n") as gateway:
        line = f"'{sys.executable}' -m headrace chat Hi --url {gateway.url} | head -c 3"
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_shell(
            line, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe
        )
        ended = await finish(shell)
    assert ended.out == "wor"
    assert "Traceback" not in ended.err
    assert gateway.lines[-1] == "POST /chat/s1/cancel"


def test_the_decoder_takes_a_retry_without_a_blank_line_and_drops_half_an_event() -> None:
    decoder = SseDecoder("1-1")
    whole = b"id: 1-2\r\nretry: 7\r\nevent: token\r\ndata: a\r\ndata: b\r\n\r\n: ping\nid: 1-3\n\n"
    events = [found for byte in whole for found in decoder.feed(bytes([byte]))]
    assert [(e.name, e.data, e.last_event_id) for e in events] == [("token", "a\nb", "1-2")]
    assert decoder.retry_ms == 7
    assert list(decoder.feed(b"id: 1-4\ndata: half\nretry: 123\nretry: soon\n")) == []
    assert decoder.retry_ms == 123


async def test_the_version_is_printed_and_is_that_of_the_package() -> None:
    ended = await finish(await headrace("--version"))
    assert (ended.code, ended.out, ended.err) == (0, f"headrace {VERSION}\n", "")
    assert importlib.metadata.version("headrace") == VERSION


# --- against a real system


@dataclass
class Running:
    url: str
    log: Path

    def pid(self, name: str) -> int:
        """Return the process id of the latest start."""
        return int(re.findall(rf"\| {name} has pid (\d+)", self.log.read_text())[-1])


async def until(condition: Callable[[], bool], state: str, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {state}"
        await asyncio.sleep(0.02)


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
        await asyncio.wait_for(process.wait(), 30)
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
    async with httpx2.AsyncClient(trust_env=False) as client:
        found: dict[str, object] = (await client.get(f"{up.url}/chat/{stream_id}")).raise_for_status().json()
        return found


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
    assert ended.err.count("retrying") >= 5


@pytest.mark.parametrize("name", ["gateway.1", "broker"])
async def test_a_killed_process_loses_and_doubles_nothing(up: Running, name: str) -> None:
    async with cutting(up.url) as (url, proxy):
        process = await headrace("chat", "Tell me a story", "--url", url)
        assert process.stdout is not None
        first = await asyncio.wait_for(process.stdout.readexactly(100), 20)
        os.kill(up.pid(name), signal.SIGKILL)
        ended = await finish(process)
    assert ended.code == 0, ended.err
    (stream_id,) = proxy.stream_ids
    assert first.decode() + ended.out == (await as_json(up, stream_id))["text"]


async def test_ctrl_c_cancels(up: Running) -> None:
    async with cutting(up.url) as (url, proxy):
        process = await headrace("chat", "Tell me a story", "--url", url)
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.read(1), 20)
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
    assert ended.code == 130
    assert ended.err == "cancelled\n"
    (stream_id,) = proxy.stream_ids
    deadline = time.monotonic() + 10
    while (found := await as_json(up, stream_id))["status"] != "cancelled":
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
