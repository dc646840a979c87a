"""Reference servers of other projects, for the conformance kit: official npm packages in ``conformance/references``.

``make conformance-references`` installs them, and ``python -m tests.reference_servers FOLDER`` checks them and writes
the reports into a folder.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx2

from headrace_conformance import cli
from headrace_conformance.provider.server import Provider
from tests.broker import Broker
from tests.conformance.node import NODE
from tests.ports import free_port
from tests.system import REPOSITORY

_FOLDER: Final = REPOSITORY / "conformance" / "references"
_READY_S: Final = 60


@dataclass(frozen=True)
class Reference:
    """One server. ``packages``: those that the report names with their versions."""

    name: str
    profile: str
    packages: tuple[str, ...]

    @property
    def is_installed(self) -> bool:
        return all((_FOLDER / self.name / "node_modules" / package).is_dir() for package in self.packages)

    @property
    def subject(self) -> str:
        manifest = json.loads((_FOLDER / self.name / "package.json").read_text())
        return ", ".join(f"{package} {manifest['dependencies'][package]}" for package in self.packages)


RESUMABLE_STREAM: Final = Reference("resumable_stream", "ai-sdk", ("resumable-stream", "ai"))
DURABLE_STREAMS: Final = Reference("durable_streams", "durable-streams", ("@durable-streams/server",))
POLLED_STREAMS: Final = replace(DURABLE_STREAMS, profile="durable-streams-polls")
REFERENCES: Final = (RESUMABLE_STREAM, DURABLE_STREAMS, POLLED_STREAMS)


@asynccontextmanager
async def serving(reference: Reference, folder: Path, **environment: str) -> AsyncIterator[tuple[str, Provider]]:
    """Yield the address of a running server, and the kit's provider behind it."""
    broker, port = Broker(folder / "broker"), free_port()
    await broker.start()
    try:
        with Provider() as provider:
            variables = {
                "PORT": str(port),
                "REDIS_URL": broker.url,
                "PROVIDER_URL": f"{provider.url}/v1",
                **environment,
            }
            server = _start(reference, variables, folder / "server.log")
            try:
                url = f"http://127.0.0.1:{port}"
                await _until_ready(server, url, folder / "server.log")
                yield url, provider
            finally:
                server.kill()
                server.wait()
    finally:
        broker.kill()


async def check(reference: Reference, folder: Path, *arguments: str) -> Any:
    """Check a reference server with the kit, and return the data of the report. The page is beside it."""
    report, page = folder / f"{reference.profile}.json", folder / f"{reference.profile}.html"
    async with serving(reference, folder) as (url, provider):
        behind = () if reference.name == DURABLE_STREAMS.name else ("--scripts=", "--provider", provider.url)
        written = ("--subject", reference.subject, "--json", str(report), "--report", str(page))
        command = ("run", "--profile", reference.profile, "--url", url, *behind, *written, *arguments)
        await asyncio.to_thread(cli.main, command)
    return json.loads(report.read_text())


def _start(reference: Reference, variables: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    inherited = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "PATH")}
    folder = _FOLDER / reference.name
    with log.open("ab") as output:
        return subprocess.Popen(
            [NODE, "server.mjs"], cwd=folder, env=inherited | variables, stdout=output, stderr=output
        )


async def _until_ready(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    async with asyncio.timeout(_READY_S), httpx2.AsyncClient(trust_env=False) as http:
        while True:
            if server.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            try:
                await http.get(f"{url}/healthz")
            except httpx2.HTTPError:
                await asyncio.sleep(0.05)
            else:
                return


async def _write_reports(folder: Path) -> None:
    for reference in REFERENCES:
        (folder / reference.profile).mkdir(parents=True, exist_ok=True)
        print(f"--- {reference.subject}: {reference.profile}", flush=True)
        await check(reference, folder / reference.profile)


if __name__ == "__main__":
    asyncio.run(_write_reports(Path(sys.argv[1])))
