"""Headrace beside others, everything on loopback.

    python -m bench --shapes 100x30,unpaced --targets headrace,direct --rounds 5

Rounds are interleaved: A, B, C, A, B, C, each target freshly started and warmed up. A target that fails says so in
the table, and the run goes on. Figures are medians; ``bench/results/`` has all of it.
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from bench import report
from bench.attempt import attempt
from bench.children import ProviderProcess
from bench.figures import FIGURES
from bench.results import Record, summarize
from bench.shapes import SHAPES, Shape
from bench.table import shape_table
from bench.targets import registry


def main() -> None:
    asked = _arguments()
    settings = dict(pair.split("=", 1) for pair in asked.set)
    present = []
    for name in asked.targets:
        if registry.make(name, settings) is None:
            print(f"{name}: not installed")
        else:
            present.append(name)
    if not present:
        sys.exit("nothing to measure")
    asyncio.run(_run(asked, present, settings))


async def _run(asked: argparse.Namespace, targets: Sequence[str], settings: Mapping[str, str]) -> None:
    """What is measured is saved after each shape: a run takes long, and may be broken off."""
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    records: list[Record] = []
    provider = ProviderProcess()
    await provider.start()
    try:
        for name in asked.shapes:
            shape = SHAPES[name]
            print(f"\n{shape.name}: {shape.title}", flush=True)
            mine = await _rounds(shape, targets, asked.rounds, provider, asked.seconds, settings)
            print(shape_table(shape, {target: s for (_, target), s in summarize(mine).items()}), flush=True)
            records += mine
            path = report.write(asked.name, records, command, asked.seconds)
    finally:
        await provider.stop()
    print("\n\n".join(["", *report.tables(records)]))
    print(f"\nbench/results/{path.name}")


async def _rounds(
    shape: Shape,
    targets: Sequence[str],
    rounds: int,
    provider: ProviderProcess,
    seconds: float,
    settings: Mapping[str, str],
) -> list[Record]:
    """What failed once is not tried again: a target that cannot hold a shape takes the longest to show it."""
    records: list[Record] = []
    for number in range(1, rounds + 1):
        broken = {record.target for record in records if record.error is not None}
        for name in targets:
            target = registry.make(name, settings)
            if target is not None and name not in broken:
                record = await attempt(Record(shape.name, name, number), target, provider, seconds, shape.measure)
                records.append(record)
                print(f"  round {number} {name}: {_told(shape, record)}", flush=True)
    return records


def _told(shape: Shape, record: Record) -> str:
    if record.error is not None:
        return record.error
    known = (name for name in shape.figures if name in record.values)
    return ", ".join(f"{FIGURES[name].label} {record.values[name]:.4g}" for name in islice(known, 2)) or "ok"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", type=_known(SHAPES), default=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--targets", type=_known(registry.NAMES), default=list(registry.NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="how long a paced answer lasts")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="environment for Headrace")
    parser.add_argument("--name", default="latest", help="of the files in bench/results")
    return parser.parse_args()


def _known(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"no such {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    main()
