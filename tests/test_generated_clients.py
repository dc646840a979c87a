"""Clients that three generators make of ``/openapi.json`` work against a running server: nightly, after
``make generated-clients``, which installs the pinned generators into a folder of their own."""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

import pytest

from tests.system import REPOSITORY, System

TOOLS = REPOSITORY / ".venv" / "generators"
USES = REPOSITORY / "tests" / "generated_clients"
PYTHON = TOOLS / "bin" / "python"
MODULES = TOOLS / "node" / "node_modules"

pytestmark = [
    pytest.mark.skipif(not os.environ.get("HEADRACE_NIGHTLY"), reason="nightly: make generated-clients"),
    pytest.mark.timeout(300),
]


async def run(folder: Path, *command: str | Path) -> str:
    """Run a program to its end; fails with its output."""
    path = f"{TOOLS / 'bin'}:{REPOSITORY / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def prepared(system: System, folder: Path, use: str) -> Path:
    """Write the description into a folder, with the program that will use the client."""
    description = folder / "openapi.json"
    description.write_text((await system.http.get(f"{system.url}/openapi.json")).text)
    shutil.copy(USES / use, folder)
    return description


async def test_openapi_python_client(system: System, tmp_path: Path) -> None:
    description = await prepared(system, tmp_path, "use_python_client.py")
    generate = (TOOLS / "bin" / "openapi-python-client", "generate", "--fail-on-warning", "--meta", "none")
    await run(tmp_path, *generate, "--path", description, "--output-path", tmp_path / "client")
    await run(tmp_path, PYTHON, "use_python_client.py", system.url)


async def test_datamodel_code_generator(system: System, tmp_path: Path) -> None:
    description = await prepared(system, tmp_path, "use_models.py")
    kind = ("--input-file-type", "openapi", "--output-model-type", "pydantic_v2.BaseModel")
    generate = (TOOLS / "bin" / "datamodel-codegen", *kind, "--input", description, "--output", "models.py")
    await run(tmp_path, *generate)
    await run(tmp_path, PYTHON, "use_models.py", system.url)


async def test_openapi_typescript(system: System, tmp_path: Path) -> None:
    """The types are checked by the compiler; Node runs the program itself, without its types."""
    description = await prepared(system, tmp_path, "use_types.ts")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    (tmp_path / "node_modules").symlink_to(MODULES)
    node = REPOSITORY / ".venv" / "bin" / "node"
    await run(tmp_path, node, MODULES / "openapi-typescript" / "bin" / "cli.js", description, "-o", "schema.d.ts")
    checks = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom")
    await run(tmp_path, node, MODULES / "typescript" / "bin" / "tsc", *checks, "use_types.ts")
    await run(tmp_path, node, "use_types.ts", system.url)
