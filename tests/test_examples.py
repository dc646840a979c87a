"""Every script of ``examples/`` survives a kill: started again, it has printed the whole answer once."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.conformance.node import NODE
from tests.fakes.answer import Answer
from tests.system import REPOSITORY, System

FOLDER = REPOSITORY / "examples"
#: All but the reader of the archive, which reads no stream, and the hooks (tests/test_hooks.py).
SCRIPTS = sorted(
    {*FOLDER.glob("python/*.py"), *FOLDER.glob("node/*.mjs"), *FOLDER.glob("*.sh")}
    - {FOLDER / "python/read_archive.py", *FOLDER.glob("python/hooks_*.py")}
)
PROGRAMS = {".py": sys.executable, ".mjs": str(NODE), ".sh": "bash"}
BEFORE, AFTER = ("Once ", "upon "), ("a ", "time", ".")


async def start(script: Path, system: System, folder: Path) -> Process:
    model = f"openai/example-{script.name}"
    environment = {**os.environ, "HEADRACE_URL": system.url, "HEADRACE_MODEL": model}
    return await asyncio.create_subprocess_exec(
        PROGRAMS[script.suffix],
        script,
        cwd=folder,
        env=environment,
        stdout=PIPE,
        start_new_session=True,  # a script's own children are to be killed with it
    )


def text_of(printed: bytes, script: Path) -> str:
    """Return the text as its reader sees it: the shell script prints the events' data."""
    text = printed.decode()
    if script.suffix != ".sh":
        return text
    return "".join(line.partition('"token":"')[2].partition('"')[0] for line in text.splitlines())


def joined(before: str, rest: str) -> str:
    """Join both outputs. A script that was killed before it saved its progress prints the last piece again."""
    again = next(length for length in range(len(before), -1, -1) if rest.startswith(before[len(before) - length :]))
    return before + rest[again:]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
async def test_a_killed_example_resumes_and_prints_everything_once(
    system: System, script: Path, tmp_path: Path
) -> None:
    gate = asyncio.Event()
    system.fake.play(f"example-{script.name}", Answer(deltas=(*BEFORE, *AFTER), gate=gate, gate_after=len(BEFORE)))
    first = await start(script, system, tmp_path)
    assert first.stdout is not None
    printed = b""
    while text_of(printed, script) != "".join(BEFORE):
        piece = await first.stdout.read(1000)
        assert piece, printed
        printed += piece
    os.killpg(first.pid, signal.SIGKILL)
    await first.wait()

    second = await start(script, system, tmp_path)
    gate.set()
    rest, _ = await second.communicate()
    assert second.returncode == 0
    assert joined(text_of(printed, script), text_of(rest, script).rstrip("\n")) == "".join((*BEFORE, *AFTER))
    assert len([call for call in system.fake.calls if call.model == f"example-{script.name}"]) == 1
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".new"]


def test_the_docs_show_the_example_scripts() -> None:
    document = (REPOSITORY / "docs" / "clients.md").read_text()
    shown = re.findall(r"<!-- (examples/\S+) -->\n```\w+\n(.*?)```\n", document, re.DOTALL)
    assert len(shown) == 6
    for path, snippet in shown:
        assert snippet == (REPOSITORY / path).read_text(), path
