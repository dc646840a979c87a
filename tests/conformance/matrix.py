"""Runs every cell, several at a time, and collects the results."""

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.bench import SETTINGS, Cell
from tests.conformance.clients import CLIENTS, PROVIDERS
from tests.conformance.node import Node
from tests.conformance.outcome import Client
from tests.conformance.rows import ROWS, Row
from tests.system import System

_AT_ONCE = 16
_CELL_TIMEOUT_S = 90


@dataclass(slots=True)
class Matrix:
    """Cells by row, client and provider: passed ones, reasons for absent ones, and tracebacks of failed ones."""

    passed: set[tuple[str, str, str]] = field(default_factory=set)
    left_out: dict[tuple[str, str, str], str] = field(default_factory=dict)
    failed: dict[tuple[str, str, str], str] = field(default_factory=dict)


async def run_matrix(folder: Path, only: Mapping[str, str] | None = None) -> Matrix:
    """Run the matrix. ``only``: parts of the names of rows, clients or providers, to run a part of it."""
    wanted = only or {}
    matrix = Matrix()
    system = System(folder, gateways=1, workers=1, **SETTINGS)
    at_once = asyncio.Semaphore(_AT_ONCE)
    try:
        await system.start()
        async with Node() as node, asyncio.TaskGroup() as group:
            for row in ROWS:
                for client in CLIENTS:
                    for provider in PROVIDERS:
                        if why := row.leaves_out(client, provider):
                            matrix.left_out[row.name, client.name, provider] = why
                            continue
                        names = {"row": row.name, "client": client.name, "provider": provider}
                        if all(part in names[kind] for kind, part in wanted.items()):
                            group.create_task(_run(matrix, row, client, provider, system, node, at_once))
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()
    return matrix


async def _run(
    matrix: Matrix, row: Row, client: Client, provider: str, system: System, node: Node, at_once: asyncio.Semaphore
) -> None:
    name = f"m{ROWS.index(row)}-{CLIENTS.index(client)}-{provider}"
    async with at_once:
        try:
            async with asyncio.timeout(_CELL_TIMEOUT_S):
                await row.check(Cell(system, node, client, provider, name))
        except Exception:  # noqa: BLE001  a failing cell does not affect others
            matrix.failed[row.name, client.name, provider] = traceback.format_exc(limit=-3)
        else:
            matrix.passed.add((row.name, client.name, provider))
