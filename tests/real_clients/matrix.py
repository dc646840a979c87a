"""Runs the cells, several at a time, and collects the results."""

import asyncio
import traceback
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.real_clients.cell import Cell
from tests.real_clients.killed import gateways_killed
from tests.real_clients.program import Program, Way
from tests.real_clients.scenarios import SCENARIOS, Scenario
from tests.real_clients.settings import SETTINGS
from tests.real_clients.upstream import Upstream
from tests.system import System

KILLS: Final = "gateways killed"
COLUMNS: Final = (*SCENARIOS, KILLS)
_AT_ONCE: Final = 3
_CELL_TIMEOUT_S: Final = 90
_KILLS_TIMEOUT_S: Final = 240
#: The letter of the cell *gateways killed* of a library.
NO_AGENT: Final = "a"


@dataclass(slots=True)
class Matrix:
    """Cells by program, way and column: passed ones, and tracebacks of failed ones."""

    passed: set[tuple[str, str, str]] = field(default_factory=set)
    failed: dict[tuple[str, str, str], str] = field(default_factory=dict)


async def run_matrix(
    folder: Path, programs: Sequence[Program], columns: Sequence[str], *, direct: bool = False
) -> Matrix:
    """Run the cells of ``programs``, which are installed. ``direct``: without a gateway between, as far as the fake
    upstream speaks the program's API, to see whether a failure is the program's own."""
    matrix, marks, upstream = Matrix(), count(1), Upstream()
    at_once = asyncio.Semaphore(_AT_ONCE)
    cells = [
        (program, way, column)
        for program in programs
        for way in program.ways
        for column in columns
        if not direct or way.is_direct
    ]
    system = System(folder, gateways=1, workers=1, providers=("openai", "anthropic"), **SETTINGS)
    system.fake.director = upstream.answer

    async def run(program: Program, way: Way, column: str, scenario: Scenario) -> None:
        url = system.fake.anthropic_base_url if direct else system.url
        cell = Cell(program, way, mark=f"mark-{next(marks)}", url=url, upstream=upstream)
        async with at_once:
            await _run(matrix, (program.name, str(way), column), scenario(cell), _CELL_TIMEOUT_S)

    try:
        await system.start()
        async with asyncio.TaskGroup() as group:
            for program, way, column in cells:
                if column in SCENARIOS and lacks(program, way, column) is None:
                    group.create_task(run(program, way, column, SCENARIOS[column]))
    finally:
        await system.stop()
    for program, way, column in cells:
        if column == KILLS and program.is_agent and not direct:
            name = program.name, str(way), column
            await _run(matrix, name, gateways_killed(program, way), _KILLS_TIMEOUT_S)
    return matrix


async def _run(
    matrix: Matrix, name: tuple[str, str, str], check: Coroutine[Any, Any, None], timeout_s: float
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await check
    except Exception:  # noqa: BLE001  a failing cell does not affect others
        matrix.failed[name] = traceback.format_exc(limit=-3)
    else:
        matrix.passed.add(name)
    print(f"{' · '.join(name)}: {'passed' if name in matrix.passed else 'FAILED'}", flush=True)


def lacks(program: Program, way: Way, column: str) -> str | None:
    """Return the letter of the reason why the program has no such cell, or None."""
    if column == KILLS and not program.is_agent:
        return NO_AGENT
    return program.lacks.get(column) or program.lacks.get(f"{way.api}: {column}")
