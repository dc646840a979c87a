"""Processes name the trouble that they have with Redis, survive it, and go on with their streams when it is over."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from shared.broker.keys import PROCESSES, WAITING
from shared.exit_codes import CONFIGURATION_ERROR
from tests.broker import Broker
from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.sse_client import text_of
from tests.system import REPOSITORY, Process, System, ask

PASSWORD = "a-secret-sesame"
WORDS = [f"w{i} " for i in range(60)]


class Waiting(System):
    """System whose processes are not waited for: Redis is not usable at their start."""

    async def ready(self) -> None:
        return


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Waiting]:
    """Yield a gateway and a worker with a wrong password."""
    system = Waiting(tmp_path, gateways=1, workers=1, providers=())
    system.broker = Broker(tmp_path / "broker", "--requirepass", PASSWORD)
    system.redis_url = system.broker.url.replace("//", "//:wrong-word@")
    await system.broker.start(PASSWORD)
    try:
        await system.start_processes()
        yield system
    finally:
        await system.stop()


def lines(process: Process, event: str) -> list[dict[str, str]]:
    """Return the log lines of an event."""
    found = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


async def readiness(system: System) -> tuple[int, dict[str, object]]:
    try:
        answer = await system.http.get(f"{system.url}/readyz")
    except httpx2.TransportError:
        return 0, {}
    assert PASSWORD not in answer.text
    assert "wrong-word" not in answer.text
    return answer.status_code, answer.json()


async def test_a_wrong_password_is_named_until_it_is_right(locked: Waiting) -> None:
    """The log repeats target and reason, clients get a code of its own, and nothing needs a restart."""
    system = locked
    gateway, worker = system.gateways[0], system.workers[0]

    async def is_named(wanted: int) -> bool:
        return all(len(lines(each, "Redis unusable")) >= wanted for each in (gateway, worker))

    await system.eventually(lambda: is_named(2), timeout_s=60)
    for process in (gateway, worker):
        line = lines(process, "Redis unusable")[0]
        assert (line["level"], line["reason"], line["code"]) == ("warning", "password_wrong", "broker_auth")
        assert f"redis://127.0.0.1:{system.broker.port}/0" in line["detail"]
        assert "wrong-word" not in process.log.read_text()
    status, body = await readiness(system)
    assert (status, body["reason"], body["error"]["code"]) == (503, "password_wrong", "broker_auth")  # type: ignore[index]
    exported = (await system.http.get(f"{system.url}/metrics")).text
    assert 'headrace_redis_trouble{reason="password_wrong"} 1.0' in exported
    assert "headrace_redis_up 0.0" in exported
    answer = await system.http.post(f"{system.url}/chat", json=ask("demo", provider="demo"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_auth")
    assert "edis" not in answer.text
    assert int(answer.headers["retry-after"]) > 0
    async with system.broker.client() as client:
        await client.execute_command("AUTH", PASSWORD)  # type: ignore[no-untyped-call]
        await client.config_set("requirepass", "wrong-word")

    async def is_ready() -> bool:
        return (await readiness(system)) == (200, {"status": "ready", "accepting": True})

    await system.eventually(is_ready)
    for process in (gateway, worker):
        assert [line["reason"] for line in lines(process, "Redis usable again")] == ["password_wrong"]
        assert len(lines(process, "Redis unusable")) < 8  # a calm rate


async def test_a_gateway_is_ready_once_it_has_seen_a_model(start_system: StartSystem) -> None:
    """A later loss of all workers shows in the body and in a metric; the gateway serves resumes meanwhile."""
    system = await start_system(gateways=1, workers=1)
    worker = system.workers[0]
    async with await system.stream("echo", "to be resumed") as connection:
        await connection.rest()
    assert await readiness(system) == (200, {"status": "ready", "accepting": True})
    worker.stop()

    async def is_refusing() -> bool:
        return (await readiness(system)) == (200, {"status": "ready", "accepting": False})

    async def is_exported() -> bool:
        return "headrace_accepting 0.0" in (await system.http.get(f"{system.url}/metrics")).text

    await system.eventually(is_refusing, timeout_s=40)
    await system.eventually(is_exported)
    async with await system.read(connection.stream_id) as again:
        assert text_of(await again.rest()) == "to be resumed"
    async with system.broker.client() as client:
        await client.flushall()
    system.gateways[0].stop()
    system.gateways[0].start()

    async def waits_for_models() -> bool:
        status, body = await readiness(system)
        return status == 503 and body["reason"] == "no_models"

    await system.eventually(waits_for_models, timeout_s=60)
    worker.start()
    await system.ready()
    assert (await readiness(system))[0] == 200


async def test_a_full_redis_has_a_code_of_its_own(start_system: StartSystem) -> None:
    """Gateway and worker log it, running streams go on when there is memory again, and the gateway stays ready."""
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("full", Answer(deltas=WORDS, gate=gate, gate_after=20))
    connection = await system.stream("full")
    await connection.next("token")
    async with system.broker.client() as client:
        await client.config_set("maxmemory", 1)
        gate.set()
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_full")
        assert int(answer.headers["retry-after"]) > 0
        assert "edis" not in answer.text

        async def is_logged() -> bool:
            processes = (*system.gateways, *system.workers)
            return all("full" in {line["reason"] for line in lines(each, "Redis unusable")} for each in processes)

        await system.eventually(is_logged)
        assert await readiness(system) == (200, {"status": "ready", "accepting": False})
        await client.config_set("maxmemory", 0)
    frames = await connection.rest()
    assert frames[-1].data["finish_reason"] == "stop"
    status = await system.status(connection.stream_id)
    assert status["text"] == "".join(WORDS)


def documented_rights() -> list[str]:
    """Return the rights of the line of ACL in docs/internals.md."""
    text = (REPOSITORY / "docs" / "internals.md").read_text()
    (line,) = re.findall(r"^ACL SETUSER headrace on >PASSWORD (.+)$", text, re.M)
    return str(line).split()


async def test_the_documented_rights_suffice_and_their_loss_loses_no_stream(tmp_path: Path) -> None:
    """A user has these rights and no more. They are taken away in the middle of a stream, and given back."""
    system = System(tmp_path, gateways=1, workers=1, providers=("openai",))
    rights = documented_rights()
    system.broker = Broker(tmp_path / "broker", "--user", "headrace", "on", f">{PASSWORD}", *rights)
    system.redis_url = system.broker.url.replace("//", f"//headrace:{PASSWORD}@").replace("/0", "/1")
    processes = [*system.gateways, *system.workers]
    gate = asyncio.Event()
    try:
        await system.start()
        processes = [*system.gateways, *system.workers]
        system.fake.play("rights", Answer(deltas=WORDS, gate=gate, gate_after=20))
        connection = await system.stream("rights")
        seen = [await connection.next("token")]
        async with system.broker.client() as client:
            denied = await client.execute_command("ACL", "LOG")  # type: ignore[no-untyped-call]
            assert denied == [], "a right is missing in docs/internals.md"
            await client.execute_command("ACL", "SETUSER", "headrace", "resetkeys", "resetchannels", "-xadd")  # type: ignore[no-untyped-call]
            gate.set()

            async def is_named() -> bool:
                found = [lines(each, "Redis unusable") for each in processes]
                return all(any("NOPERM" in line["detail"] for line in each) for each in found)

            await system.eventually(is_named, timeout_s=60)
            answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unfit")
            status, body = await readiness(system)
            assert (status, body["reason"]) == (503, "permission_missing")
            await client.execute_command("ACL", "SETUSER", "headrace", *rights)  # type: ignore[no-untyped-call]
        seen += await connection.rest()
        assert text_of(seen) == "".join(WORDS)
        assert seen[-1].data["finish_reason"] == "stop"
        assert not any(frame.data.get("reset") for frame in seen)
        assert all(process.alive for process in processes)
    finally:
        await system.stop()


async def test_an_error_of_one_command_stops_no_process(start_system: StartSystem) -> None:
    """Foreign software wrote a key of ours with another type: what needs that key fails, and nothing else."""
    system = await start_system(gateways=1, workers=1)
    async with system.broker.client() as client:
        for key in (PROCESSES, WAITING):
            await client.delete(key)
            await client.set(key, "foreign", px=600_000)

        async def is_logged() -> bool:
            processes = (*system.gateways, *system.workers)
            return all("WRONGTYPE" in each.log.read_text() for each in processes)

        await system.eventually(is_logged)
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")
        assert "edis" not in answer.text
        await client.delete(PROCESSES, WAITING)
    async with await system.stream("echo", "as before") as after:
        assert text_of(await after.rest()) == "as before"
    assert all(process.alive for process in (*system.gateways, *system.workers))
    assert not any("Traceback" in process.log.read_text() for process in (*system.gateways, *system.workers))


def run_headrace(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        env=own,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


async def test_up_ends_at_once_if_a_restart_cannot_help(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", "--maxmemory-policy", "allkeys-lru")
    await broker.start()
    try:
        up = ("up", "--port", str(free_port()), "--data-dir", str(tmp_path / "data"))
        done = await asyncio.to_thread(run_headrace, tmp_path, *up, HEADRACE_REDIS_URL=broker.url)
    finally:
        broker.kill()
    assert done.returncode == CONFIGURATION_ERROR
    assert "noeviction" in done.stdout
    assert "not restarting" in done.stdout
    assert "; restarting in" not in done.stdout


async def test_up_ends_at_once_without_a_package_that_a_setting_needs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None\n")
    up = ("up", "--port", str(free_port()), "--data-dir", str(tmp_path / "data"))
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "PYTHONPATH": f"{tmp_path}:{REPOSITORY}",
    }
    done = await asyncio.to_thread(run_headrace, tmp_path, *up, **environment)
    assert done.returncode == CONFIGURATION_ERROR
    assert "headrace[otel]" in done.stdout
    assert "; restarting in" not in done.stdout


async def test_the_command_line_names_the_trouble(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker", "--requirepass", PASSWORD)
    await broker.start(PASSWORD)
    try:
        for url, words in (
            (broker.url, "NOAUTH"),
            (broker.url.replace("//", "//:wrong-word@"), "WRONGPASS"),
            (f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0", "connection refused"),
        ):
            done = await asyncio.to_thread(run_headrace, tmp_path, "keys", "list", HEADRACE_REDIS_URL=url)
            assert done.returncode == 1
            assert words in done.stderr
            assert "redis://127.0.0.1:" in done.stderr
            assert not re.search(f"{PASSWORD}|wrong-word|Traceback", done.stderr)
    finally:
        broker.kill()
