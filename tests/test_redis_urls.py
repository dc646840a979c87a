"""Redis can be behind sentinels, behind TLS, and have users of its own."""

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.broker.client import REDIS_ERRORS, connect
from shared.broker.connection_pool import check_url, pool_of
from tests.broker import Broker
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.sse_client import text_of
from tests.system import System

_OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
WORDS = [f"w{i} " for i in range(200)]


class Sentinel(Broker):
    """A real sentinel watching one master."""

    def __init__(self, folder: Path, master: Broker) -> None:
        super().__init__(folder)
        self._master = master

    async def start(self, password: str | None = None) -> None:
        self.folder.mkdir(parents=True)
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self._master.port} 1\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
        )
        self.run([self.binary, str(config), "--sentinel"])
        await self.answers(password)


async def test_streams_survive_a_failover_by_sentinel(tmp_path: Path) -> None:
    """The master dies, its replica is promoted, and every stream continues."""
    system = System(tmp_path, providers=("openai",))
    replica = Broker(tmp_path / "replica", "--replicaof", "127.0.0.1", str(system.broker.port))
    sentinel = Sentinel(tmp_path / "sentinel", system.broker)
    system.redis_url = f"sentinel://127.0.0.1:{sentinel.port}/main/0"
    try:
        await system.broker.start()
        await replica.start()
        await sentinel.start()
        await system.eventually(lambda: sees_the_replica(sentinel), timeout_s=60)  # it looks every 10 s
        await system.start_processes()
        system.fake.play("failover", Answer(deltas=WORDS, delay_s=0.05))
        live = [await system.stream("failover", gateway=i % 2) for i in range(8)]
        for connection in live:
            await connection.next("token")
        system.broker.kill()
        for connection in live:
            frames = await connection.rest()
            assert frames[-1].data["finish_reason"] == "stop"
            assert not any(frame.data.get("reset") for frame in frames)
            status = await system.status(connection.stream_id)
            assert status["text"] == "".join(WORDS)
        assert len(system.fake.calls) == len(live)
        async with replica.client() as client:
            assert (await client.role())[0] == b"master"
    finally:
        await system.stop()
        sentinel.kill()
        replica.kill()


async def sees_the_replica(sentinel: Broker) -> bool:
    async with sentinel.client() as client:
        return bool(await client.execute_command("SENTINEL", "REPLICAS", "main"))  # type: ignore[no-untyped-call]


async def test_redis_over_tls_with_its_own_user(tmp_path: Path) -> None:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None or shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server with TLS and openssl are needed")
        pytest.skip("needs a redis-server with TLS, and openssl")
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path)
    system = System(tmp_path / "system", providers=("openai",))
    system.folder.mkdir()
    tls_port = free_port()
    system.broker = Broker(
        tmp_path / "broker",
        *("--tls-port", str(tls_port), "--tls-cert-file", certificate, "--tls-key-file", key),
        *("--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"),
        *("--user", "headrace", "on", ">a-password", "~hr:*", "~arq:*", "&hr:*", "+@all"),
    )
    system.redis_url = f"rediss://headrace:a-password@localhost:{tls_port}/0?ssl_ca_certs={certificate}"
    try:
        await system.broker.start()
        await system.start_processes()
        async with await system.stream("echo", "through tls") as connection:
            assert text_of(await connection.rest()) == "through tls"
        async with system.broker.client() as client:
            users = [one["user"] for one in await client.client_list() if one["addr"] != one["laddr"]]
        assert users.count("headrace") >= 4
    finally:
        await system.stop()


def make_certificate(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> tuple[str, str]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"]
    subprocess.run(
        [*_OPENSSL, *subject, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return str(certificate), str(key)


@pytest.mark.parametrize(
    "url", ["http://x", "redis//x", "sentinel://h:1", "localhost:6379", "http+cluster://h:1", "redis+cluster://"]
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_url(url)


@pytest.mark.parametrize("url", ["redis+cluster://u:p%40ss@a:1,b,[::1]:2", "rediss+cluster://a?ssl_ca_certs=/a.pem"])
def test_the_url_of_a_cluster_is_accepted(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", ["redis+cluster://a:1/3", "redis+cluster://u:sesame@a:x", "redis+cluster://a?db=x"])
def test_an_invalid_url_of_a_cluster_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"database|invalid") as caught:
        check_url(url)
    assert "sesame" not in str(caught.value)


async def test_a_percent_encoded_password_works(tmp_path: Path) -> None:
    broker = Broker(tmp_path, "--requirepass", "p@ss/w:rd")
    await broker.start(password="p@ss/w:rd")
    try:
        pool = pool_of(f"redis://:p%40ss%2Fw%3Ard@127.0.0.1:{broker.port}/0", timeout_s=5, connections=2)
        async with Redis(connection_pool=pool) as client:
            assert await client.ping()
        await pool.aclose()
        with pytest.raises(RedisError):
            await broker.client().ping()
    finally:
        broker.kill()


def test_connection_resets_are_handled_as_an_outage() -> None:
    """A proxy whose Redis is down does so; under uvloop, redis-py then raises an unexpected exception."""

    def reset_all(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()

    async def ask_often(port: int) -> None:
        client = connect(f"redis://127.0.0.1:{port}/0")
        for _ in range(1000):
            with pytest.raises(REDIS_ERRORS):
                await client.ping()
        await client.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        resetting = threading.Thread(target=reset_all, args=[listener])
        resetting.start()
        try:
            uvloop.run(ask_often(listener.getsockname()[1]))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            resetting.join()
