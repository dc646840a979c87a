"""One cell: a program, one of its ways, and one scenario, with a folder and a home of its own."""

import asyncio
import contextlib
import os
import signal
import struct
import tempfile
import zlib
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fakes import Answer, Call
from tests.real_clients.install import NODE_BIN
from tests.real_clients.program import Kind, Outcome, Program, Task, Way
from tests.real_clients.upstream import Play, Upstream

_PROMPT: Final = "Do the task, call it {mark}, with your tools."


class Cell:
    """``run`` starts the program and returns its outcome. ``calls`` are the requests of its main loop."""

    def __init__(self, program: Program, way: Way, *, mark: str, url: str, upstream: Upstream) -> None:
        self.program = program
        self.way = way
        self.folder = Path(tempfile.mkdtemp(prefix="work-"))
        self.image = self.folder / "picture.png"
        self.image.write_bytes(_a_picture())
        self.play = Play([], program.offers_tools, program.count_results, program.main_tool)
        self._mark = mark
        self._url = url
        self._process: asyncio.subprocess.Process | None = None
        self.home = Path(tempfile.mkdtemp(prefix="home-"))
        upstream.add(mark, self.play)

    @property
    def lines(self) -> list[str]:
        """Return the lines that the tools have appended so far."""
        steps = self.folder / "steps"
        return steps.read_text().split() if steps.exists() else []

    @property
    def calls(self) -> list[Call]:
        return self.play.calls

    def plays(self, *answers: Answer) -> None:
        self.play.answers = answers

    async def nth_call(self, number: int) -> Call:
        """Wait for the request of this number, from 1. A heavy program needs minutes to start on a busy machine."""
        async with asyncio.timeout(500 if self.program.heavy else 60):
            while len(self.calls) < number:
                await asyncio.sleep(0.02)
        return self.calls[number - 1]

    async def nth_call_with(self, results: int) -> Call:
        """Wait for the first request with so many tool results."""
        while results not in self.play.results:
            await asyncio.sleep(0.02)
        return self.calls[self.play.results.index(results)]

    async def run(
        self, kind: Kind, *, prompt: str = _PROMPT, options: Sequence[str] = (), stdin: bytes | None = None
    ) -> Outcome:
        """Run the program once. ``options`` are added to its command line. ``stdin``: its whole input."""
        task = Task(
            kind=kind,
            prompt=prompt.format(mark=self._mark),
            url=self._url,
            way=self.way,
            folder=self.folder,
            home=self.home,
        )
        command = self.program.command(task)
        environment = {
            "PATH": f"{NODE_BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            **command.environment,
        }
        self._process = await asyncio.create_subprocess_exec(
            *command.arguments,
            *options,
            cwd=self.folder,
            env=environment,
            stdin=PIPE if command.cancels or stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            limit=1 << 24,
            start_new_session=True,
        )
        try:
            out, err = await self._output(self._process, stdin, has_input=command.cancels)
        finally:
            self._kill()
        code = self._process.returncode
        outcome = self.program.outcome(task, 0 if code is None else code, out.decode(), err.decode())
        if code != 0 and outcome.error is None:
            outcome.error = (err or out).decode()[-1000:]
        return outcome

    def interrupt(self) -> None:
        """Press Ctrl-C in the program's terminal, unless it cancels by itself."""
        if self._process is not None and self._process.returncode is None and self._process.stdin is None:
            os.killpg(self._process.pid, signal.SIGINT)

    def end_input(self) -> None:
        """End the input of a program that has cancelled by itself."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    @staticmethod
    async def _output(
        process: asyncio.subprocess.Process, stdin: bytes | None, *, has_input: bool
    ) -> tuple[bytes, bytes]:
        if not has_input:
            return await process.communicate(stdin)
        assert process.stdout is not None
        assert process.stderr is not None
        out, err, _ = await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
        return out, err

    def _kill(self) -> None:
        """Kill the program with everything that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _a_picture() -> bytes:
    """Return a red square as a PNG."""
    size = 32
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"\xff\0\0" * size for _ in range(size))
    chunks: Sequence[tuple[bytes, bytes]] = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    encoded = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)
