"""The real nginx with ``deploy/nginx`` adds TLS and HTTP/2, delays no token, and hides deploys from clients."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from selenium.webdriver import Chrome

from gateway.edge.refusals import MOST_HEAD_BYTES
from shared.settings import Settings
from tests.browser import browser, need_browser
from tests.fakes.answer import Answer, Turnstile
from tests.nginx import CONFIG, Nginx, need_nginx
from tests.raw_client import connected
from tests.raw_requests import AMBIGUOUS, SMUGGLED
from tests.response_socket import open_socket, response_id
from tests.response_socket import text_of as socket_text_of
from tests.system import System, ask

WORDS = [f"word{i} " for i in range(30)]
TEXT = "".join(WORDS)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Two gateways and a worker of this module's own, since some are killed."""
    need_nginx()
    system = System(
        tmp_path_factory.mktemp("behind"), workers=1, providers=("openai",), auth="none", trusted_proxies="127.0.0.1"
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nginx(behind: System) -> AsyncIterator[Nginx]:
    async with in_front_of(*(gateway.port for gateway in behind.gateways)) as nginx:
        yield nginx


@asynccontextmanager
async def in_front_of(*gateways: int | str) -> AsyncIterator[Nginx]:
    nginx = Nginx(gateways)
    try:
        await nginx.start()
        yield nginx
        assert not re.search(r"ticket=|eyJ|Bearer|a-key-of-mine|secret-prompt", nginx.logs)
    finally:
        nginx.stop()


@dataclass(frozen=True)
class Answered:
    """Response to curl. ``exit_code`` is curl's; ``headers`` have all values of a name."""

    exit_code: int
    status: int
    headers: dict[str, list[str]]
    body: str

    @property
    def code(self) -> str:
        """Return the code of an error in Headrace's own form."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message", "retryable"}
        return str(error["code"])


async def curl(nginx: Nginx, path: str, *options: str, stdin: bytes = b"") -> Answered:
    """Call curl. ``path`` may be a whole URL. The protocol is HTTP/2 by default."""
    url = path if path.startswith("http") else nginx.url + path
    command = ["curl", "-sS", "--max-time", "120", "--cacert", str(nginx.certificate), "-D", "/dev/stderr"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, *options, url, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = await process.communicate(stdin)
    head = [block for block in err.decode().split("\r\n\r\n") if block.startswith("HTTP/")]
    first, *lines = head[-1].split("\r\n") if head else ["HTTP/0 0"]
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    assert process.returncode is not None
    return Answered(process.returncode, int(first.split()[1]), headers, out.decode())


def chat(model: str, prompt: str = "a secret-prompt", **body: object) -> tuple[str, ...]:
    """Return curl's options for a chat request."""
    return ("-H", "Content-Type: application/json", "--data-binary", json.dumps(ask(model, prompt, **body)))


# --- streams


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_each_token_arrives_before_the_provider_sends_the_next(
    behind: System, nginx: Nginx, version: str
) -> None:
    """A token that nginx buffers would never arrive: the provider waits until the one before was read."""
    turnstile = Turnstile()
    behind.fake.play("one-by-one", Answer(deltas=WORDS, turnstile=turnstile))
    command = ["curl", "-sN", version, "--cacert", str(nginx.certificate), *chat("one-by-one")]
    process = await asyncio.create_subprocess_exec(
        *command, f"{nginx.url}/chat/stream", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for number, word in enumerate(WORDS, 1):
        await turnstile.allow(number)
        async with asyncio.timeout(60):
            assert word.encode() in await process.stdout.readuntil(b'"n":1}\n')
    async with asyncio.timeout(60):
        assert b"event: done" in await process.stdout.read()
        assert await process.wait() == 0


async def test_a_response_over_a_web_socket_is_resumed_on_another_connection(behind: System, nginx: Nginx) -> None:
    turnstile = Turnstile()
    behind.fake.play("socket-nginx", Answer(deltas=WORDS, turnstile=turnstile))
    async with open_socket(nginx.url, ssl=nginx.tls) as socket:
        await socket.create("openai/socket-nginx", background=True)
        await turnstile.allow(3)
        seen = await socket.until("response.output_text.delta")
        socket.cut()
    await turnstile.allow(len(WORDS))
    async with open_socket(nginx.url, ssl=nginx.tls) as socket:
        after = {"response_id": response_id(seen), "starting_after": seen[-1]["sequence_number"]}
        await socket.send("response.resume", **after)
        assert socket_text_of(seen + await socket.rest()) == TEXT
    ignored = await curl(nginx, "/v1/models", "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket")
    assert ignored.status == 200


async def test_a_disconnect_reaches_the_provider(behind: System, nginx: Nginx) -> None:
    """Nginx closes its connection to the gateway, and the provider's connection is closed after the grace period."""
    turnstile = Turnstile()
    await turnstile.allow(1)
    behind.fake.play("left", Answer(deltas=WORDS, turnstile=turnstile))
    command = ["curl", "-sN", "--cacert", str(nginx.certificate), *chat("left", grace_s=0)]
    process = await asyncio.create_subprocess_exec(
        *command, f"{nginx.url}/chat/stream", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readuntil(b'"n":1}\n'), 60)
    call = [call for call in behind.fake.calls if call.model == "left"][-1]
    process.kill()
    await process.wait()
    await call.wait_closed(timeout_s=30)
    assert call.closed_by_client


# --- browsers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chromium() -> AsyncIterator[Chrome]:
    need_browser()
    manager = browser("--ignore-certificate-errors")
    yield await asyncio.to_thread(manager.__enter__)
    await asyncio.to_thread(manager.__exit__, None, None, None)


#: Native EventSources, and with ``byFetch`` a reader that goes on from its last id after each break, and only then.
READERS = """
const [model, count, byFetch, tell] = arguments;
window.readers = [];
async function follow(url, reader) {
  for (let cursor = ""; !reader.done; await new Promise((resolve) => setTimeout(resolve, 200))) {
    try {
      const headers = { Accept: "text/event-stream", ...(cursor && { "Last-Event-ID": cursor }) };
      const answer = await fetch(url, { headers });
      if (answer.status !== 200) continue;
      reader.connections += 1;
      const body = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { value, done } = await body.read();
        if (done) break;
        const blocks = (rest + value).split("\\n\\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const field = (name) => block.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
          cursor = field("id") ?? cursor;
          take(reader, field("event"), cursor, field("data"));
        }
      }
      if (!reader.done) reader.falseEnds += 1;
    } catch {
      reader.breaks += 1;
    }
  }
}
function take(reader, type, id, data) {
  if (type === "token") {
    reader.text += JSON.parse(data).token;
    reader.tokens += JSON.parse(data).n;
    reader.ids.push(id);
  }
  if (type === "start" && JSON.parse(data).reset) reader.resets += 1;
  if (type === "done") reader.done = true;
}
function native(url, reader) {
  const source = new EventSource(url);
  source.onopen = () => { reader.connections += 1; };
  source.onerror = () => {
    reader.breaks += 1;
    reader.gaveUp ||= source.readyState === EventSource.CLOSED;
  };
  for (const type of ["start", "token", "done"]) {
    source.addEventListener(type, (event) => take(reader, type, event.lastEventId, event.data));
  }
  source.addEventListener("done", () => source.close());
}
async function open() {
  const answer = await fetch("/chat", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
    body: JSON.stringify({ provider: "openai", model, messages: [{ role: "user", content: "a secret-prompt" }] }),
  });
  const { stream_url: url } = await answer.json();
  const counts = { tokens: 0, connections: 0, breaks: 0, falseEnds: 0, resets: 0 };
  const reader = { text: "", ids: [], gaveUp: false, done: false, ...counts };
  window.readers.push(reader);
  if (byFetch) follow(url, reader);
  else native(url, reader);
}
Promise.all(Array.from({ length: count }, open)).then(() => tell(null), (error) => tell(String(error)));
"""

PROTOCOLS = """
const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
return entries.filter((entry) => entry.responseStatus === 200).map((entry) => entry.nextHopProtocol);
"""


@dataclass
class Reader:
    text: str
    tokens: int
    ids: list[str]
    connections: int
    breaks: int
    falseEnds: int  # noqa: N815  as the script has it
    resets: int
    gaveUp: bool  # noqa: N815
    done: bool


class Tab:
    """A page of nginx's origin."""

    def __init__(self, driver: Chrome, nginx: Nginx) -> None:
        self.driver = driver
        self._nginx = nginx

    async def open(self, model: str, count: int, *, by_fetch: bool = False) -> None:
        await asyncio.to_thread(self.driver.get, self._nginx.url)
        error = await asyncio.to_thread(self.driver.execute_async_script, READERS, model, count, by_fetch)
        assert error is None

    async def readers(self) -> list[Reader]:
        found = await asyncio.to_thread(self.driver.execute_script, "return window.readers")
        return [Reader(**one) for one in found]

    async def until_all(self, condition: Callable[[Reader], bool]) -> list[Reader]:
        readers: list[Reader] = []
        try:
            async with asyncio.timeout(60):
                while not readers or not all(map(condition, readers)):
                    await asyncio.sleep(0.05)
                    readers = await self.readers()
        except TimeoutError:
            raise AssertionError(f"never: {readers}") from None
        return readers


@pytest.fixture
async def tab(chromium: Chrome, nginx: Nginx) -> AsyncIterator[Tab]:
    yield Tab(chromium, nginx)
    await asyncio.to_thread(chromium.get, "about:blank")


def has(count: int) -> Callable[[Reader], bool]:
    return lambda reader: reader.text == "".join(WORDS[:count])


async def both_serve(system: System, nginx: Nginx) -> None:
    """Wait until nginx sends requests to both gateways: it skips one that has just failed for two seconds."""
    before = len(nginx.logged())

    async def are_used() -> bool:
        assert (await curl(nginx, "/v1/models")).status == 200
        used = {line["gateways"] for line in nginx.logged()[before:]}
        return used >= {f"127.0.0.1:{gateway.port}" for gateway in system.gateways}

    await system.eventually(are_used)


async def test_ten_streams_of_one_browser_survive_a_killed_and_a_drained_gateway(
    behind: System, nginx: Nginx, tab: Tab
) -> None:
    """All ten are open at once; over HTTP/1.1 a browser would open six. Each gets every token once, in order, without
    a reset."""
    turnstile = Turnstile()
    behind.fake.play("ten", Answer(deltas=WORDS, turnstile=turnstile))
    await turnstile.allow(10)
    await both_serve(behind, nginx)
    await tab.open("ten", 10)
    await tab.until_all(has(10))
    first, second = behind.gateways

    first.stop()
    await turnstile.allow(20)
    await tab.until_all(has(20))
    first.start()
    await behind.ready()

    second.signal(signal.SIGTERM)
    assert await second.wait() == 0
    await turnstile.allow(30)
    readers = await tab.until_all(lambda reader: reader.done)
    second.start()
    await behind.ready()

    for reader in readers:
        assert reader.text == TEXT
        assert len(set(reader.ids)) == len(reader.ids)
        assert reader.tokens == len(WORDS)
        assert (reader.resets, reader.gaveUp) == (0, False)
        assert reader.connections >= 2
    assert max(reader.connections for reader in readers) == 3  # on the first, on the second, on the first again
    assert set(await asyncio.to_thread(tab.driver.execute_script, PROTOCOLS)) == {"h2"}
    assert len(behind.fake.calls) >= 10


async def test_a_drained_gateway_never_looks_like_a_complete_response_to_fetch(
    behind: System, nginx: Nginx, tab: Tab
) -> None:
    turnstile = Turnstile()
    behind.fake.play("fetched", Answer(deltas=WORDS, turnstile=turnstile))
    await turnstile.allow(10)
    await tab.open("fetched", 4, by_fetch=True)
    await tab.until_all(has(10))
    for gateway in behind.gateways:
        gateway.signal(signal.SIGTERM)
        assert await gateway.wait() == 0
        gateway.start()
        await behind.ready()
    await turnstile.allow(30)
    for reader in await tab.until_all(lambda reader: reader.done):
        assert (reader.text, reader.falseEnds, reader.resets) == (TEXT, 0, 0)
        assert reader.breaks >= 1


async def test_an_event_source_survives_an_outage_of_all_gateways(behind: System, nginx: Nginx, tab: Tab) -> None:
    turnstile = Turnstile()
    behind.fake.play("alone", Answer(deltas=WORDS, turnstile=turnstile))
    await turnstile.allow(10)
    await tab.open("alone", 1)
    await tab.until_all(has(10))
    for gateway in behind.gateways:
        gateway.stop()
    await tab.until_all(lambda reader: reader.breaks >= 2)  # it has reconnected at least once, without success

    response = await curl(nginx, "/chat/stream/0123")
    assert (response.status, response.code, response.headers["retry-after"]) == (503, "no_gateway", ["2"])
    assert response.headers["cache-control"] == ["no-store"]

    for gateway in behind.gateways:
        gateway.start()
    await behind.ready()
    await turnstile.allow(30)
    (reader,) = await tab.until_all(lambda reader: reader.done)
    assert (reader.text, reader.gaveUp, reader.resets) == (TEXT, False, 0)
    assert reader.tokens == len(WORDS)


# --- retries


@dataclass
class FailingGateway:
    """Reads a request, then closes without a response, or answers 503."""

    answer: bytes
    requests: list[bytes] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
        writer.write(self.answer)
        writer.close()


FAILURES = {
    "breaks off": b"",
    "says 503": b"HTTP/1.1 503 No\r\nContent-Length: 2\r\nCache-Control: private\r\nRetry-After: 7\r\n\r\nno",
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_post_is_retried_only_with_an_idempotency_key(behind: System, failure: str) -> None:
    failing = FailingGateway(FAILURES[failure])
    good = f"server 127.0.0.1:{behind.gateways[0].port} backup max_fails=0;"
    async with failing.listening() as port, in_front_of(f"server 127.0.0.1:{port} max_fails=0;", good) as nginx:
        calls = len(behind.fake.calls)
        forged = ("-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Forwarded-Proto: http", "-H", "Upgrade: h2c")
        host = ("-H", "X-Forwarded-Host: evil.example")
        response = await curl(nginx, "/chat", "--http1.1", *forged, *host, *chat("echo"))
        assert response.status == 503
        if failure == "says 503":
            assert response.body == "no"
            assert (response.headers["retry-after"], response.headers["cache-control"]) == (["7"], ["private"])
        else:
            assert (response.code, response.headers["retry-after"]) == ("no_gateway", ["2"])
        assert len(failing.requests) == 1
        assert b"secret-prompt" in failing.requests[0]
        head = failing.requests[0].partition(b"\r\n\r\n")[0].lower()
        assert re.findall(rb"\nx-forwarded-[^\r]*", head) == [
            b"\nx-forwarded-for: 127.0.0.1",
            b"\nx-forwarded-proto: https",
        ]
        assert f"\nhost: localhost:{nginx.port}".encode() in head
        assert b"upgrade" not in head
        assert len(behind.fake.calls) == calls

        key = ("-H", f"Idempotency-Key: a-key-of-mine {failure}")
        one = await curl(nginx, "/chat", *key, *chat("echo"))
        other = await curl(nginx, "/chat", *key, *chat("echo"))
        assert (one.status, other.status) == (202, 202)
        assert one.headers["x-stream-id"] == other.headers["x-stream-id"]
        streamed = await curl(nginx, "/chat/stream", *key, *chat("echo", on_disconnect="continue"))
        assert (streamed.status, streamed.code) == (409, "idempotency_conflict")

        stream_id = one.headers["x-stream-id"][0]
        for path, options, status in (
            (f"/chat/{stream_id}", (), 200),
            (f"/chat/stream/{stream_id}", (), 200),
            (f"/chat/{stream_id}/cancel", ("-X", "POST"), 202),
            (f"/chat/{stream_id}/tickets", ("--data", "{}"), 201),
        ):
            assert (await curl(nginx, path, *options)).status == status, path
        assert len(failing.requests) == 8


@pytest.mark.parametrize("failure", FAILURES)
async def test_only_an_event_source_is_disconnected_without_a_status(behind: System, failure: str) -> None:
    failing = FailingGateway(FAILURES[failure])
    async with failing.listening() as port, in_front_of(port) as nginx:
        for version, exit_code in (("--http1.1", 56), ("--http2", 92)):
            event_source = ("-H", "Accept: text/event-stream")
            broken = await curl(nginx, "/chat/stream/0123?ticket=x", version, *event_source)
            assert (broken.exit_code, broken.status) == (exit_code, 0)
            response = await curl(nginx, "/chat/stream/0123?ticket=x", version)
            assert (response.exit_code, response.status) == (0, 503)


# --- limits and headers

FIELD = "X-A: " + "a" * 40_000


async def test_limits_and_their_errors_are_those_of_the_gateway(behind: System, nginx: Nginx) -> None:
    most = Settings(_env_file=None).max_body_bytes
    for version in ("--http1.1", "--http2"):
        for body, status, code in (
            (b" " * most, 400, "invalid_json"),
            (b" " * (most + 1), 413, "body_too_large"),
        ):
            for declared in ((), ("-H", "Transfer-Encoding: chunked")) if version == "--http1.1" else ((),):
                response = await curl(nginx, "/chat", version, *declared, "--data-binary", "@-", stdin=body)
                assert (response.status, response.code) == (status, code), (version, declared)
        for fields, status in (
            (("-H", FIELD[:30_000]), 200),
            ([option for i in range(40) for option in ("-H", f"X-{i}: {'a' * 1000}")], 431),
            ([option for i in range(101) for option in ("-H", f"X-{i}: a")], 431),
        ):
            response = await curl(nginx, "/v1/models", version, *fields)
            assert response.status == status, version
            assert status == 200 or response.code == "headers_too_large"
    response = await curl(nginx, "/v1/models", "--http1.1", "-H", FIELD)
    assert (response.status, response.code) == (431, "headers_too_large")


def test_sizes_and_timeouts_match_those_of_the_gateway() -> None:
    """Otherwise nginx would end a request that a gateway continues, or refuse it with another error."""
    config = (CONFIG / "headrace.conf").read_text()
    settings = Settings(_env_file=None)

    def value(name: str) -> str:
        found: list[str] = re.findall(rf"^ {{4}}{name} ([^;]+);", config, re.MULTILINE)
        assert len(found) == 1, name
        return found[0]

    def seconds(name: str) -> float:
        return float(value(name).removesuffix("s"))

    assert value("client_max_body_size") == value("client_body_buffer_size") == "32m"
    assert settings.max_body_bytes == 32 * 1024 * 1024
    count, kibibytes = value("large_client_header_buffers").removesuffix("k").split()
    assert int(kibibytes) * 1024 >= MOST_HEAD_BYTES
    assert int(count) > 1
    assert seconds("proxy_read_timeout") >= 3 * settings.heartbeat_s
    assert seconds("send_timeout") == settings.write_deadline_s
    assert seconds("proxy_send_timeout") > settings.request_deadline_s, "a body may wait unread for that long"
    assert seconds("client_header_timeout") == settings.request_deadline_s


async def test_security_headers_appear_once(behind: System, nginx: Nginx) -> None:
    stream_id = (await curl(nginx, "/chat", *chat("echo"))).headers["x-stream-id"][0]
    paths = {"/": 200, "/v1/models": 200, f"/chat/stream/{stream_id}": 200, "/nowhere": 404, "/metrics": 404}
    for path, status in paths.items():
        response = await curl(nginx, path)
        assert response.status == status
        assert response.headers["x-content-type-options"] == ["nosniff"], path
        assert response.headers["cache-control"] == (["no-cache"] if path == "/" else ["no-store"]), path
        assert response.headers["strict-transport-security"] == ["max-age=31536000"], path
        assert response.headers["server"] == ["nginx"], path
        assert "content-encoding" not in response.headers, path


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/healthz", "//metrics", "/%6detrics", "/page/../metrics"])
async def test_internal_paths_are_not_served(nginx: Nginx, path: str) -> None:
    response = await curl(nginx, path, "--path-as-is")
    assert (response.status, response.code) == (404, "not_found")


@pytest.mark.parametrize("own", ["my-own.id", "", 'not one"', "x" * 65])
async def test_the_log_lines_of_nginx_and_gateway_share_a_request_id(behind: System, nginx: Nginx, own: str) -> None:
    """The id is the caller's own if it is a plain word."""
    response = await curl(nginx, "/v1/models", *(("-H", f"X-Request-Id: {own}") if own else ()))
    (request_id,) = response.headers["x-request-id"]
    assert (request_id == own) == (own == "my-own.id")

    async def is_logged() -> bool:
        logs = [gateway.log.read_text() for gateway in behind.gateways]
        of_gateways = [line for log in logs for line in log.splitlines() if f'"request_id":"{request_id}"' in line]
        of_nginx = [line for line in nginx.logged() if line["request_id"] == request_id]
        return len(of_gateways) == len(of_nginx) == 1

    await behind.eventually(is_logged)


async def test_nothing_is_served_without_tls(nginx: Nginx) -> None:
    page = await curl(nginx, f"http://localhost:{nginx.clear_port}/")
    assert (page.status, page.headers["location"]) == (308, ["https://chat.example.com/"])
    for options in ((), ("-X", "POST")):
        response = await curl(nginx, f"http://localhost:{nginx.clear_port}/chat?ticket=x", *options)
        assert (response.status, response.code) == (403, "https_only")


LAST = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


#: The refusals of a gateway for ambiguous requests.
REFUSED = re.compile(rb"not valid HTTP/1\.1|only HTTP/1\.1|Host: must|Transfer-Encoding: only|Upgrade: not")


async def test_an_ambiguous_request_is_read_in_one_way(behind: System, nginx: Nginx) -> None:
    """Nginx refuses it and closes, or each request gets a response of its own. nginx forwards nothing that a gateway
    would read in another way, and little that a gateway refuses."""

    async def answers_to(request: bytes) -> bytes:
        async with connected(nginx.port, nginx.tls) as connection:
            await connection.send((request + SMUGGLED).replace(b"/healthz", b"/v1/models") + LAST)
            return await connection.rest()

    received = await asyncio.gather(*map(answers_to, AMBIGUOUS.values()))
    for name, answers in zip(AMBIGUOUS, received, strict=True):
        assert answers.count(b"HTTP/1.1 ") in ({0} if name == "HTTP/0.9" else {1, 3}), name
    refused = {name for name, answers in zip(AMBIGUOUS, received, strict=True) if REFUSED.search(answers)}
    assert refused == {"HTTP/0.9", "a target of other bytes"}
