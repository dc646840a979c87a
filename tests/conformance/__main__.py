"""``python -m tests.conformance``: run the matrix and write its table into ``docs/compatibility.md``.
``row=… client=… provider=…`` runs a part of it and writes nothing."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance.matrix import run_matrix
from tests.conformance.table import DOCUMENT, written

only = dict(argument.split("=", 1) for argument in sys.argv[1:])
with tempfile.TemporaryDirectory() as folder:
    matrix = asyncio.run(run_matrix(Path(folder), only))
for (row, client, provider), trace in matrix.failed.items():
    print(f"--- {row} · {client} · {provider}\n{trace}")
print(f"{len(matrix.passed)} cells passed, {len(matrix.failed)} failed")
if not only:
    DOCUMENT.write_text(written(DOCUMENT.read_text(), matrix))
sys.exit(bool(matrix.failed))
