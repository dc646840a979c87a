"""Tables in Markdown that are also readable in a terminal."""

from collections.abc import Sequence
from typing import Final

NOTHING: Final = "\N{EN DASH}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return Markdown with aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)
