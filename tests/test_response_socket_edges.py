"""WebSockets under attack, under load and in a shutdown: credentials, limits, slow clients, lost gateways."""

import asyncio
import json
import signal
import socket as sockets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.typing import Subprotocol

from tests.browser import browser, need_browser
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, make_key, run_headrace, token
from tests.fakes.answer import Answer, Turnstile
from tests.raw_client import RawConnection, connected
from tests.response_socket import ResponseSocket, open_socket, response_id, text_of
from tests.system import System

WORDS = tuple(f"w{i} " for i in range(12))
TEXT = "".join(WORDS)
PIECE = "0123456789" * 300
MEGABYTE = 1024 * 1024
ALICE = bearer(token("alice"))
DRAIN_S = 9
HANDSHAKE = "\r\n".join(
    (
        *("GET /v1/responses HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"),
        *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        *(f"{name}: {value}" for name, value in ALICE.items()),
        "\r\n",
    )
)


#: Settings of single gateways.
OWN = {
    "gateway.2": {
        "HEADRACE_WEBSOCKET_LIFE_S": "8",
        "HEADRACE_WRITE_DEADLINE_S": "2",
        "HEADRACE_REQUEST_DEADLINE_S": "2",
    },
    "gateway.4": {"HEADRACE_WEBSOCKET_PONG_TIMEOUT_S": "2"},
}


