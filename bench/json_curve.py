"""Measures the CPU of reading a JSON answer while it arrives, by its size: ``make bench-json``.

``workers/writing/structured_output.py`` receives a whole JSON text in small deltas and returns the validated value.
There are two kinds of text, because parsers differ in the parts that they read twice: many small records, and one
long string. Two other ways are measured beside it: jiter, which accepts incomplete JSON, parses the records from the
start at each delta; and one ``json.loads`` reads all of it. The same as a program: ``python -m bench.json_curve``.
Writes ``json.md``, ``json.svg`` and ``json.json`` to ``bench/results/``.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import jiter

from bench import machine, svg
from bench.markdown import NOTHING, aligned
from bench.report import FOLDER, head
from shared.garbage import settle_garbage_collector
from workers.providers.base import TextDelta
from workers.writing.structured_output import JsonAnswer

_KB: Final = 1000
_SIZES: Final = (62_500, 125_000, 250_000, 500_000, 1_000_000, 2_000_000)
_DELTAS: Final = (3, 24, 1000)
#: A way that took longer at one size is not run at a larger one; the table is blank there.
_LONGEST_S: Final = 1.0
_DEPTH: Final = 2  # the default of HEADRACE_JSON_DEPTH
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "note": {"type": "string"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "name": {"type": "string"},
                    "price": {"type": "number", "minimum": 0},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "in_stock": {"type": "boolean"},
                },
                "required": ["id", "name", "price", "tags"],
            },
        },
    },
}
Medians = dict[int, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One way of reading, at every size of text. ``delta``: characters at a time; None reads all at once."""

    way: str
    delta: int | None
    text: Callable[[int], str]
    read: Callable[[str, int], None]


def main() -> None:
    options = _arguments()
    settle_garbage_collector()  # as a worker does
    measured = _measure(options.rounds)
    facts = {**machine.facts(), "command": shlex.join(["python", "-m", "bench.json_curve", *sys.argv[1:]])}
    introduction = (
        f"CPU seconds by size of the JSON and characters in a delta, medians of {options.rounds} interleaved rounds. "
        f"Blank if a smaller size took more than {_LONGEST_S:g} s."
    )
    medians = [{size: median(seconds) for size, seconds in by_size.items()} for by_size in measured]
    table = _table(medians)
    written = [
        {"way": series.way, "delta": series.delta, "seconds_by_size": by_size}
        for series, by_size in zip(_SERIES, measured, strict=True)
    ]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "json.md").write_text(
        "\n\n".join(["# JSON answers", head(facts), introduction, table, "![CPU](json.svg)", ""])
    )
    (FOLDER / "json.json").write_text(json.dumps({"facts": facts, "series": written}, indent=1) + "\n")
    (FOLDER / "json.svg").write_text(_chart(medians))
    print(table)


def _measure(rounds: int) -> list[dict[int, list[float]]]:
    """Return the seconds of each round by size, for each series. The first round limits the sizes of a series."""
    measured: list[dict[int, list[float]]] = [{} for _ in _SERIES]
    for number in range(1, rounds + 1):
        for series, by_size in zip(_SERIES, measured, strict=True):
            for size in tuple(by_size) or _SIZES:
                seconds = _cpu_s(series, series.text(size))
                by_size.setdefault(size, []).append(seconds)
                if number == 1 and seconds > _LONGEST_S:
                    break
        print(f"round {number} of {rounds}", flush=True)
    return measured


def _cpu_s(series: Series, text: str) -> float:
    began = time.thread_time()
    series.read(text, series.delta or len(text))
    return time.thread_time() - began


def _in_deltas(text: str, delta: int) -> None:
    answer = JsonAnswer(_SCHEMA, depth=_DEPTH)
    reported = 0
    for at in range(0, len(text), delta):
        reported += len(answer.take([TextDelta(text[at : at + delta])]))
    whole = answer.finish().value
    assert reported == len(whole) + len(whole.get("items", ()))


def _from_the_start(text: str, delta: int) -> None:
    encoded = text.encode()
    value: Any = None
    for end in range(delta, len(encoded) + delta, delta):
        value = jiter.from_json(encoded[:end], partial_mode=True)
    assert isinstance(value, dict)


def _at_once(text: str, _: int) -> None:
    json.loads(text)


def _records(size: int) -> str:
    """Return records of about a hundred characters each."""
    items: list[dict[str, Any]] = []
    length = len('{"items": []}')
    while length < size:
        number = len(items)
        tags = [f"tag {number % 7}", 'a \u00e9 and a "quote"']
        items.append({"id": number, "name": f"item {number}", "price": number / 8, "tags": tags, "in_stock": True})
        length += len(json.dumps(items[-1])) + len(", ")
    return json.dumps({"items": items})


def _string(size: int) -> str:
    """Return one long string like prose, with some escaped characters."""
    line = 'All of it is one long text, as in an article, "quoted" here and there.\n\n'
    length = len(json.dumps(line)) - len('""')
    return json.dumps({"note": line * (size // length + 1)})


_SERIES: Final = (
    *(Series("records", delta, _records, _in_deltas) for delta in _DELTAS),
    *(Series("one string", delta, _string, _in_deltas) for delta in _DELTAS),
    *(Series("records, parsed anew", delta, _records, _from_the_start) for delta in _DELTAS),
    Series("records, json.loads", None, _records, _at_once),
)


def _table(medians: Sequence[Medians]) -> str:
    rows = [["", "delta", *(f"{size / _KB:,g} KB" for size in _SIZES)]]
    for series, by_size in zip(_SERIES, medians, strict=True):
        figures = (f"{by_size[size]:.3f}" if size in by_size else NOTHING for size in _SIZES)
        rows.append([series.way, f"{series.delta:,}" if series.delta else "all", *figures])
    return aligned(rows)


def _chart(medians: Sequence[Medians]) -> str:
    shown = {
        series.way: [(size / _KB, seconds) for size, seconds in by_size.items()]
        for series, by_size in zip(_SERIES, medians, strict=True)
        if series.delta in {_DELTAS[0], None}
    }
    return svg.lines(f"CPU of a JSON answer in deltas of {_DELTAS[0]} characters", "s", "KB", shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.json_curve", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
