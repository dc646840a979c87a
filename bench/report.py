"""Report of a run in ``bench/results/``: Markdown, an SVG chart, and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import machine, svg
from bench.goal_table import goal_table
from bench.markdown import aligned
from bench.results import Record, Summary, summarize
from bench.shapes import SHAPES
from bench.table import shape_table
from bench.targets.registry import display_name

FOLDER = Path(__file__).parent / "results"


def write(name: str, records: Sequence[Record], command: str, seconds: float, *, with_goals: bool = False) -> Path:
    """Write the three files and return the path of the Markdown. ``with_goals``: begin with the table of targets."""
    peers = {record.target for record in records}
    facts = {**machine.facts(peers), "command": command, "an answer lasts": f"{seconds:g} s"}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(
        json.dumps({"facts": facts, "records": [asdict(record) for record in records]}, indent=1) + "\n"
    )
    (FOLDER / f"{name}.svg").write_text(_chart(summarize(records)))
    path = FOLDER / f"{name}.md"
    first = ["# Targets", goal_table(records), head(facts)] if with_goals else ["# Bench", head(facts)]
    path.write_text("\n\n".join([*first, *tables(records), f"![CPU per token]({name}.svg)", ""]))
    return path


def head(facts: Mapping[str, str]) -> str:
    return aligned([["", ""], *([key, value] for key, value in facts.items())])


def tables(records: Sequence[Record]) -> list[str]:
    """Return a heading and a table for each shape."""
    summaries = summarize(records)
    shapes = dict.fromkeys(shape for shape, _ in summaries)
    parts = []
    for name in shapes:
        by_target = {target: summary for (shape, target), summary in summaries.items() if shape == name}
        rounds = max(summary.rounds for summary in by_target.values())
        parts.append(f"## {SHAPES[name].title}\n\n`{name}`, medians of {rounds} rounds")
        parts.append(shape_table(SHAPES[name], by_target))
    return parts


def _chart(summaries: Mapping[tuple[str, str], Summary]) -> str:
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for (shape, target), summary in summaries.items():
        parts = {k.rpartition(".")[2]: v for k, v in summary.values.items() if k.startswith("cpu_token_us.")}
        # A single stream pays for a whole tick with each token; its bar would dwarf all others.
        if parts and shape != "1x50":
            groups.setdefault(shape, {})[display_name(target)] = parts
    return svg.bars("CPU time per token, by process", "µs", groups)