class Edge(System):
    def _environment(self, name: str) -> dict[str, str]:
        return super()._environment(name) | OWN.get(name, {})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """Four gateways that ask for credentials. Tests stop and restart the third."""
    system = Edge(
        tmp_path_factory.mktemp("edge"),
        gateways=4,
        workers=1,
        providers=("openai",),
        credentials=boot_credentials(),
        auth="keys,jwt",
        cors_origins="https://chat.example.com",
        max_stream_bytes=64 * MEGABYTE,
        window=64,
        drain_s=DRAIN_S,
        websocket_responses=2,
        heartbeat_s=1,
        **JWT_SETTINGS,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def refused(edge: Edge, headers: dict[str, str] | None = None, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return status and error of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(edge, headers=headers, **options):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body)["error"]


async def test_a_handshake_needs_credentials_and_a_page_that_is_allowed(edge: Edge) -> None:
    edge.fake.play("edge-auth", Answer(deltas=("yes",)))
    status, error = await refused(edge)
    assert (status, error["type"], error["code"]) == (401, "authentication_error", "unauthenticated")
    assert (await refused(edge, bearer("hr-none")))[0] == 401
    for origin in ("https://evil.example.com", "null"):
        status, error = await refused(edge, ALICE, origin=origin)
        assert (status, error["code"]) == (403, "origin_refused")
    own_origin = edge.url
    for origin in ("https://chat.example.com", own_origin):
        async with open_socket(edge, headers=ALICE, origin=origin) as socket:
            await socket.create("openai/edge-auth")
            assert text_of(await socket.rest()) == "yes"


async def test_a_browser_sends_its_key_as_a_subprotocol(edge: Edge) -> None:
    key = f"openai-insecure-api-key.{token('browser')}"
    offered = [Subprotocol("responses"), Subprotocol(key)]
    async with open_socket(edge, subprotocols=offered, origin="https://chat.example.com") as socket:
        assert socket.connection.subprotocol == "responses"
    assert (await refused(edge, subprotocols=[Subprotocol("responses")]))[0] == 401
    logs = "".join(gateway.log.read_text() for gateway in edge.gateways)
    assert token("browser")[:40] not in logs


#: A page's own code: text of the answer, or the close code.
PAGE = """
const [url, key, tell] = arguments;
const socket = new WebSocket(url, ["responses", `openai-insecure-api-key.${key}`]);
let text = "";
const request = { type: "response.create", model: "openai/edge-page", input: "hi" };
socket.onopen = () => socket.send(JSON.stringify(request));
socket.onclose = (event) => tell(event.code);
socket.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.type === "response.output_text.delta") text += event.delta;
  if (event.type === "response.completed") tell(text);
};
"""


async def test_a_page_of_a_browser_connects_from_allowed_origins_only(edge: Edge) -> None:
    need_browser()
    edge.fake.play("edge-page", Answer(deltas=WORDS))
    address = f"{edge.url.replace('http', 'ws', 1)}/v1/responses"

    def run() -> list[str | int]:
        found: list[str | int] = []
        with browser() as driver:
            for gateway in edge.gateways[:2]:  # the second one is another origin
                driver.get(f"{gateway.url}/healthz")
                found.append(driver.execute_async_script(PAGE, address, token("page")))
        return found

    assert await asyncio.to_thread(run) == [TEXT, 1006]


async def test_a_key_that_lacks_a_scope_or_is_revoked(edge: Edge) -> None:
    key = await make_key(edge, "reader", "--scopes", "read")
    async with open_socket(edge, headers=bearer(key)) as socket:
        await socket.create("openai/edge-auth")
        denied = await socket.next()
        assert (denied["status"], denied["error"]["code"]) == (403, "forbidden")
        await socket.send("response.cancel", response_id="resp_x")
        assert (await socket.next())["status"] == 403
        revoked = await asyncio.to_thread(run_headrace, edge, "keys", "revoke", key.split("-")[1])
        assert revoked.returncode == 0
        assert (await socket.next())["error"]["code"] == "unauthenticated"
        assert (await socket.closed())[0] == 1008


async def test_others_responses_are_not_found(edge: Edge) -> None:
    edge.fake.play("edge-own", Answer(deltas=("mine",)))
    async with open_socket(edge, headers=ALICE) as alice, open_socket(edge, headers=bearer(token("bob"))) as bob:
        await alice.create("openai/edge-own")
        response = response_id(await alice.rest())
        for kind in ("response.resume", "response.cancel"):
            await bob.send(kind, response_id=response)
            assert (await bob.next())["error"]["code"] == "stream_not_found"
        await bob.create("openai/edge-own", previous_response_id=response)
        assert (await bob.next())["error"]["code"] == "previous_response_not_found"


async def test_a_connection_has_so_many_responses_and_so_many_that_wait(edge: Edge) -> None:
    held = Turnstile()
    edge.fake.play("edge-many", Answer(deltas=("a",), turnstile=held))
    async with open_socket(edge, headers=ALICE) as socket:
        for track in ("one", "two"):
            await socket.create("openai/edge-many", stream_id=track)
            await socket.until("response.in_progress", track)
        await socket.create("openai/edge-many", stream_id="three")
        error = await socket.next("three")
        assert (error["status"], error["error"]["code"]) == (429, "too_many_responses")
        assert error["headers"]["retry-after"]
        for _ in range(17):
            await socket.create("openai/edge-many", stream_id="one")
        assert (await socket.next("one"))["error"]["code"] == "too_many_responses"
        await held.allow(1)
        for _ in range(17):  # the one that ran, and the sixteen that waited
            assert text_of(await socket.rest("one")) == "a"


PIECES = 3000


def many(number: int) -> Iterator[str]:
    return (f"[{i}]{PIECE}" for i in range(PIECES))


@asynccontextmanager
async def slow_socket(edge: Edge, gateway: int) -> AsyncIterator[ResponseSocket]:
    """A client that takes little while its application reads nothing."""
    small = sockets.socket()
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 16 * 1024)
    small.connect(("127.0.0.1", edge.gateways[gateway].port))
    async with open_socket(edge, gateway, ALICE, sock=small, max_queue=1, ping_interval=None) as slow:
        yield slow


