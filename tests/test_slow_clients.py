"""Clients that send or read slowly, or nothing, lose their connections; others are served all the while."""

import asyncio
import json
import os
import resource
import select
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.edge.protocol import protocol
from gateway.main import server_config
from shared.settings import Settings
from tests.conftest import StartSystem
from tests.fakes import Answer
from tests.raw_client import RawConnection, connected
from tests.raw_requests import HOST, SMUGGLED, post
from tests.system import System, ask

#: A busy gateway has to read whole heads within it.
DEADLINE_S = 4
#: With less, the kernel already closes the connection of a client that takes a little within each deadline.
WRITE_DEADLINE_S = 2
#: Of the gateway whose clients must not be disconnected, even if they stand still for a while.
LONG_DEADLINE_S = 6
MANY = 150
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SMALL_BUFFER = 4096


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One gateway that waits for a few seconds."""
    system = System(
        tmp_path_factory.mktemp("slow"),
        gateways=1,
        workers=1,
        providers=("openai",),
        send_buffer_bytes=SMALL_BUFFER,
        request_deadline_s=DEADLINE_S,
        write_deadline_s=WRITE_DEADLINE_S,
    )
    try:
        await system.start()
        async with await system.stream("echo") as connection:  # opens all connections to Redis, which tests count too
            await connection.rest()
        yield system
    finally:
        await system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def patient_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One gateway that waits for some seconds."""
    system = System(
        tmp_path_factory.mktemp("patient"),
        gateways=1,
        workers=1,
        providers=("openai",),
        send_buffer_bytes=SMALL_BUFFER,
        write_deadline_s=LONG_DEADLINE_S,
    )
    try:
        await system.start()
        async with await system.stream("echo") as connection:
            await connection.rest()
        yield system
    finally:
        await system.stop()


def sockets_of(system: System) -> int:
    """Number of sockets that the gateway has open."""
    folder = Path(f"/proc/{system.gateways[0].pid}/fd")
    count = 0
    for entry in folder.iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # closed meanwhile
    return count


async def until_all_are_closed(system: System, before: int) -> None:
    """Wait until the gateway has closed its end of every connection of the test, and serves others meanwhile."""

    async def are_closed() -> bool:
        assert (await system.http.get(f"{system.url}/healthz")).status_code == 200
        return sockets_of(system) <= before + 1  # the client of the line above stays connected

    await system.eventually(are_closed, timeout_s=60)


async def settled(system: System) -> int:
    """Wait until connections of earlier tests are gone. Return the number of sockets."""
    await system.http.get(f"{system.url}/healthz")
    counts = [sockets_of(system)]
    while len(counts) < 4 or len(set(counts[-4:])) > 1:
        await asyncio.sleep(0.1)
        counts.append(sockets_of(system))
    return counts[-1]


class Trickle:
    """A client that sends a byte at a time, until the gateway closes the connection."""

    def __init__(self, port: int, prefix: bytes, rest: bytes) -> None:
        self._port = port
        self._prefix = prefix
        self._rest = rest

    async def run(self) -> bytes:
        """Return everything that the gateway sent."""
        async with connected(self._port) as connection:
            await connection.send(self._prefix)
            sending = asyncio.create_task(self._send(connection))
            try:
                return await connection.rest()
            finally:
                sending.cancel()
                await asyncio.wait((sending,))

    async def _send(self, connection: RawConnection) -> None:
        for at in range(len(self._rest)):
            await connection.send(self._rest[at : at + 1])
            await asyncio.sleep(0.05)


