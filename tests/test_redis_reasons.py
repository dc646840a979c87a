"""Each reason for which Redis cannot be used has a name, with its address and without its password."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from shared.broker.client import connect
from shared.broker.fitness import Fitness
from shared.broker.trouble import Reason
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.exit_codes import CONFIGURATION_ERROR
from tests.broker import Broker
from tests.ports import free_port
from tests.system import SECRET, Gateway, Process
from tests.test_redis_urls import make_certificate

PASSWORD = "a-secret-sesame"
ALL_KEYS = ("~hr:*", "~arq:*")
#: Users of the broker here, with their rights.
USERS = {
    "wide": (*ALL_KEYS, "&hr:*", "+@all"),
    "no-channels": (*ALL_KEYS, "+@all"),
    "no-arq": ("~hr:*", "&hr:*", "+@all"),
    "no-xadd": (*ALL_KEYS, "&hr:*", "+@all", "-xadd"),
    "no-scripts": (*ALL_KEYS, "&hr:*", "+@all", "-evalsha"),
    "read-only": ("%R~hr:*", "~arq:*", "&hr:*", "+@all"),
    "nothing": (),
}


@pytest.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """Yield a broker with a password and several users."""
    users = [word for name, rights in USERS.items() for word in ("--user", name, "on", f">{PASSWORD}", *rights)]
    broker = Broker(tmp_path_factory.mktemp("guarded"), "--requirepass", PASSWORD, *users)
    await broker.start(PASSWORD)
    yield broker
    broker.kill()


async def trouble(url: str, *, timeout_s: float = 5) -> BrokerUnavailable:
    """Check Redis as a process does at its start, and return the error."""
    client = connect(url, timeout_s=timeout_s, serves=True)
    try:
        with pytest.raises(BrokerUnavailable) as caught:
            await Fitness(client).check()
    finally:
        await client.aclose()
    assert PASSWORD not in caught.value.detail
    assert PASSWORD not in caught.value.message
    return caught.value


def named(error: BrokerUnavailable) -> tuple[str, str]:
    return error.reason, error.code


async def test_an_address_without_a_server_is_refused(tmp_path: Path) -> None:
    port = free_port()
    error = await trouble(f"redis://user:{PASSWORD}@127.0.0.1:{port}/2")
    assert named(error) == (Reason.REFUSED, "broker_unavailable")
    assert f"redis://127.0.0.1:{port}/2" in error.detail
    assert "HEADRACE_REDIS_URL" in error.detail
    assert (await trouble(f"unix://{tmp_path}/none")).reason == Reason.REFUSED


async def test_an_unknown_name_is_not_resolved() -> None:
    """A resolver repeats a question only after 5 s."""
    error = await trouble("redis://no-such-host.invalid:6379/0", timeout_s=60)
    assert error.reason == Reason.NAME


async def test_a_wrong_or_missing_password_is_named(guarded: Broker) -> None:
    error = await trouble(guarded.url)
    assert named(error) == (Reason.NO_PASSWORD, "broker_auth")
    assert "NOAUTH" in error.detail
    error = await trouble(guarded.url.replace("//", "//:wrong-word@"))
    assert named(error) == (Reason.WRONG_PASSWORD, "broker_auth")
    assert "WRONGPASS" in error.detail
    assert "wrong-word" not in error.detail


@pytest.mark.parametrize(
    ("user", "missing"),
    [
        ("no-channels", "the channels &hr:*"),
        ("no-arq", "the keys ~arq:*"),
        ("no-xadd", "the command XADD"),
        ("no-scripts", "the command EVALSHA"),
        ("read-only", "hr:*"),
        ("nothing", "the command"),
    ],
)
async def test_a_missing_right_is_named(guarded: Broker, user: str, missing: str) -> None:
    error = await trouble(guarded.url.replace("//", f"//{user}:{PASSWORD}@"))
    assert named(error) == (Reason.NO_PERMISSION, "broker_unfit")
    assert "NOPERM" in error.detail
    assert missing in error.detail
    assert error.http_status == 503


async def test_a_user_with_the_documented_keys_and_channels_is_fit(guarded: Broker) -> None:
    client = connect(guarded.url.replace("//", f"//wide:{PASSWORD}@"), serves=True)
    await Fitness(client).check()
    await client.aclose()


async def test_a_database_that_does_not_exist_is_named(guarded: Broker) -> None:
    error = await trouble(guarded.url.replace("//", f"//:{PASSWORD}@").replace("/0", "/99"))
    assert named(error) == (Reason.NO_DATABASE, "broker_unfit")


async def test_a_full_redis_a_replica_and_an_evicting_one_are_named(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "master")
    replica = Broker(tmp_path / "replica", "--replicaof", "127.0.0.1", str(broker.port))
    await broker.start()
    await replica.start()
    try:
        assert (await trouble(replica.url)).reason == Reason.READ_ONLY
        async with broker.client() as client:
            await client.config_set("maxmemory", 1)
            error = await trouble(broker.url)
            assert named(error) == (Reason.FULL, "broker_full")
            assert error.retry_after_s > 0
            await client.config_set("maxmemory", 0)
            await client.config_set("maxmemory-policy", "allkeys-lru")
        error = await trouble(broker.url)
        assert named(error) == (Reason.EVICTION, "broker_unfit")
        assert isinstance(error, BrokerMisconfigured)
        assert "noeviction" in error.detail
    finally:
        broker.kill()
        replica.kill()


async def test_a_server_of_a_cluster_is_named_and_ends_a_start(tmp_path: Path) -> None:
    """Before its slots are assigned and after, and if the URL has the number of a database."""
    broker = Broker(tmp_path, "--cluster-enabled", "yes")
    environment = {**os.environ, "HEADRACE_REDIS_URL": broker.url, "HEADRACE_SECRET": SECRET}
    gateway = Gateway("gateway", environment, tmp_path / "gateway.log")
    worker = Process("worker", ["worker"], environment, tmp_path / "worker.log")
    await broker.start()
    try:
        error = await trouble(broker.url)
        assert named(error) == (Reason.CLUSTER, "broker_unfit")
        assert isinstance(error, BrokerMisconfigured)
        assert "redis+cluster://" in error.detail
        # Valkey 9 may have several databases in a cluster.
        numbered = await trouble(broker.url.replace("/0", "/1"))
        assert numbered.reason in {Reason.CLUSTER, Reason.NO_DATABASE}
        async with broker.client() as client:
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 100)  # type: ignore[no-untyped-call]
        for process in (gateway, worker):
            process.start()
        for process in (gateway, worker):
            assert await process.wait(100) == CONFIGURATION_ERROR
            assert "belongs to a cluster" in process.log.read_text()
    finally:
        for process in (gateway, worker):
            process.stop()
        broker.kill()


async def test_servers_that_are_no_redis_are_named() -> None:
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=http.serve_forever, daemon=True).start()
    try:
        assert (await trouble(f"redis://127.0.0.1:{http.server_port}/0")).reason == Reason.NOT_REDIS
        assert (await trouble(f"redis://:{PASSWORD}@127.0.0.1:{http.server_port}/0")).reason == Reason.NOT_REDIS
    finally:
        http.shutdown()
        http.server_close()


async def test_a_server_that_says_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert (await trouble(f"redis://127.0.0.1:{port}/0", timeout_s=0.5)).reason == Reason.TIMEOUT


async def test_tls_problems_are_named(guarded: Broker, tmp_path: Path) -> None:
    if shutil.which("redis-server") is None or shutil.which("openssl") is None:
        pytest.skip("needs a redis-server with TLS, and openssl")
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path)
    port = free_port()
    broker = Broker(
        tmp_path / "tls",
        *("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key),
        *("--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"),
    )
    await broker.start()
    try:
        assert (await trouble(f"rediss://127.0.0.1:{port}/0")).reason == Reason.TLS_CERTIFICATE
        assert (await trouble(f"redis://127.0.0.1:{port}/0")).reason == Reason.TLS_MISSING
        assert (await trouble(guarded.url.replace("redis:", "rediss:"))).reason == Reason.TLS_REFUSED
        client = connect(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}", serves=True)
        await Fitness(client).check()
        await client.aclose()
    finally:
        broker.kill()
