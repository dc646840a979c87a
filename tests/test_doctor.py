"""``headrace doctor`` examines a running system: healthy, and with one trouble of each kind."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from shared.broker.keys import DATA_VERSION_KEY, PROCESSES, breaker_failures_key, breaker_key, process_key
from shared.cancellation import cancel_all
from shared.version import VERSION
from tests.broker import Broker
from tests.broker_cluster import Cluster
from tests.cli import finish, headrace
from tests.fakes import Answer
from tests.ports import free_port
from tests.system import System
from tests.webhook_receiver import SECRET, WebhookReceiver

CONFIGURATION = """
[providers.alpha]
kind = "openai"
base_url = "{fake.openai_base_url}"
api_keys = ["env:KEY_ONE", "env:KEY_TWO"]
models = ["good", "down"]
"""
KEYS = {"KEY_ONE": "first-key-of-the-team-1111", "KEY_TWO": "second-key-of-the-team-2222"}
PROMPT = "a-secret-prompt"
Checks = list[dict[str, Any]]


async def refuse(_: web.Request) -> web.Response:
    return web.Response(status=410)


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[WebhookReceiver]:
    receiver = await WebhookReceiver().start()
    receiver.answer = refuse
    yield receiver
    await receiver.stop()


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> AsyncIterator[System]:
    """Yield a system of its own, since its troubles would disturb other tests."""
    system = System(
        tmp_path_factory.mktemp("doctor"),
        configuration=CONFIGURATION,
        providers=("alpha",),
        environment={**KEYS, "HEADRACE_BREAKER_FAILURES": "1"},
        breaker_open_s=600,
        provider_retries=0,
        demo_tokens_per_s=60,
        webhook_hosts=f"127.0.0.1:{receiver.port}",
        webhook_secret=SECRET,
    )
    try:
        await system.start()
        await system.eventually(partial(all_report, system), timeout_s=100)  # one worker is enough to be ready
        yield system
    finally:
        await system.stop()


async def all_report(system: System) -> bool:
    """Return True once the gateways know of all processes."""
    seen = (await system.http.get(f"{system.url}/ops/overview")).json()
    counts = len(seen["gateways"]), len(seen["workers"])
    return counts == (len(system.gateways), len(system.workers))


async def doctor(system: System, *options: str, redis: str | None = None, code: int) -> Checks:
    url = system.broker.url if redis is None else redis
    process = await headrace("doctor", "--json", "--url", system.url, *options, HEADRACE_REDIS_URL=url)
    ended = await finish(process, timeout_s=120)
    assert "Traceback" not in ended.err, ended.err
    assert not any(secret in ended.out + ended.err for secret in (*KEYS.values(), PROMPT, SECRET))
    assert ended.code == code, ended.out
    report = json.loads(ended.out)
    assert (report["ok"], report["version"], report["url"]) == (code == 0, VERSION, system.url)
    checks: Checks = report["checks"]
    return checks


def of(checks: Checks, check: str) -> list[tuple[str, str]]:
    return [(each["state"], each["detail"]) for each in checks if each["check"] == check]


def wrong(checks: Checks) -> set[str]:
    return {each["check"] for each in checks if each["state"] == "WRONG"}


async def test_a_healthy_system_is_described(system: System) -> None:
    checks = await doctor(system, code=0)
    assert of(checks, "workers") == [("ok", "2 running")]
    assert of(checks, "gateways") == [("ok", "2 running")]
    assert ("ok", f"all {VERSION}, as this command") in of(checks, "version")
    assert len([state for state, _ in of(checks, "process_clock") if state == "ok"]) == 4
    assert [state for state, _ in of(checks, "redis_clock")] == ["ok"]
    assert of(checks, "queue")[0][1].startswith("0 waiting")
    assert [state for state, _ in of(checks, "configuration")] == ["ok"]
    (state, delivery) = of(checks, "buffering")[0]
    assert (state, "tokens arrive one by one" in delivery) == ("ok", True)


async def test_other_gateways_are_found_to_compare_with(system: System) -> None:
    """Through a second gateway, as through a proxy: the first is found in Redis."""
    process = await headrace(
        "doctor",
        "--json",
        HEADRACE_URL=f"http://localhost:{system.gateways[0].port}",
        HEADRACE_REDIS_URL=system.broker.url,
    )
    ended = await finish(process, timeout_s=120)
    assert ended.code == 0, ended.out
    assert "; directly in " in of(json.loads(ended.out)["checks"], "buffering")[0][1]


async def test_the_table_is_for_people(system: System) -> None:
    process = await headrace("doctor", "--url", system.url, HEADRACE_REDIS_URL=system.broker.url)
    ended = await finish(process, timeout_s=120)
    lines = ended.out.splitlines()
    assert any(line.startswith("ok    workers ") and line.endswith("2 running") for line in lines)
    assert {line.split()[0] for line in lines} == {"ok", "note"}


async def test_troubles_of_providers_and_webhooks_are_named(system: System, receiver: WebhookReceiver) -> None:
    system.fake.play("down", Answer(status=500))
    failed = await system.post("down", PROMPT, provider="alpha")
    await system.ended(failed)
    system.fake.play("good", Answer(deltas=["Hello"]))
    ended = await system.post("good", PROMPT, provider="alpha", webhook_url=receiver.url)
    await system.ended(ended)

    async def seen() -> Checks | None:
        checks = await doctor(system, code=1)
        return checks if "1 given up" in json.dumps(of(checks, "webhooks")) else None

    try:
        checks = await system.eventually(seen, timeout_s=60)
    finally:  # other tests need a healthy system, and may come later
        async with system.broker.client() as client:
            await client.delete(breaker_key("alpha/down"), breaker_failures_key("alpha/down"))
    assert wrong(checks) == {"circuit_breaker"}
    assert "down: circuit breaker open after 1 failures" in of(checks, "circuit_breaker")[0][1]
    assert of(checks, "webhooks") == [("note", "0 waiting, 1 given up: headrace webhooks list has the reasons")]
    assert "1 provider_unavailable" in of(checks, "failures")[0][1]


async def test_processes_of_another_kind_are_named(system: System) -> None:
    """A process of an older version, with another file, few descriptors and a clock that is ahead."""
    old = {
        **{"id": "w0000", "kind": "worker", "host": "elsewhere", "pid": 1, "since": 0.0, "files": 256},
        **{
            "load": {"streams": 0, "slots": 1000, "configuration": "another"},
            "problem": "headrace.toml:3: unknown key",
        },
    }
    async with system.broker.client() as client:

        async def report() -> None:
            while True:  # a report expires before a busy machine has started the command
                await client.zadd(PROCESSES, {"w0000": (time.time() + 30) * 1000})
                await client.set(process_key("w0000"), msgspec.json.encode(old), px=15_000)
                await asyncio.sleep(2)

        reporting = asyncio.create_task(report())
        try:
            checks = await doctor(system, code=1)
        finally:
            await cancel_all([reporting])
            await client.zrem(PROCESSES, "w0000")
    ours = [each for each in checks if "w0000" in each["name"]]
    assert {each["check"]: each["state"] for each in ours} == {
        "version": "note",
        "configuration": "WRONG",
        "file_descriptors": "note",
        "process_clock": "WRONG",
    }
    details = " ".join(each["detail"] for each in ours)
    for words in ("headrace reload", "headrace.toml:3: unknown key", "1000 slots need 1128", "s ahead of", "run NTP"):
        assert words in details


async def test_a_system_without_workers_is_wrong(system: System) -> None:
    for worker in system.workers:
        worker.signal(signal.SIGTERM)
    for worker in system.workers:
        await worker.wait(60)
    checks = await doctor(system, code=1)
    assert "none reports: requests wait" in of(checks, "workers")[0][1]
    assert {"workers", "ready"} <= wrong(checks)
    for worker in system.workers:
        worker.start()
    await system.eventually(partial(all_report, system), timeout_s=100)


async def test_a_redis_that_cannot_serve_is_named(system: System, tmp_path: Path) -> None:
    nowhere = await doctor(system, redis=f"redis://u:gehe1m@127.0.0.1:{free_port()}/0", code=1)
    assert "redis" in wrong(nowhere)
    assert "gehe1m" not in json.dumps(nowhere)
    assert of(nowhere, "queue")  # from the gateway's overview instead
    other = Broker(tmp_path / "other", "--maxmemory", "50mb")
    await other.start()
    try:
        async with other.client() as client:
            await client.set(DATA_VERSION_KEY, 3)
            old = await doctor(system, redis=other.url, code=1)
            await client.config_set("maxmemory-policy", "allkeys-lru")
            evicting = await doctor(system, redis=other.url, code=1)
    finally:
        other.kill()
    assert "data of version 3" in of(old, "data_version")[0][1]
    assert "maxmemory-policy allkeys-lru would silently drop answers" in of(evicting, "redis")[0][1]


async def test_a_stopped_headrace_up_is_named_as_such(tmp_path: Path) -> None:
    """Its directory still has the address of its Redis."""
    tmp_path.chmod(0o700)
    (tmp_path / "broker-url").write_text(f"unix://{tmp_path}/redis.sock")
    url = f"http://127.0.0.1:{free_port()}"
    ended = await finish(await headrace("doctor", "--json", "--url", url, "--data-dir", str(tmp_path)))
    checks = json.loads(ended.out)["checks"]
    assert [state for state, _ in of(checks, "redis")] == ["note"]
    assert "headrace up, which starts its own, is not running" in of(checks, "redis")[0][1]
    assert any("start it with headrace up" in each["detail"] for each in checks if each["state"] == "WRONG")


async def test_each_master_of_a_cluster_has_its_rows(system: System, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster", masters=2, replicas=0)
    await cluster.start()
    try:
        checks = await doctor(system, redis=cluster.url, code=1)  # it has no workers
    finally:
        await cluster.stop()
    names = {each["name"] for each in checks if each["check"] == "redis_memory"}
    assert names == {f"Redis 127.0.0.1:{node.port}" for node in cluster.nodes}
    assert "has no replica" in " ".join(detail for _, detail in of(checks, "redis"))
