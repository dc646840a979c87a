"""Benchmarks Headrace beside others, everything on loopback.

    python -m bench --shapes 100x30,unpaced --targets headrace,direct --rounds 5
    python -m bench --goals --rounds 5

Rounds are interleaved: A, B, C, C, B, A, each target freshly started and warmed up. If a target fails, the table has
the error, and the run goes on. Figures are medians; ``bench/results/`` has every round. ``--goals`` measures the
targets of ``bench/goals.py``, and writes their table to ``bench/results/targets.md``.

With ``--url`` it is a load test of a running system instead: ``bench/own_system``.
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from bench import goals, report
from bench.attempt import attempt
from bench.children import ProviderProcess
from bench.figures import FIGURES
from bench.goal_table import goal_table
from bench.own_system import command as own_system
from bench.results import Record, summarize
from bench.shapes import SHAPES, Shape
from bench.table import shape_table
from bench.targets import registry


def main() -> None:
    if any(each == "--url" or each.startswith("--url=") for each in sys.argv[1:]):
        sys.exit(own_system.main(sys.argv[1:]))
    options = _arguments()
    settings = dict(pair.split("=", 1) for pair in options.set)
    wanted = goals.plan() if options.goals else dict.fromkeys(options.shapes, options.targets)
    missing = [name for name in {n for names in wanted.values() for n in names} if not registry.make(name, settings)]
    for name in missing:
        print(f"{name}: not installed; run make bench-peers")
    plan = {shape: [name for name in names if name not in missing] for shape, names in wanted.items()}
    if not any(plan.values()):
        sys.exit("--targets: none of them is installed; run make bench-peers")
    asyncio.run(_run(options, plan, settings))


async def _run(options: argparse.Namespace, plan: Mapping[str, Sequence[str]], settings: Mapping[str, str]) -> None:
    """Save the results after each shape: a run takes long, and may be interrupted."""
    command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
    records: list[Record] = []
    name = options.name or ("targets" if options.goals else "latest")
    provider = ProviderProcess()
    await provider.start()
    try:
        for shape, targets in ((SHAPES[shape], targets) for shape, targets in plan.items()):
            print(f"\n{shape.name}: {shape.title}", flush=True)
            rounds = 1 if options.goals and shape.name in goals.ONCE else options.rounds
            shape_records = await _rounds(shape, targets, rounds, provider, options.seconds, settings)
            print(shape_table(shape, {target: s for (_, target), s in summarize(shape_records).items()}), flush=True)
            records += shape_records
            path = report.write(name, records, command, options.seconds, with_goals=options.goals)
    finally:
        await provider.stop()
    print("\n\n".join(["", goal_table(records) if options.goals else "", *report.tables(records)]))
    print(f"\nbench/results/{path.name}")


async def _rounds(
    shape: Shape,
    targets: Sequence[str],
    rounds: int,
    provider: ProviderProcess,
    seconds: float,
    settings: Mapping[str, str],
) -> list[Record]:
    """Skip a target that has failed once: one that cannot hold a shape takes the longest to fail."""
    records: list[Record] = []
    for number in range(1, rounds + 1):
        broken = {record.target for record in records if record.error is not None}
        for name in targets if number % 2 else reversed(targets):
            target = registry.make(name, settings)
            if target is not None and name not in broken:
                record = await attempt(Record(shape.name, name, number), target, provider, seconds, shape.measure)
                records.append(record)
                print(f"  round {number} {name}: {_summary(shape, record)}", flush=True)
    return records


def _summary(shape: Shape, record: Record) -> str:
    if record.error is not None:
        return record.error
    known = (name for name in shape.figures if name in record.values)
    return ", ".join(f"{FIGURES[name].label} {record.values[name]:.4g}" for name in islice(known, 2)) or "ok"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", type=_known(SHAPES), default=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--targets", type=_known(registry.NAMES), default=list(registry.USUAL))
    parser.add_argument("--goals", action="store_true", help="the targets of bench/goals.py; not --shapes, --targets")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="duration of a paced answer")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="environment variable for Headrace"
    )
    parser.add_argument("--name", help="base name of the files in bench/results")
    return parser.parse_args()


def _known(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; available: {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    main()
