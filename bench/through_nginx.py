"""Measures the cost of nginx in front of a gateway: the same answers direct and through ``deploy/nginx``, in turn.

    make bench-nginx            (or: python -m bench.through_nginx --streams 20 --per-s 50 --seconds 5 --rounds 5)

There is one gateway and one worker. Over HTTP/2 all streams share a connection, as those of a browser do. A gap is
the time between two tokens of a stream at the client: buffering in nginx would show there, as many small gaps and a
few large ones. A delay is the time since the provider sent the token.
"""

import argparse
import asyncio
import ssl
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from bench import pace
from bench.children import ProviderProcess
from bench.http import Response, request
from bench.targets.headrace import Headrace
from tests.nginx import Nginx

_READ_BYTES = 65_536
_TIMEOUT_S = 120

#: Reads all answers; the number is the time between the starts of two streams, in seconds.
Transport = Callable[[list[bytes], float], Awaitable[list["Reading"]]]


class Reading:
    """Gaps and delays of the tokens of one answer, in milliseconds."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.delays: list[float] = []
        self._last_us = 0
        self._rest = b""

    def take(self, body: bytes) -> None:
        now_us = time.monotonic_ns() // 1000
        known = self._rest + body
        for stamp in pace.FIND_STAMPS.findall(known):
            if self._last_us:
                self.gaps.append((now_us - self._last_us) / 1000)
            self.delays.append((now_us - int(stamp[1])) / 1000)
            self._last_us = now_us
        self._rest = known[-(pace.STAMP_BYTES - 1) :]


def over_http1(port: int, tls: ssl.SSLContext | None = None) -> Transport:
    """Return a transport with a connection for each stream."""

    async def read(body: bytes) -> Reading:
        reading, response = Reading(), Response()
        host = "127.0.0.1" if tls is None else "localhost"
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        writer.write(request(port, "POST", "/chat/stream", {}, body))
        while not response.ended:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("answer: broken off before its end")
            reading.take(response.feed(data))
        writer.transport.abort()
        return reading

    async def read_all(bodies: list[bytes], apart_s: float) -> list[Reading]:
        readings = []
        for body in bodies:
            readings.append(asyncio.create_task(read(body)))
            await asyncio.sleep(apart_s)
        return await asyncio.gather(*readings)

    return read_all


def over_http2(port: int, tls: ssl.SSLContext) -> Transport:
    """Return a transport with one connection for all streams."""

    async def read_all(bodies: list[bytes], apart_s: float) -> list[Reading]:
        tls.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection("localhost", port, ssl=tls)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        readings = {1 + 2 * number: Reading() for number in range(len(bodies))}

        async def send_all() -> None:
            for stream_id, body in zip(readings, bodies, strict=True):
                connection.send_headers(stream_id, _head(port, body))
                connection.send_data(stream_id, body, end_stream=True)
                writer.write(connection.data_to_send())
                await asyncio.sleep(apart_s)

        sending = asyncio.create_task(send_all())
        ended = 0
        while ended < len(bodies):
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("connection: broken off before the last end")
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    readings[event.stream_id].take(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended += 1
                elif isinstance(event, h2.events.StreamReset):
                    raise ConnectionError("answer: reset before its end")
            writer.write(connection.data_to_send())
        await sending
        writer.transport.abort()
        return list(readings.values())

    return read_all


async def measure(transport: Transport, target: Headrace, streams: int, per_s: float, tokens: int) -> list[float]:
    """Return gap p50, p95, p99, delay p50, p99 of one round."""
    bodies = [target.request(pace.paced(per_s, tokens), "hi").body] * streams
    async with asyncio.timeout(_TIMEOUT_S):
        readings = await transport(bodies, 1 / per_s / streams)
    gaps = sorted(gap for reading in readings for gap in reading.gaps)
    delays = sorted(delay for reading in readings for delay in reading.delays)
    if len(delays) != streams * tokens:
        raise RuntimeError(f"tokens: {len(delays)} received, {streams * tokens} expected")
    return [_at(gaps, share) for share in (0.5, 0.95, 0.99)] + [_at(delays, share) for share in (0.5, 0.99)]


async def main(streams: int, per_s: float, seconds: float, rounds: int) -> None:
    provider, target = ProviderProcess(), Headrace()
    nginx: Nginx | None = None
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            await provider.start()
            await target.start(provider.url, Path(folder))
            nginx = Nginx([target.port])
            await nginx.start()
            transports = {
                "direct": over_http1(target.port),
                "nginx, TLS, HTTP/1.1": over_http1(nginx.port, nginx.tls),
                "nginx, TLS, HTTP/2": over_http2(nginx.port, nginx.tls),
            }
            rows: dict[str, list[list[float]]] = {name: [] for name in transports}
            for number in range(rounds + 1):
                for name, transport in transports.items():
                    row = await measure(transport, target, streams, per_s, round(per_s * seconds))
                    if number:  # the first one warms up
                        rows[name].append(row)
        finally:
            if nginx is not None:
                nginx.stop()
            await target.stop()
            await provider.stop()
    _print(rows)


def _head(port: int, body: bytes) -> list[tuple[str, str]]:
    fields = [
        (":method", "POST"),
        (":path", "/chat/stream"),
        (":scheme", "https"),
        (":authority", f"localhost:{port}"),
    ]
    return [*fields, ("content-type", "application/json"), ("content-length", str(len(body)))]


def _print(rows: dict[str, list[list[float]]]) -> None:
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in rows.items()
    }
    direct = medians["direct"]
    print(f"{'ms':<24}{'gap p50':>10}{'p95':>10}{'p99':>10}{'delay p50':>12}{'p99':>10}   gaps against direct")
    for name, (p50, p95, p99, delay_p50, delay_p99) in medians.items():
        against = " ".join(
            f"{100 * (value / base - 1):+.1f} %" for value, base in zip((p50, p95, p99), direct, strict=False)
        )
        print(f"{name:<24}{p50:>10.2f}{p95:>10.2f}{p99:>10.2f}{delay_p50:>12.2f}{delay_p99:>10.2f}   {against}")


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--per-s", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.streams, options.per_s, options.seconds, options.rounds))
