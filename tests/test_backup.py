"""deploy/backup.sh copies a store that is in use, and a new system serves the answers of the copy."""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from shared.service_manager import VARIABLES
from tests.broker import Broker
from tests.ports import free_port
from tests.service_manager import Service, Unit, environment_of
from tests.system import REPOSITORY
from tests.test_deployment import ASK, QUICK

SCRIPT = REPOSITORY / "deploy" / "backup.sh"


async def copy(source: Path, archive: Path) -> None:
    with archive.open("wb") as output:
        process = await asyncio.create_subprocess_exec("sh", SCRIPT, source, stdout=output)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert not list(source.glob("backup-*"))


def restore(archive: Path, folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    subprocess.run(["tar", "-C", folder, "-xf", archive], check=True)
    return folder


async def test_a_copy_of_a_running_system_serves_its_answers(tmp_path: Path) -> None:
    """Backs up `headrace up`, started as its unit does, and reads an answer from a new directory: through a link that
    was signed before, so the secret is restored too."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    before = Service(Unit("headrace.service"), tmp_path / "before")
    after = Service(Unit("headrace.service"), tmp_path / "after")
    settings = {**QUICK, "HEADRACE_PORT": str(port)}
    try:
        await before.start({"/var/lib/headrace": str(tmp_path / "data")}, settings)
        await before.has_sent("READY=1")
        assert [pid for pid in before.descendants() if environment_of(pid) & set(VARIABLES)] == []
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            created = (await http.post(f"{url}/chat", json=ASK)).json()
            link = created["stream_url"]
            await http.get(f"{url}{link}")  # to its end, perhaps with signs of life
            answer = (await http.get(f"{url}{link}")).text
            await copy(tmp_path / "data", tmp_path / "backup.tar")
        assert await before.stop() == 0
        assert before.states.count("READY=1") == before.states.count("STOPPING=1") == 1

        data = restore(tmp_path / "backup.tar", tmp_path / "restored")
        await after.start({"/var/lib/headrace": str(data)}, settings)
        await after.has_sent("READY=1")
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            assert (await http.get(f"{url}{link}")).text == answer
        assert await after.stop() == 0
    finally:
        before.close()
        after.close()


async def test_a_copy_is_whole_while_the_server_writes_and_rewrites_its_file(tmp_path: Path) -> None:
    """A writer appends pairs in transactions, and the file is rewritten all the time. Each copy has all pairs that
    were written before it began, and no half of one."""
    broker = Broker(tmp_path / "redis", "--auto-aof-rewrite-percentage", "0", "--appendfsync", "no")
    await broker.start()
    written = 0

    async def write() -> None:
        nonlocal written
        async with broker.client() as redis:
            while True:
                async with redis.pipeline(transaction=True) as pair:
                    pair.rpush("left", written)
                    pair.rpush("right", written)
                    await pair.execute()
                written += 1

    async def rewrite() -> None:
        async with broker.client() as redis:
            while True:
                with suppress(Exception):
                    await redis.bgrewriteaof()  # type: ignore[no-untyped-call]
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(write()), asyncio.create_task(rewrite())]
    try:
        for number in range(8):
            await asyncio.sleep(0.05)
            known = written
            archive = tmp_path / f"{number}.tar"
            await copy(broker.folder, archive)
            restored = Broker(restore(archive, tmp_path / str(number)))
            try:
                await restored.start()
                async with restored.client() as redis, redis.pipeline() as pair:
                    pair.lrange("left", 0, -1)
                    pair.lrange("right", 0, -1)
                    left, right = await pair.execute()
            finally:
                restored.kill()
            assert left == right == [str(each).encode() for each in range(len(left))]
            assert len(left) >= known - 1
    finally:
        for task in tasks:
            task.cancel()
        broker.kill()


@pytest.mark.parametrize("files", [[], ["appendonlydir/appendonly.aof.1.incr.aof"]])
async def test_a_directory_without_a_whole_file_is_refused(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = subprocess.run(["sh", SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "appendonly yes" in done.stderr