async def test_a_slow_reader_stops_the_provider_and_no_other_response(edge: Edge) -> None:
    edge.fake.play("edge-long", Answer(deltas=many))
    before = edge.gateways[0].rss_bytes
    async with slow_socket(edge, 0) as slow:
        for track in ("one", "two"):
            await slow.create("openai/edge-long", stream_id=track, grace_s=60)
        first, _ = [await slow.until("response.in_progress", track) for track in ("one", "two")]
        calls = [call for call in edge.fake.calls if call.model == "edge-long"]
        for call in calls:
            await call.wait_stalled(1.0, timeout_s=30)
            assert call.sent_bytes < PIECES * len(PIECE) / 2
        assert edge.gateways[0].rss_bytes - before < 24 * MEGABYTE
        async with open_socket(edge, headers=ALICE) as other:
            edge.fake.play("edge-other", Answer(deltas=WORDS))
            await other.create("openai/edge-other")
            assert text_of(await other.rest()) == TEXT
        slow.cut()
    assert text_of(await resumed(edge, 2, first)) == "".join(many(0))


async def test_a_client_that_takes_nothing_is_disconnected_and_can_resume(edge: Edge) -> None:
    edge.fake.play("edge-dead", Answer(deltas=many))
    async with slow_socket(edge, 1) as slow:
        await slow.create("openai/edge-dead", background=True)
        first = await slow.until("response.in_progress")

        async def is_over() -> bool:
            """The log has the connection when it is over."""
            lines = edge.gateways[1].log.read_text().splitlines()
            return any('"status":101' in line and '"duration_s"' in line for line in lines)

        await edge.eventually(is_over, timeout_s=30)
        slow.cut()
    assert text_of(await resumed(edge, 0, first)) == "".join(many(0))


async def test_a_client_that_answers_no_ping_is_disconnected(edge: Edge) -> None:
    """A plain socket answers none."""
    async with connected(edge.gateways[3].port) as connection:
        await connection.send(HANDSHAKE.encode())
        assert (await connection.head())[0] == 101
        received = await connection.rest()
    assert received[:1] == b"\x89"  # a ping
    assert b"keepalive ping timeout" in received


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


async def test_large_messages_that_are_refused_are_not_kept(edge: Edge) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_socket(edge, headers=ALICE)) for _ in range(8)]
        before = edge.gateways[0].rss_bytes
        for socket in clients:
            await socket.connection.send(b"x" * (16 * MEGABYTE))
            assert "binary" in (await socket.next())["error"]["message"]

        async def is_free() -> bool:
            return edge.gateways[0].rss_bytes - before < 64 * MEGABYTE

        await edge.eventually(is_free)


async def test_an_upgrade_waits_until_the_earlier_response_was_taken(edge: Edge) -> None:
    """Else the new protocol would not know that the client takes nothing, and write without limit."""
    small = sockets.socket()
    small.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    small.connect(("127.0.0.1", edge.gateways[0].port))
    reader, writer = await asyncio.open_connection(sock=small, limit=4096)
    connection = RawConnection(reader, writer)
    await connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await connection.head())[0] == 200
    await connection.send(HANDSHAKE.encode())
    received = await connection.rest()
    writer.transport.abort()
    assert len(received) > 160 * 1024  # more than all buffers between
    assert b"an earlier request of this connection has not been answered" in received


UNENDING = {
    "a part of a message": [frame(Opcode.TEXT, b"x" * 200_000)[:100_000]],
    "a small part": [frame(Opcode.TEXT, b"x" * 200)[:100]],
    "fragments": [frame(Opcode.TEXT, b"{", fin=False), *[frame(Opcode.CONT, b"", fin=False)] * 20_000],
}


