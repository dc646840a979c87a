"""Gateways and workers read their file again while they run; a wrong file changes nothing."""

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.child_environments import of_gateway, of_worker
from shared.broker.client import connect
from shared.broker.keys import CATALOG
from shared.configuration.configuration import Configuration, load_configuration
from shared.settings import Settings
from tests.cli import ROOT, Ended, environment, finish, headrace, until
from tests.fakes import Answer, FakeProvider
from tests.ports import free_port
from tests.system import Process, System
from tests.test_supervisor import running_up
from workers.jobs.attempts import ProviderAttempts
from workers.jobs.current_adapters import CurrentAdapters

Fakes = dict[str, FakeProvider]
HEAD = """
[providers.{name}]
kind = "openai"
base_url = "{fake.openai_base_url}"
api_keys = ["env:KEY_OF_ALL"]
models = ["m"]
"""
ALIAS = """
[models.fast]
targets = ["{name}/m"]
"""
WRONG = "[providers.alpha]\nkind = 'openia'\n"
REASON = "headrace.toml:2: providers.alpha.kind: unknown value"


@pytest.fixture(scope="module")
async def fakes() -> AsyncIterator[Fakes]:
    async with AsyncExitStack() as stack:
        fakes = {name: await stack.enter_async_context(FakeProvider()) for name in ("alpha", "beta")}
        for name, fake in fakes.items():
            fake.play("m", Answer(deltas=[name]))
        yield fakes