TRICKLED = {
    "nothing": (b"", b""),
    "a head": (b"GET /healthz HTTP/1.1\r\n", b"X-A: " + b"a" * 10_000),
    "a request line": (b"", b"G" + b"E" * 10_000),
    "blank lines": (b"", b"\r\n" * 10_000),
    "half a head": (b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n", b""),
}


@pytest.mark.parametrize("trickled", TRICKLED.values(), ids=TRICKLED)
async def test_many_heads_that_trickle_in_are_closed(
    impatient_gateway: System, trickled: tuple[bytes, bytes]
) -> None:
    system, before = impatient_gateway, await settled(impatient_gateway)
    port = system.gateways[0].port
    clients = [asyncio.create_task(Trickle(port, *trickled).run()) for _ in range(MANY)]
    await until_all_are_closed(system, before)
    for sent in await asyncio.gather(*clients):
        assert sent == b"" or sent.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_many_bodies_that_trickle_in_are_refused(impatient_gateway: System, framing: str) -> None:
    """The deadline is for the whole body: a byte now and then does not extend it."""
    system, before = impatient_gateway, await settled(impatient_gateway)
    port, prefix = system.gateways[0].port, post(HOST, framing, target="/chat/stream")
    rest = b"1\r\na\r\n" * 1000 if "chunked" in framing else b"a" * 990
    clients = [asyncio.create_task(Trickle(port, prefix, rest).run()) for _ in range(MANY // 2)]
    await until_all_are_closed(system, before)
    for sent in await asyncio.gather(*clients):
        assert sent.startswith(b"HTTP/1.1 408")


class SlowReader:
    """A client that reads a first byte, and then some bytes now and then, or nothing, with small buffers."""

    has_begun = False

    def __init__(self, port: int, request: bytes, size: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self._socket.setblocking(False)
        self._port, self._request, self._size = port, request, size

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        await loop.sock_sendall(self._socket, self._request)
        self.has_begun = bool(await loop.sock_recv(self._socket, 1))
        while not self._size:
            await asyncio.sleep(60)
        with self._socket:
            while await loop.sock_recv(self._socket, self._size):
                await asyncio.sleep(0.1)

    def close(self) -> None:
        self._socket.close()


LONG = "x" * 2000
#: More than the buffers of a connection hold, and than a slow reader takes in a minute.
PIECES = 1000


async def long_answer(system: System) -> str:
    """Return the id of a stream with a long answer that has ended."""
    system.fake.play("long", Answer(deltas=[LONG] * PIECES))
    stream_id = await system.post("long")
    await system.ended(stream_id, timeout_s=60)
    return stream_id


@pytest.mark.parametrize("size", [0, 1, 2048])
@pytest.mark.parametrize("target", ["/chat/{}", "/chat/stream/{}"])
async def test_a_client_that_hardly_reads_is_disconnected(impatient_gateway: System, target: str, size: int) -> None:
    """Neither a stream, nor a complete response that waits in the gateway's buffer is kept for it, although the
    kernel sees that it takes some bytes within each deadline."""
    system = impatient_gateway
    path = target.format(await long_answer(system))
    before = await settled(system)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    readers = [SlowReader(system.gateways[0].port, request, size) for _ in range(20)]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:

        async def have_all_begun() -> bool:
            return all(reader.has_begun for reader in readers)

        await system.eventually(have_all_begun)
        await until_all_are_closed(system, before)
    finally:
        for task, reader in zip(tasks, readers, strict=True):
            task.cancel()
            reader.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_client_that_reads_slowly_but_enough_gets_all(patient_gateway: System) -> None:
    """64 KiB within each deadline are enough. The answer takes more than two deadlines."""
    system = patient_gateway
    stream_id = await long_answer(system)
    async with connected(system.gateways[0].port) as connection:
        await connection.send(f"GET /chat/{stream_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        _, headers = await connection.head()
        left, body = int(headers["content-length"]), b""
        assert left > LONG.count("x") * PIECES
        while left > len(body):
            body += await connection.read(min(32 * 1024, left - len(body)))
            await asyncio.sleep(LONG_DEADLINE_S / 24)
        assert json.loads(body)["text"] == LONG * PIECES


async def test_idle_and_half_closed_connections_are_closed(patient_gateway: System) -> None:
    system, before = patient_gateway, await settled(patient_gateway)

    async def ask_and_idle(half_closes: bool) -> None:
        async with connected(system.gateways[0].port) as connection:
            await connection.send(SMUGGLED)
            if half_closes:
                connection.end()
            assert (await connection.rest()).startswith(b"HTTP/1.1 200")

    await asyncio.gather(*(ask_and_idle(half_closes=at % 2 == 1) for at in range(MANY)))
    await until_all_are_closed(system, before)


async def test_a_request_that_came_while_the_gateway_stood_still_is_answered(start_system: StartSystem) -> None:
    """The stall is longer than the connection may be idle."""
    system = await start_system(gateways=1, workers=1)
    (gateway,) = system.gateways
    async with connected(gateway.port) as connection:
        await connection.send(SMUGGLED)
        assert (await connection.answer()).status == 200
        gateway.signal(signal.SIGSTOP)
        try:
            await connection.send(LAST)
            await asyncio.sleep(6)
        finally:
            gateway.signal(signal.SIGCONT)
        assert (await connection.answer()).status == 200


async def test_a_half_closed_reader_is_let_go(impatient_gateway: System) -> None:
    system = impatient_gateway
    gate = asyncio.Event()
    system.fake.play("half", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    before = await settled(system)
    body = json.dumps(ask("half", grace_s=0)).encode()
    async with connected(system.gateways[0].port) as connection:
        await connection.send(post(HOST, f"Content-Length: {len(body)}", target="/chat/stream", body=body))
        await connection.until(b"event: token")
        connection.end()
        await until_all_are_closed(system, before)
    gate.set()


# --- the limit of all connections


async def answer_after_body(scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive).body()
    await Response(headers={"Content-Length": "0"})(scope, receive, send)


@asynccontextmanager
async def crowded(most: int) -> AsyncIterator[int]:
    """Yield the port of a server that accepts ``most`` connections, with the protocol of a gateway."""
    settings = Settings(_env_file=None)
    config = server_config(settings, answer_after_body)
    config.http, config.lifespan = protocol(settings, most), "off"
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.should_exit = server.force_exit = True
    await task


async def test_an_idle_connection_makes_room_for_a_new_one() -> None:
    async with crowded(10) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        async with connected(port) as connection:
            await connection.send(SMUGGLED)
            assert (await connection.answer()).status == 200
            assert await idle[0][0].read() == b"", "the one that has waited longest is closed"
            for _, writer in idle[1:]:
                writer.write(SMUGGLED)
            for reader, _ in idle[1:]:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _, writer in idle:
            writer.close()


async def test_with_all_connections_in_use_a_new_one_is_refused() -> None:
    async with crowded(3) as port:
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in busy:
            writer.write(post(HOST, "Content-Length: 5", "Expect: 100-continue", target="/body"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        async with connected(port) as connection:
            answer = await connection.answer()
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "too_many_connections", "2")
            assert await connection.rest() == b""
        busy[0][1].close()
        await busy[0][1].wait_closed()
        async with asyncio.timeout(20):
            while True:
                async with connected(port) as connection:
                    await connection.send(SMUGGLED)
                    if (await connection.answer()).status == 200:
                        break
        for _, writer in busy[1:]:
            writer.close()


async def test_a_gateway_without_free_descriptors_recovers(impatient_gateway: System) -> None:
    """It neither ends nor spins: connections that it cannot accept are closed, and later ones are served."""
    system, gateway = impatient_gateway, impatient_gateway.gateways[0]
    await settled(system)
    used = len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))
    soft, hard = resource.prlimit(
        gateway.pid, resource.RLIMIT_NOFILE, (used + 5, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    try:
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            began, cpu = time.monotonic(), cpu_s(gateway.pid)
            await asyncio.sleep(1)
            assert cpu_s(gateway.pid) - cpu < 0.7 * (time.monotonic() - began), "it spins"
            assert gateway.alive
    finally:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (soft, hard))

    async def is_served() -> bool:
        async with connected(gateway.port) as connection:
            await connection.send(LAST)
            return (await connection.rest()).startswith(b"HTTP/1.1 200")

    await system.eventually(is_served)
    await system.ended(await system.post("echo"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_whole_answers_that_are_not_read_have_a_limit_together(start_system: StartSystem) -> None:
    """Sixty answers of 3 MB each, long before any deadline: the connections that hold most are reset."""
    system = await start_system(gateways=1, workers=1, providers=("openai",), send_buffer_bytes=SMALL_BUFFER)
    system.fake.play("large", Answer(deltas=["x" * 8000] * 380))
    stream_id = await system.post("large")
    await system.ended(stream_id)
    request = f"GET /chat/{stream_id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    with ExitStack() as stack:
        readers = []
        for _ in range(60):
            each = stack.enter_context(socket.socket())
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            each.connect(("127.0.0.1", system.gateways[0].port))
            each.sendall(request)
            readers.append(each)

        async def all_have_begun() -> bool:
            return len(select.select(readers, [], [], 0)[0]) == len(readers)

        await system.eventually(all_have_begun, timeout_s=100)
        assert (await system.http.get(f"{system.url}/healthz")).status_code == 200
        whole = sum(await asyncio.gather(*(asyncio.to_thread(_read_all, each) for each in readers))) // 3_040_000
        assert 5 <= whole <= 40


def _read_all(connection: socket.socket) -> int:
    """Return the number of bytes until the end; 0 if the connection is reset."""
    connection.settimeout(100)
    received = 0
    try:
        while piece := connection.recv(1 << 20):
            received += len(piece)
    except ConnectionError:
        return 0
    return received if received > 3_040_000 else 0