@pytest.mark.parametrize("pieces", UNENDING.values(), ids=UNENDING)
async def test_a_message_that_never_ends_is_refused(edge: Edge, pieces: list[bytes]) -> None:
    async with connected(edge.gateways[1].port) as connection:
        await connection.send(HANDSHAKE.encode())
        assert (await connection.head())[0] == 101
        await connection.send(b"".join(pieces))
        received = await connection.rest()
    assert int(CloseCode.POLICY_VIOLATION).to_bytes(2) + b"message: " in received


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_pings_of_a_client_that_reads_nothing_take_no_memory(edge: Edge, opcode: Opcode) -> None:
    """A thousand are in the budget of a connection, and those that come together have one answer."""
    async with connected(edge.gateways[0].port) as connection:
        await connection.send(HANDSHAKE.encode())
        assert (await connection.head())[0] == 101
        before = edge.gateways[0].rss_bytes
        floods = frame(opcode, b"p" * 125) * 1000
        for _ in range(300):  # 37 MB
            await connection.send(floods)
        assert edge.gateways[0].rss_bytes - before < 8 * MEGABYTE
        received = await connection.until(int(CloseCode.POLICY_VIOLATION).to_bytes(2) + b"pings and pongs: ")
    assert received.count(b"p" * 125) < 500


async def test_pings_of_a_lively_client_are_answered(edge: Edge) -> None:
    """A thousand of them are no flood."""
    async with connected(edge.gateways[0].port) as connection:
        await connection.send(HANDSHAKE.encode())
        assert (await connection.head())[0] == 101
        for i in range(900):
            await connection.send(frame(Opcode.PING, b"%03d" % i))
            await connection.until(b"\x8a\x03%03d" % i)


#: An endless message of empty fragments: 9,000 of them are one write, and one error.
SMALL_FRAMES = (
    frame(Opcode.TEXT, b"", fin=False) + frame(Opcode.CONT, b"", fin=False) * 9000 + frame(Opcode.CONT, b"")
)
REQUESTS = 400


async def test_other_requests_are_answered_between_the_parts_of_a_flood(edge: Edge) -> None:
    """Counted in bytes of the flood that the gateway takes meanwhile, at any speed: 256 kB for each turn of its event
    loop if it parsed all that it reads."""
    answered = asyncio.Event()

    async def flood(connection: RawConnection) -> int:
        sent = 0
        while not answered.is_set():
            await connection.send(SMALL_FRAMES)
            await asyncio.sleep(0)  # also if the connection is closed
            sent += len(SMALL_FRAMES)
        return sent

    async with connected(edge.gateways[0].port) as flooding, connected(edge.gateways[0].port) as other:
        await flooding.send(HANDSHAKE.encode(), SMALL_FRAMES)
        await flooding.until(b"invalid_json")
        flooded = asyncio.create_task(flood(flooding))
        try:
            await other.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * REQUESTS)
            for _ in range(REQUESTS):
                assert (await other.answer()).status == 200
        finally:
            answered.set()
        assert await flooded < 20 * MEGABYTE  # 6 MB may be in the buffers of the kernel


async def test_a_message_that_comes_with_the_handshake_is_answered(edge: Edge) -> None:
    edge.fake.play("edge-early", Answer(deltas=WORDS))
    request = {"type": "response.create", "model": "openai/edge-early", "input": "hi"}
    create = frame(Opcode.TEXT, json.dumps(request).encode())
    first = HANDSHAKE.encode() + create
    for pieces in ([first + frame(Opcode.PING, b"early")], [first[:-40], first[-40:] + frame(Opcode.PING, b"early")]):
        async with connected(edge.gateways[0].port) as connection:
            await connection.send(*pieces)
            assert (await connection.head())[0] == 101
            received = await connection.until(b"response.completed")
        assert b"early" in received
    async with connected(edge.gateways[0].port) as connection:
        await connection.send(HANDSHAKE.replace("Bearer", "Basic").encode() + create)
        assert (await connection.head())[0] == 401


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("GET /v1/responses", "GET /v1/models"), 200),  # the wish to upgrade is ignored elsewhere
        (("GET /v1/responses", "POST /v1/responses"), 400),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y"), 400),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: \u00e9"), 400),
        (("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Version: 13\r\nX-Long: {'x' * 9000}"), 431),
        (("Upgrade: websocket", "Upgrade: h2c"), 405),
    ],
)
async def test_a_handshake_of_another_form_gets_an_http_error(
    edge: Edge, change: tuple[str, str], status: int
) -> None:
    async with connected(edge.gateways[0].port) as connection:
        await connection.send(HANDSHAKE.replace(*change).encode())
        assert (await connection.head())[0] == status


