"""Traces leave for the collector alone, carry nothing that a caller smuggles into them, and hold up nothing."""

import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import pytest_asyncio

from tests.system import System, ask

CANARY = "canary-in-a-header"


class Exit:
    """A collector that misbehaves. ``mode``: ``redirect`` to ``other``, ``hang``, or ``reason`` for a failure with a
    long reason. ``redirected``: requests that followed the redirect."""

    def __init__(self) -> None:
        self.mode = "redirect"
        self.bodies: list[bytes] = []
        self.redirected: list[str] = []
        self.closing = threading.Event()
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                place.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                if place.mode == "hang":
                    place.closing.wait(60)
                    return
                if place.mode == "redirect":
                    self.send_response(307)
                    self.send_header("Location", f"{place.other_url}/elsewhere")
                else:
                    self.send_response(400, f"{CANARY}\x1b[2J" + "a" * 1000)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Other(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                place.redirected.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Handler, Other)]
        self.url, self.other_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def run(self) -> Iterator["Exit"]:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        yield self
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="module")
def collector() -> Iterator[Exit]:
    yield from Exit().run()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced_system(tmp_path_factory: pytest.TempPathFactory, collector: Exit) -> AsyncIterator[System]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BSP_MAX_QUEUE_SIZE": "64",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
    }
    folder = tmp_path_factory.mktemp("trace-export")
    system = System(folder, gateways=1, workers=1, providers=("openai",), environment=environment)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def traced(traced_system: System) -> System:
    """The system with all processes running: one test stops them, and need not be the last."""
    for process in (*traced_system.gateways, *traced_system.workers):
        if not process.alive:
            process.start()
    await traced_system.ready()
    return traced_system


async def exported(system: System, collector: Exit, count: int) -> None:
    """Create streams until the collector has got ``count`` more requests."""
    wanted = len(collector.bodies) + count

    async def have_arrived() -> bool:
        await system.ended(await system.post("echo"))
        return len(collector.bodies) >= wanted

    await system.eventually(have_arrived, timeout_s=90)


async def test_a_collectors_redirect_is_not_followed(traced: System, collector: Exit) -> None:
    collector.mode = "redirect"
    await exported(traced, collector, 2)
    assert collector.redirected == []


async def test_a_caller_puts_nothing_into_a_trace_but_its_context(traced: System, collector: Exit) -> None:
    """Trace state and baggage are dropped, and headers choose no other collector."""
    collector.mode = "redirect"
    trace_id = "ab" * 16
    for parent in (f"00-{trace_id}-{'cd' * 8}-01", CANARY, f"00-{CANARY}-01", "00-" + "a" * 20_000, f"ff-{trace_id}"):
        headers = {
            "traceparent": parent,
            "tracestate": f"vendor={CANARY}",
            "baggage": f"user={CANARY}",
            "b3": f"{trace_id}-{'cd' * 8}-1",
            "uber-trace-id": f"{trace_id}:{'cd' * 8}:0:1",
            "x-request-id": CANARY + " no plain word",
            "otel-exporter-otlp-endpoint": collector.other_url,
            "user-agent": CANARY,
        }
        answer = await traced.http.post(f"{traced.url}/chat?a={CANARY}", json=ask("echo", CANARY), headers=headers)
        assert answer.status_code == 202
        await traced.ended(answer.json()["stream_id"])
    await exported(traced, collector, 2)

    async def is_continued() -> bool:
        """The caller's own trace goes on."""
        return bytes.fromhex(trace_id) in b"".join(collector.bodies)

    await traced.eventually(is_continued)
    sent = b"".join(collector.bodies)
    assert CANARY.encode() not in sent
    assert collector.redirected == []


async def test_a_collectors_answer_stays_out_of_the_log(traced: System, collector: Exit) -> None:
    """Its reason for a failure is not ours to repeat, since it may quote what it was sent."""
    collector.mode = "reason"
    await exported(traced, collector, 3)
    logs = "".join(process.log.read_text() for process in (*traced.gateways, *traced.workers))
    assert "trace export failed" in logs
    assert CANARY not in logs


async def test_a_collector_that_hangs_delays_no_stream_and_no_shutdown(traced: System, collector: Exit) -> None:
    """Spans that do not fit the exporter's queue are dropped."""
    collector.mode = "hang"
    await exported(traced, collector, 1)
    before = [process.rss_bytes for process in (*traced.gateways, *traced.workers)]
    for stream_id in [await traced.post("echo") for _ in range(200)]:
        await traced.ended(stream_id)
    after = [process.rss_bytes for process in (*traced.gateways, *traced.workers)]
    assert max(now - then for now, then in zip(after, before, strict=True)) < 64 * 1024 * 1024
    began = time.monotonic()
    for process in (*traced.gateways, *traced.workers):
        process.signal(signal.SIGTERM)
        assert await process.wait(60) == 0
    assert time.monotonic() - began < 60
