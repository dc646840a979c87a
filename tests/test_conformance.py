"""The official clients work with every provider in every situation of ``tests/conformance``."""

from pathlib import Path

import pytest

from tests.conformance.matrix import run_matrix
from tests.conformance.table import DOCUMENT, written


@pytest.mark.timeout(600)
async def test_every_cell_of_the_compatibility_table_is_true(tmp_path: Path) -> None:
    matrix = await run_matrix(tmp_path)
    assert not matrix.failed, "\n\n".join(f"{' · '.join(cell)}\n{trace}" for cell, trace in matrix.failed.items())
    document = DOCUMENT.read_text()
    assert document == written(document, matrix), "the table is another: make compatibility writes it"