async def resumed(edge: Edge, gateway: int, seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async with open_socket(edge, gateway, headers=ALICE) as socket:
        after = {"response_id": response_id(seen), "starting_after": seen[-1]["sequence_number"]}
        await socket.send("response.resume", **after)
        return seen + await socket.rest()


async def test_an_old_connection_lets_its_responses_end(edge: Edge) -> None:
    held = Turnstile()
    edge.fake.play("edge-old", Answer(deltas=WORDS, turnstile=held))
    async with open_socket(edge, 1, headers=ALICE) as socket:
        await socket.create("openai/edge-old", stream_id="one")
        begun = await socket.until("response.in_progress", "one")
        while True:  # until it is too old
            await socket.create("openai/unknown-model-of-nobody", "x", temperature=9)
            code = (await socket.next())["error"]["code"]
            if code == "websocket_connection_limit_reached":
                break
            await asyncio.sleep(0.2)
        await held.allow(len(WORDS))
        assert text_of(begun + await socket.rest("one")) == TEXT
        assert (await socket.closed())[0] == 1001


async def begin(edge: Edge, socket: ResponseSocket, model: str, turnstile: Turnstile) -> list[dict[str, Any]]:
    """Begin a response, and read it up to its third token."""
    await turnstile.allow(3)
    await socket.create(f"openai/{model}", background=True)
    seen: list[dict[str, Any]] = []
    while text_of(seen) != "".join(WORDS[:3]):
        seen.append(await socket.next())
    return seen


async def test_a_response_survives_the_death_of_its_gateway(edge: Edge) -> None:
    held = Turnstile()
    edge.fake.play("edge-killed", Answer(deltas=WORDS, turnstile=held))
    async with open_socket(edge, 2, headers=ALICE) as socket:
        seen = await begin(edge, socket, "edge-killed", held)
        edge.gateways[2].signal(signal.SIGKILL)
        assert (await socket.closed())[0] == 1006
    await held.allow(len(WORDS))
    seen = await resumed(edge, 0, seen)
    assert text_of(seen) == TEXT
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    edge.gateways[2].stop()
    edge.gateways[2].start()
    await edge.ready()


async def test_a_gateway_that_drains_lets_responses_end_and_cuts_the_last_with_a_hint(edge: Edge) -> None:
    short, long = Turnstile(), Turnstile()
    edge.fake.play("edge-short", Answer(deltas=WORDS, turnstile=short))
    edge.fake.play("edge-endless", Answer(deltas=WORDS, turnstile=long))
    idle, one = open_socket(edge, 2, headers=ALICE), open_socket(edge, 2, headers=ALICE)
    async with idle as unused, one as ending, open_socket(edge, 2, headers=ALICE) as endless:
        begun = await begin(edge, ending, "edge-short", short)
        cut = await begin(edge, endless, "edge-endless", long)
        edge.gateways[2].signal(signal.SIGTERM)
        assert (await unused.closed())[0] == 1012  # at once
        await ending.create("openai/edge-short", stream_id="late")
        assert (await ending.next("late"))["error"]["code"] == "draining"
        await short.allow(len(WORDS))
        assert text_of(begun + await ending.rest()) == TEXT
        assert (await ending.closed())[0] == 1012
        hint = (await endless.rest())[-1]
        assert (hint["status"], hint["error"]["code"]) == (503, "draining")
        assert hint["response_id"] == response_id(cut)
        assert (await endless.closed())[0] == 1012
    assert await edge.gateways[2].wait() == 0
    await long.allow(len(WORDS))
    assert text_of(await resumed(edge, 0, cut)) == TEXT
    edge.gateways[2].start()
    await edge.ready()
