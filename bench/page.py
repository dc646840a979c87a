"""Writes the tables of reports into docs/performance.md and docs/scaling.md: ``python -m bench.page``.

A pair of comments marks a table. Its first one names a report of ``bench/results/`` and a shape, or ``targets``,
``facts``, ``summary`` (a row for each shape of one target), ``curve`` or ``round-trips``; or it names a table of a
report that has its own (``bench/tables_report.py``). The report ``capacity`` is the model's:

    <!-- bench: peers 100x30 -->
    <!-- end -->
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.capacity import default_tables
from bench.curve import curve_table
from bench.distance import distance_table
from bench.figures import FIGURES
from bench.goal_table import goal_table
from bench.markdown import aligned
from bench.report import FOLDER, head
from bench.results import Record, summarize
from bench.shapes import SHAPES
from bench.table import figure_text, shape_table

_DOCS: Final = Path(__file__).parent.parent / "docs"
PAGES: Final = (_DOCS / "performance.md", _DOCS / "scaling.md")
_MARKED: Final = re.compile(r"(<!-- bench: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text()))


def filled(page: str) -> str:
    """Return the page with the tables of the reports."""
    return _MARKED.sub(_replaced, page)


def _replaced(found: re.Match[str]) -> str:
    begin, report, part, end = found.groups()
    return f"{begin}\n{_table(report, part)}\n\n{end}"


def _table(report: str, part: str) -> str:
    if report == "capacity":
        return default_tables()[part]
    saved: dict[str, Any] = json.loads((FOLDER / f"{report}.json").read_text())
    if part == "facts":
        return head(saved["facts"])
    if "tables" in saved:
        return aligned(saved["tables"][part]["rows"])
    if part == "curve":
        return curve_table(saved["records"])
    return _of_records(report, [Record(**record) for record in saved["records"]], part)


def _of_records(report: str, records: list[Record], part: str) -> str:
    if part in _OF_RECORDS:
        return _OF_RECORDS[part](records)
    summaries = summarize(records)
    by_target = {target: summary for (shape, target), summary in summaries.items() if shape == part}
    if not by_target:
        raise SystemExit(f"bench/results/{report}.json: no shape {part}; run make bench-reports")
    return shape_table(SHAPES[part], by_target, brief=True)


def _shapes(records: Sequence[Record]) -> str:
    """Return a table with a row for each shape."""
    rows = [["shape", "measured", "problems"]]
    for (shape, _), summary in summarize(records).items():
        figures = [name for name in SHAPES[shape].figures if name in summary.values]
        measured = ", ".join(f"{FIGURES[name].label} {figure_text(name, summary)}" for name in figures)
        rows.append([SHAPES[shape].title, measured, summary.problems])
    return aligned(rows)


_OF_RECORDS: Final[Mapping[str, Callable[[Sequence[Record]], str]]] = {
    "targets": partial(goal_table, by_round=False),
    "round-trips": distance_table,
    "summary": _shapes,
}


if __name__ == "__main__":
    main()
