"""The conformance kit as strangers get it: built, installed elsewhere, and run against a system.

``python -m tests.conformance_kit FOLDER`` writes the reports of Headrace's APIs into a folder.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from shared.version import VERSION
from tests.ports import free_port
from tests.system import REPOSITORY, System

#: Profiles of the kit that are Headrace's own APIs.
PROFILES: Final = ("native", "responses", "ag-ui", "headrace-ai-sdk")
#: Their provider is the kit's; a test starts it on this port.
CONFIGURATION: Final = """
[providers.kit]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
"""
_BUILD: Final = """
import sys
from pathlib import Path
from client_packages import build_conformance_kit, install
build_conformance_kit(sys.argv[1], Path(sys.argv[2], "dist"))
install(next(Path(sys.argv[2], "dist").glob("*.whl")), Path(sys.argv[2], "environment"))
"""


class Finished(NamedTuple):
    """A run of the kit's command."""

    code: int
    output: str


class InstalledKit:
    """The kit in an environment of its own, far from the source tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = folder / "environment" / "bin" / "headrace-conformance"
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    @classmethod
    def build(cls, folder: Path) -> "InstalledKit":
        command = (sys.executable, "-c", _BUILD, VERSION, str(folder))
        subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY / ".ci")}, check=True)
        return cls(folder)

    async def run(self, *arguments: str) -> Finished:
        process = await self._start(*arguments)
        output, _ = await process.communicate()
        return Finished(process.returncode or 0, output.decode())

    async def check(self, system: System, profile: str, provider_url: str, *arguments: str) -> Finished:
        """Check a system by a profile: streams are made at its first gateway, and read at its last one. The reports
        are ``<profile>.html`` and ``<profile>.json``."""
        gateways = ("--url", system.url, "--attach-url", system.gateways[-1].url)
        scripts = ("--scripts", "kit/", "--provider", provider_url, "--subject", f"Headrace {VERSION}, {profile}")
        reports = ("--report", f"{profile}.html", "--json", f"{profile}.json")
        return await self.run("run", "--profile", profile, *gateways, *scripts, *reports, *arguments)

    def report(self, profile: str) -> Any:
        return json.loads((self.folder / f"{profile}.json").read_text())

    @asynccontextmanager
    async def serving(self, *arguments: str) -> AsyncIterator[None]:
        """Run a command that serves, from its first line of output on."""
        process = await self._start(*arguments)
        assert process.stdout is not None
        try:
            assert await process.stdout.readline()
            yield
        finally:
            process.kill()
            await process.communicate()

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            self.command,
            *arguments,
            cwd=self.folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )


async def _write_reports(target: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        kit, port = InstalledKit.build(Path(folder)), free_port()
        (Path(folder) / "system").mkdir()
        system = System(
            Path(folder) / "system", providers=("kit",), configuration=CONFIGURATION.format(port=port), gateways=2
        )
        async with kit.serving("provider", "--port", str(port)):
            try:
                await system.start()
                found = [await kit.check(system, profile, f"http://127.0.0.1:{port}") for profile in PROFILES]
            finally:
                await system.stop()
        target.mkdir(parents=True, exist_ok=True)
        for profile, finished in zip(PROFILES, found, strict=True):
            print(f"--- {profile}\n{finished.output}")
            (target / f"{profile}.html").write_text((kit.folder / f"{profile}.html").read_text())
    return max(finished.code for finished in found)


if __name__ == "__main__":
    sys.exit(asyncio.run(_write_reports(Path(sys.argv[1]))))
