"""Report of measurements that are tables of their own, in ``bench/results/``: JSON and Markdown."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import machine
from bench.markdown import aligned

_FOLDER: Final = Path(__file__).parent / "results"
Rows = Sequence[Sequence[str]]


def write(name: str, command: str, tables: Mapping[str, tuple[str, Rows]]) -> None:
    """Print the tables and write both files. ``tables``: name → title, rows with the head first."""
    facts = {**machine.facts(), "command": command}
    saved = {part: {"title": title, "rows": rows} for part, (title, rows) in tables.items()}
    (_FOLDER / f"{name}.json").write_text(json.dumps({"facts": facts, "tables": saved}, indent=1) + "\n")
    parts = [f"## {title}\n\n{aligned(rows)}" for title, rows in tables.values()]
    print("\n\n".join(parts))
    head = aligned([["", ""], *([key, value] for key, value in facts.items())])
    (_FOLDER / f"{name}.md").write_text("\n\n".join([f"# Bench: {name}", head, *parts]) + "\n")


def percentiles_ms(values_s: Collection[float]) -> list[str]:
    """Return median, 99th percentile and maximum, of at least one value."""
    ordered = sorted(value * 1000 for value in values_s)
    return [f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.2f}" for share in (0.5, 0.99, 1)]