@pytest.fixture(scope="module")
async def system(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    folder = tmp_path_factory.mktemp("reload")
    file = folder / "headrace.toml"
    file.write_text(text(fakes, "alpha"))
    environment = {"KEY_OF_ALL": "one-key-of-the-team"}
    system = System(
        folder, gateways=1, workers=1, providers=["alpha"], environment=environment, config=file, provider_retries=0
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


@pytest.fixture
async def alpha(system: System, fakes: Fakes) -> None:
    """A system that has the provider alpha in force, and nothing else."""
    configure(system, text(fakes, "alpha"))
    ended = await reload(system)
    assert ended.code == 0, ended

    async def only_alpha() -> bool:
        return await offered(system) == {"demo", "alpha"}

    await system.eventually(only_alpha)  # the worker publishes it after the reload


def text(fakes: Fakes, *names: str) -> str:
    return "".join(HEAD.format(name=name, fake=fakes[name]) for name in names) + ALIAS.format(name=names[-1])


def configure(system: System, content: str) -> None:
    (system.folder / "headrace.toml").write_text(content)


async def reload(system: System) -> Ended:
    return await finish(await headrace("reload", HEADRACE_REDIS_URL=system.broker.url), timeout_s=100)


async def acts(system: System) -> list[dict[str, Any]]:
    """Return the audit log, the newest first."""
    ended = await finish(await headrace("audit", "--json", HEADRACE_REDIS_URL=system.broker.url))
    return [json.loads(line) for line in ended.out.splitlines()]


async def answer_of(system: System, model: str) -> str:
    return str((await system.ended(await system.post(model, provider=None)))["text"])


async def offered(system: System) -> set[str]:
    async with system.broker.client() as client:
        return {name.decode() for name in await client.hkeys(CATALOG)}  # type: ignore[misc]


async def logged(process: Process, words: str) -> None:
    await until(lambda: words in process.log.read_text(), f"{process.name} logged {words!r}")


@pytest.mark.usefixtures("alpha")
async def test_reload_gives_every_process_the_new_file(system: System, fakes: Fakes) -> None:
    assert await answer_of(system, "fast") == "alpha"
    configure(system, text(fakes, "beta"))
    ended = await reload(system)
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    assert [row[:2] for row in rows] == [["ok", "gateway"], ["ok", "worker"]]
    assert rows[0][-1] == rows[1][-1]
    assert re.fullmatch("[0-9a-f]{16}", rows[0][-1])
    recorded = (await acts(system))[:3]
    assert [each["what"] for each in reversed(recorded)] == ["configuration.reload", *["configuration.load"] * 2]
    assert {(each["who"], each["target"], each["outcome"]) for each in recorded[:2]} == {
        ("headrace reload", rows[0][-1], "done")
    }

    async def only_beta() -> bool:
        return await offered(system) == {"demo", "beta"}

    await system.eventually(only_beta)
    await system.eventually(lambda: lists(system, {"fast", "beta/m", "demo/demo"}))
    assert await answer_of(system, "fast") == "beta"


async def lists(system: System, names: set[str]) -> bool:
    listed = (await system.http.get(f"{system.url}/v1/models")).json()["data"]
    return {model["id"] for model in listed} == names


@pytest.mark.usefixtures("alpha")
async def test_a_wrong_file_changes_nothing_and_is_explained(system: System) -> None:
    configure(system, WRONG)
    ended = await reload(system)
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["REFUSED", "gateway"], ["REFUSED", "worker"]]
    assert all(REASON in line for line in lines)
    for process in (*system.gateways, *system.workers):
        assert REASON in process.log.read_text()
    assert [each["outcome"] for each in (await acts(system))[:2]] == ["refused"] * 2
    assert await answer_of(system, "fast") == "alpha"


@pytest.mark.usefixtures("alpha")
async def test_a_key_that_cannot_be_read_is_refused_by_the_worker(system: System, fakes: Fakes) -> None:
    configure(system, text(fakes, "alpha").replace("KEY_OF_ALL", "NO_SUCH_KEY"))
    ended = await reload(system)
    assert ended.code == 1
    gateway, worker = ended.out.splitlines()
    assert gateway.startswith("ok ")
    assert "providers.alpha.api_keys: env:NO_SUCH_KEY is empty; set the variable" in worker
    assert "the processes have different configurations" in ended.err
    assert await answer_of(system, "alpha/m") == "alpha"


@pytest.mark.usefixtures("alpha")
async def test_a_hangup_makes_one_process_read_its_file(system: System, fakes: Fakes) -> None:
    configure(system, text(fakes, "alpha", "beta"))
    system.workers[0].signal(signal.SIGHUP)

    async def both() -> bool:
        return await offered(system) == {"demo", "alpha", "beta"}

    await system.eventually(both)
    assert await answer_of(system, "fast") == "alpha"  # the gateway has the old alias
    system.gateways[0].signal(signal.SIGHUP)

    async def new_alias() -> bool:
        return await answer_of(system, "fast") == "beta"

    await system.eventually(new_alias)

    async def is_recorded() -> bool:
        loads = (await acts(system))[:2]
        return [each["who"] for each in loads] == ["SIGHUP"] * 2

    await system.eventually(is_recorded)


@pytest.mark.usefixtures("alpha")
async def test_running_streams_keep_their_provider_and_its_connections_close_after_the_last(
    system: System, fakes: Fakes
) -> None:
    gate = asyncio.Event()
    fakes["alpha"].play("m", Answer(deltas=["be", "gun"], gate=gate, gate_after=1))
    stream_id = await system.post("alpha/m", provider=None)
    calls = len(fakes["alpha"].calls)
    await fakes["alpha"].wait_calls(calls or 1)
    await system.eventually(lambda: has_text(system, stream_id))
    configure(system, text(fakes, "beta"))
    assert (await reload(system)).code == 0
    assert fakes["alpha"].open_connections > 0
    gate.set()
    status = await system.ended(stream_id)
    assert (status["text"], status["finish_reason"]) == ("begun", "stop")
    await until(lambda: fakes["alpha"].open_connections == 0, "the old adapter closed its connections")
    fakes["alpha"].play("m", Answer(deltas=["alpha"]))


async def has_text(system: System, stream_id: str) -> bool:
    return (await system.status(stream_id))["text"] == "be"


async def test_only_changed_providers_get_other_connections(fakes: Fakes, tmp_path: Path) -> None:
    def loaded(content: str) -> Configuration:
        file = tmp_path / "headrace.toml"
        file.write_text(content.replace('api_keys = ["env:KEY_OF_ALL"]', ""))
        return load_configuration(Settings(config=file))

    client = connect("redis://127.0.0.1:1/0")
    adapters = CurrentAdapters(client, loaded(text(fakes, "alpha", "beta")), lambda *_: cast(ProviderAttempts, None))
    before = dict(adapters.providers)
    await adapters.replace(loaded(text(fakes, "alpha", "beta").replace('models = ["m"]', 'models = ["n", "m"]', 1)))
    assert adapters.providers["beta"] is before["beta"]
    assert adapters.providers["alpha"] is not before["alpha"]
    await adapters.aclose()
    await client.aclose()


def test_credentials_of_clouds_reach_workers_only() -> None:
    names = {"AWS_SECRET_ACCESS_KEY", "AZURE_CLIENT_SECRET", "GOOGLE_APPLICATION_CREDENTIALS", "IDENTITY_HEADER"}
    given = dict.fromkeys(names, "secret") | {"PATH": "/bin"}
    assert of_gateway(given) == {"PATH": "/bin"}
    assert of_worker(given) == given


async def test_a_hangup_of_the_supervisor_reaches_its_children(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text("[models.fast]\ntargets = ['demo/demo']\n")
    async with running_up(tmp_path / "data", HEADRACE_CONFIG=str(file)) as up:
        file.write_text("[models.slow]\ntargets = ['demo/demo']\n")
        up.process.send_signal(signal.SIGHUP)
        await until(lambda: up.text.count("configuration loaded") == 2, "both children read the file")
        file.write_text(WRONG)
        up.process.send_signal(signal.SIGHUP)
        await until(lambda: up.text.count(REASON) == 2, "both children refused the file")
        file.write_text("[models.last]\ntargets = ['demo/demo']\n")
        ended = await finish(await headrace("reload", "--data-dir", str(tmp_path / "data")), timeout_s=100)
        assert ended.code == 0, ended
        assert {line.split()[1] for line in ended.out.splitlines()} == {"gateway", "worker"}
        assert len(up.every_pid) == 3, up.text  # nothing was restarted


async def test_a_closed_terminal_stops_a_worker(tmp_path: Path) -> None:
    """SIGHUP of a closed terminal is no request to reload: the process could not be stopped from there any more."""
    settings = {"HEADRACE_LOG_FORMAT": "json", "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
        os.execve(sys.executable, [sys.executable, "-m", "headrace", "worker"], environment(**settings))
    output = b""
    async with asyncio.timeout(60):
        while b"Redis" not in output:
            output += await asyncio.to_thread(os.read, terminal, 4096)
    os.close(terminal)
    statuses = []

    def has_ended() -> bool:
        ended, status = os.waitpid(pid, os.WNOHANG)
        statuses.append(status)
        return ended == pid

    try:
        await until(has_ended, "the worker ended")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(statuses[-1]) == 0
