"""Rows of aligned text, for terminals and pipes alike."""

from collections.abc import Iterable, Sequence
from typing import Final

from shared.printable import one_line

_WIDEST: Final = 48


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return the rows as lines. All columns but the last are padded; a long cell moves the rest of its line."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))[:-1]
    widths = [min(max(map(len, column)), _WIDEST) for column in columns]
    return "\n".join(_line(row, widths) for row in cells)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return "  ".join([*padded, row[-1]]).rstrip()


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun. ``plural``: of a noun that takes more than an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
