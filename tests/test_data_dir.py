"""``headrace up`` refuses a data directory that another user controls or can enter."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace import data_dir
from headrace.data_dir import DataDirError
from tests.cli import ROOT, environment
from tests.ports import free_port
from tests.test_supervisor import running_up

NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Create a data directory as ``headrace up`` does, with the files of an earlier run."""
    prepared = data_dir.prepare(tmp_path / "data")
    data_dir.secret(prepared)
    data_dir.note_broker(prepared, "unix:///somewhere")
    (prepared / "appendonlydir").mkdir(mode=0o700)
    (prepared / "appendonlydir" / "appendonly.aof.manifest").touch()
    with data_dir.locked(prepared):
        pass
    return prepared


def replace_by_link(directory: Path) -> None:
    directory.rename(directory.with_name("target"))
    directory.symlink_to(directory.with_name("target"))


def replace_file_by_link(file: Path) -> None:
    file.rename(file.parent.parent / "target")
    file.symlink_to(file.parent.parent / "target")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "readable by all": (lambda d: d.chmod(0o755), r"open to other users \(mode 755\); run chmod 700"),
    "readable by the group": (lambda d: d.chmod(0o750), r"open to other users \(mode 750\); run chmod 700"),
    "open by name only": (lambda d: d.chmod(0o711), r"open to other users \(mode 711\); run chmod 700"),
    "writable by all": (lambda d: d.chmod(0o777), r"open to other users \(mode 777\); run chmod 700"),
    "sticky": (lambda d: d.chmod(0o1777), r"open to other users \(mode 1777\); run chmod 700"),
    "a link": (replace_by_link, r"a symbolic link, .*; use its target .*/target"),
    "in a folder of all": (lambda d: d.parent.chmod(0o777), r"every user can replace it"),
    "a linked secret": (lambda d: replace_file_by_link(d / "secret"), r"secret is a symbolic link; delete it"),
    "a linked lock": (lambda d: replace_file_by_link(d / "lock"), r"lock is a symbolic link; delete it"),
    "a linked URL": (lambda d: replace_file_by_link(d / "broker-url"), r"broker-url is a symbolic link; delete it"),
}
OF_ROOT: dict[str, tuple[Callable[[Path], object], str]] = {
    "another owner": (
        lambda d: os.chown(d, NOBODY, NOBODY),
        r"belongs to another user \(uid 65534\); choose another",
    ),
    "another's secret": (
        lambda d: os.chown(d / "secret", NOBODY, 0),
        r"secret belongs to another user .*; delete it",
    ),
    "another's data": (
        lambda d: os.chown(d / "appendonlydir" / "appendonly.aof.manifest", NOBODY, 0),
        r"appendonly.aof.manifest belongs to another user .*; delete it",
    ),
    "another's URL": (lambda d: os.chown(d / "broker-url", NOBODY, 0), r"broker-url belongs to another user"),
}


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(name, marks=needs_root) for name in OF_ROOT)])
def test_a_directory_that_is_not_private_is_refused(directory: Path, case: str) -> None:
    change, message = (CASES | OF_ROOT)[case]
    assert data_dir.broker_url(directory) == "unix:///somewhere"
    change(directory)
    try:
        with pytest.raises(DataDirError, match=rf"^data directory {directory}: {message}"):
            data_dir.prepare(directory)
        # `headrace keys` would send keys to the address in it.
        with pytest.raises(DataDirError, match=message):
            data_dir.broker_url(directory)
    finally:
        directory.parent.chmod(0o700)


def test_a_secret_that_others_could_read_is_refused(directory: Path) -> None:
    (directory / "secret").chmod(0o644)
    with pytest.raises(DataDirError, match=r"secret: open to other users \(mode 644\); delete the file"):
        data_dir.secret(directory)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_a_directory_of_our_own_is_accepted_again_under_every_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            prepared = data_dir.prepare(tmp_path / "data")
            with data_dir.locked(prepared):
                secret = data_dir.secret(prepared)
                data_dir.note_broker(prepared, "unix:///somewhere")
            assert data_dir.secret(prepared) == secret
    finally:
        os.umask(before)
    assert stat.S_IMODE(prepared.stat().st_mode) == 0o700
    assert [path.name for path in prepared.iterdir() if path.stat().st_mode & 0o077] == []


def test_a_directory_in_the_temporary_folder_of_all_is_accepted(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    try:
        assert data_dir.prepare(tmp_path / "data") == tmp_path / "data"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("command", [("up", "--port", "PORT"), ("keys", "list")])
async def test_the_commands_name_the_problem_and_the_remedy(directory: Path, command: tuple[str, ...]) -> None:
    directory.chmod(0o755)
    arguments = [str(free_port()) if word == "PORT" else word for word in command]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", *arguments, "--data-dir", str(directory)),
        cwd=ROOT,
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 1
    assert f"data directory {directory}: open to other users (mode 755); run chmod 700 {directory}" in errors.decode()
    assert "Traceback" not in errors.decode()


# --- processes of one headrace up


async def test_every_process_gets_its_own_secrets_only_and_writes_private_files(tmp_path: Path) -> None:
    secrets = {
        **dict.fromkeys(("HEADRACE_SECRET", "HEADRACE_JWT_SECRET"), "x" * 32),
        **{"HEADRACE_AUTH": "jwt", "HEADRACE_JWT_AUDIENCE": "us", "HEADRACE_CONTENT_KEYS": "ab" * 32},
        **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_API_KEY", "openai_api_key"), "sk-1"),
        **dict.fromkeys(("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "OLLAMA_HOST"), "http://127.0.0.1:9"),
    }
    of_worker = {name for name in secrets if name.upper().startswith(("OPENAI", "ANTHROPIC", "OLLAMA"))}
    async with running_up(tmp_path, gateways=1, workers=1, **secrets) as up:
        for process, others in (
            ("gateway.1", of_worker),
            ("worker.1", {"HEADRACE_SECRET", "HEADRACE_AUTH", "HEADRACE_JWT_SECRET", "HEADRACE_JWT_AUDIENCE"}),
            ("broker", set(secrets)),
        ):
            content = Path(f"/proc/{up.pids[process]}/environ").read_text()
            names = {variable.partition("=")[0] for variable in content.split("\0")}
            assert names & secrets.keys() == secrets.keys() - others, process
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path.name for path in files if is_open_to_others(path)] == []


def is_open_to_others(path: Path) -> bool:
    try:
        return path.stat().st_mode & 0o077 != 0
    except FileNotFoundError:  # a temporary file of Redis, which is gone since
        return False


def test_the_procfile_gives_each_process_its_own_secrets_only(tmp_path: Path) -> None:
    for program in ("headrace", "redis-server"):
        (tmp_path / program).write_text("#!/bin/sh\nexec env\n")
        (tmp_path / program).chmod(0o700)
    of_gateway = {"HEADRACE_SECRET", "HEADRACE_AUTH", "HEADRACE_JWT_SECRET"}
    of_worker = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OLLAMA_API_KEY"}
    given = dict.fromkeys({*of_gateway, *of_worker, "HEADRACE_CONTENT_KEYS", "HEADRACE_REDIS_URL"}, "x")
    own = {"gateway": given.keys() - of_worker, "worker": given.keys() - of_gateway, "redis": set()}
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, command = line.split(": ", 1)
        path = f"{tmp_path}:{os.defpath}"
        run = subprocess.run(
            ["sh", "-c", command], env={**given, "PATH": path}, capture_output=True, text=True, check=True
        )
        names = {variable.partition("=")[0] for variable in run.stdout.splitlines()}
        assert names & given.keys() == own.pop(name), name
    assert own == {}
