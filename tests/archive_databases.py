"""Databases for tests of the archive: a file of SQLite, and a server of PostgreSQL."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.ports import free_port

_PROGRAMS = Path("/usr/lib/postgresql")


class SqliteFile:
    """A database in a file. ``port``: of its server; 0 without one."""

    port = 0
    #: A process that is paused may hold the lock of a file.
    _connect: Mapping[str, Any] = {"timeout": 60}

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'archive.db'}"

    @property
    def driver_url(self) -> str:
        return self.url.replace("sqlite:", "sqlite+aiosqlite:")

    async def start(self) -> None:
        """Do nothing: a file needs no server."""

    async def stop(self) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Do nothing: its folder is the test's."""

    async def execute(self, statement: str) -> None:
        """Run a statement, as an operator would."""
        engine = create_async_engine(self.driver_url, connect_args=dict(self._connect))
        try:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(statement)
        finally:
            await engine.dispose()

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query, as an operator would see them."""
        engine = create_async_engine(self.driver_url, connect_args=dict(self._connect))
        try:
            async with engine.connect() as connection:
                return [dict(row._mapping) for row in await connection.execute(text(query))]
        finally:
            await engine.dispose()


class PostgresServer(SqliteFile):
    """A server of PostgreSQL with a database of its own. It refuses to run as root, so it runs as nobody there."""

    _connect: Mapping[str, Any] = {}

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"postgresql://headrace:a-password@127.0.0.1:{self.port}/archive"
        self._data = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
        self._log = folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self._data, self._user.pw_uid, self._user.pw_gid)

    @property
    def driver_url(self) -> str:
        return self.url.replace("postgresql:", "postgresql+psycopg:")

    async def start(self) -> None:
        if not (self._data / "data").exists():
            password = self._data / "password"
            password.write_text("a-password")
            arguments = ["-D", self._data / "data", "-U", "headrace", "-A", "scram-sha-256", f"--pwfile={password}"]
            password.chmod(0o644)
            await asyncio.to_thread(self._run, "initdb", *map(str, arguments), "--locale=C.UTF-8", "--no-sync")
        with self._log.open("ab") as log:
            options = ["-D", self._data / "data", "-p", self.port, "-k", self._data, "-c", "fsync=off"]
            self._process = subprocess.Popen(
                [_program("postgres"), *map(str, options), "-c", "listen_addresses=127.0.0.1"],
                **self._identity,
                stdout=log,
                stderr=log,
            )
        await self._created()

    async def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def kill(self) -> None:
        """Kill all processes at once, in the middle of what they do. :meth:`start` starts them again."""
        assert self._process is not None
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait)
        self._process = None

    def freeze(self) -> None:
        """Let every connection hang, and no new one get an answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        shutil.rmtree(self._data)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            with suppress(ProcessLookupError):  # a child that has ended, perhaps because its parent has
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [self._process.pid, *map(int, children.split())]

    async def _created(self) -> None:
        """Wait for the server, and create the database."""
        engine = create_async_engine(self.driver_url.replace("/archive", "/postgres"), isolation_level="AUTOCOMMIT")
        try:
            for _ in range(600):
                try:
                    async with engine.connect() as connection:
                        query = text("SELECT count(*) FROM pg_database WHERE datname = 'archive'")
                        if not await connection.scalar(query):
                            await connection.execute(text("CREATE DATABASE archive"))
                        return
                except Exception:  # noqa: BLE001  it starts
                    await asyncio.sleep(0.1)
            raise AssertionError(f"PostgreSQL does not answer; its log is {self._log}")
        finally:
            await engine.dispose()

    @property
    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([_program(program), *arguments], **self._identity, check=True, capture_output=True)


def has_postgres() -> bool:
    """Return True if the programs of a server are installed."""
    return bool(shutil.which("postgres") or sorted(_PROGRAMS.glob("*/bin/postgres")))


def _program(name: str) -> str:
    return shutil.which(name) or str(sorted(_PROGRAMS.glob(f"*/bin/{name}"))[-1])
