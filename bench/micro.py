"""Measures CPU time per token of the hot functions, against a loop that never changes: ``python -m bench.micro``.

A ratio mostly cancels out the speed of the machine. The loop is measured before each case, many times in turn, and
the median of the ratios is compared with ``micro_expected.json``. The exit code is 1 if a function got worse by more
than a quarter; ``--write`` stores the measured ratios as the expectation. This is a guard for changes, not a test.
"""

import argparse
import gc
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

from bench.markdown import NOTHING, aligned
from bench.micro_cases import CASES, TOKENS, Case, Run

WORSE: Final = 1.25
EXPECTED: Final = Path(__file__).with_name("micro_expected.json")
_TURNS: Final = 400


async def reference() -> None:
    """Use bytes, a dictionary and small objects, as the hot functions do. A change here invalidates every ratio."""
    seen = {}
    for number in range(_TURNS):
        name = b"%d-%d" % (7, number)
        head, _, tail = name.partition(b"-")
        seen[name] = (head, int(tail), [number])


@dataclass(frozen=True, slots=True)
class Measured:
    """Result of one case. ``ratio``: a token against one turn of the reference loop."""

    ns_per_token: float
    ratio: float


async def measure(cases: Sequence[Case], rounds: int) -> dict[str, Measured]:
    """Return the medians of ``rounds`` interleaved repetitions, by name."""
    pairs: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    for number in range(-1, rounds):
        for case in cases:
            run = case.prepare()
            turn = await _cpu_ns(reference) / _TURNS
            token = await _cpu_ns(run) / TOKENS
            if number >= 0:  # the first round warms up
                pairs[case.name].append((token, turn))
    return {
        name: Measured(median(token for token, _ in taken), median(token / turn for token, turn in taken))
        for name, taken in pairs.items()
    }


async def _cpu_ns(run: Run) -> int:
    gc.collect(0)
    began = time.thread_time_ns()
    await run()
    return time.thread_time_ns() - began


def worse(measured: Mapping[str, Measured], expected: Mapping[str, float]) -> list[str]:
    """Return the names of cases that cost over a quarter more than expected."""
    return [name for name, m in measured.items() if name in expected and m.ratio > WORSE * expected[name]]


def _table(measured: Mapping[str, Measured], expected: Mapping[str, float]) -> str:
    rows = [["", "ns/token", "ratio", "expected", "change"]]
    for case in CASES:
        m, before = measured[case.name], expected.get(case.name)
        columns = [NOTHING, ""] if before is None else [f"{before:.2f}", f"{m.ratio / before - 1:+.0%}"]
        if case.name in worse(measured, expected):
            columns[1] += " WORSE"
        rows.append([case.title, f"{m.ns_per_token:,.0f}", f"{m.ratio:.2f}", *columns])
    return aligned(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--write", action="store_true", help=f"write the ratios to {EXPECTED.name}")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {"ratios": {}}
    gc.disable()
    measured = uvloop.run(measure(CASES, options.rounds))
    print(_table(measured, known["ratios"]))
    python = ".".join(platform.python_version_tuple()[:2])
    if options.write:
        ratios = {name: round(m.ratio, 3) for name, m in measured.items()}
        EXPECTED.write_text(json.dumps({"python": python, "ratios": ratios}, indent=1) + "\n")
        return
    if known.get("python", python) != python:
        print(f"\nthe expectation is of Python {known['python']}, this is {python}: compare with care")
    if worse(measured, known["ratios"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
