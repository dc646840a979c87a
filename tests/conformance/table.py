"""The matrix as a table of ``docs/compatibility.md``. Every cell of it was run."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.conformance.clients import CLIENTS, PROVIDERS
from tests.conformance.matrix import Matrix
from tests.conformance.rows import ROWS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "compatibility.md"
_PACKAGES: Final = Path(__file__).parents[2] / "examples" / "node" / "package.json"
_BEGIN: Final = "<!-- written by make compatibility -->\n"
_KEYED: Final = ", with an `Idempotency-Key`"
_END: Final = "<!-- until here -->\n"


def written(document: str, matrix: Matrix) -> str:
    """Return ``document`` with this matrix instead of its own."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return "".join((before, _BEGIN, _table(matrix), _END, after))


def _table(matrix: Matrix) -> str:
    notes: list[str] = []
    lines = [
        "| | " + " | ".join(str(number) for number, _ in enumerate(CLIENTS, 1)) + " |",
        "|---|" + "---|" * len(CLIENTS),
    ]
    for row in ROWS:
        cells = [_cell(matrix, row.name, client.name, notes) for client in CLIENTS]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    legend = [f"{number}. `{client.name}`, {_version(client.package)}" for number, client in enumerate(CLIENTS, 1)]
    whys = [f"- {_sign(at)} {why}" for at, why in enumerate(notes)]
    return "\n".join([*lines, "", *legend, "", *whys, ""])


def _cell(matrix: Matrix, row: str, client: str, notes: list[str]) -> str:
    passed = [provider for provider in PROVIDERS if (row, client, provider) in matrix.passed]
    failed = [provider for provider in PROVIDERS if (row, client, provider) in matrix.failed]
    whys = {why for provider in PROVIDERS if (why := matrix.left_out.get((row, client, provider)))}
    notes += sorted(whys - set(notes))
    signs = "".join(sorted(_sign(notes.index(why)) for why in whys))
    return "".join(("✓" if passed else "", "✗" if failed else "", signs)) or "?"


def _sign(at: int) -> str:
    return "abcdefgh"[at]


def _version(package: str) -> str:
    if package.startswith("py "):
        return version(package.removeprefix("py "))
    dependencies: dict[str, str] = json.loads(_PACKAGES.read_text())["dependencies"]
    return dependencies[package]
