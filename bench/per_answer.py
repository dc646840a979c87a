"""Compares what answers and idleness cost in several source trees: ``python -m bench.per_answer . ../before``.

All trees run at once, each with its own Redis, gateway and worker, and are idle while another one is measured. Loads
are interleaved: A, B, B, A. An answer has one token, so the figures are the CPU of an answer beside its tokens.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.children import ProviderProcess
from bench.idle_system import SETTLE_S, Cost, answer_cost, idle_cost
from bench.load import Load
from bench.markdown import aligned
from bench.stage import Stage
from bench.targets.headrace import Headrace


def main() -> None:
    options = _arguments()
    idle, answers = asyncio.run(_run(options))
    print("\nIdle, CPU ms/s\n")
    print(aligned(_rows(options.trees, idle)))
    if any(answers):
        print(f"\nAnswers of one token, {options.per_s:g} a second, CPU ms each, idleness subtracted\n")
        print(aligned(_rows(options.trees, answers)))


async def _run(options: argparse.Namespace) -> tuple[list[list[Cost]], list[list[Cost]]]:
    """Return what each tree costs, round by round."""
    provider = ProviderProcess()
    idle: list[list[Cost]] = [[] for _ in options.trees]
    answers: list[list[Cost]] = [[] for _ in options.trees]
    async with AsyncExitStack() as stack:
        await provider.start()
        stack.push_async_callback(provider.stop)
        stages = []
        for tree in options.trees:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-"))
            target = Headrace({"PYTHONPATH": str(Path(tree).resolve()), "PYTHONSAFEPATH": "1"})
            stack.push_async_callback(target.stop)
            await target.start(provider.url, Path(folder))
            stages.append(Stage(target, provider, 1))
        for stage in stages:
            await stage.warm_up()
        await asyncio.sleep(SETTLE_S)
        measured = await asyncio.gather(*(idle_cost(stage, options.idle_s) for stage in stages))
        for costs, cost in zip(idle, measured, strict=True):
            costs.append(cost)
        load = Load(options.answers, None, options.answers / options.per_s, tokens=1)
        for number in range(options.rounds):
            order = range(len(stages)) if number % 2 == 0 else reversed(range(len(stages)))
            for at in order:
                answers[at].append(await _answer(stages[at], load, idle[at][0]))
    return idle, answers


async def _answer(stage: Stage, load: Load, idle: Cost) -> Cost:
    costs, values = await answer_cost(stage, load, idle)
    return {**costs, "first token p50 ms": values["ttft_p50_ms"], "p99": values["ttft_p99_ms"]}


def _rows(trees: Sequence[str], costs: Sequence[Sequence[Cost]]) -> list[list[str]]:
    roles = list(costs[0][0])
    times = [role for role in roles if role.startswith(("first", "p99"))]
    processes = [role for role in roles if role not in times]
    rows = [["tree", "all", *processes, *times, "all, by round"]]
    for tree, rounds in zip(trees, costs, strict=True):
        sums = [sum(cost[role] for role in processes) for cost in rounds]
        medians = [statistics.median(cost[role] for cost in rounds) for role in (*processes, *times)]
        by_round = " ".join(f"{each:.2f}" for each in sums)
        rows.append([tree, f"{statistics.median(sums):.2f}", *(f"{each:.2f}" for each in medians), by_round])
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.per_answer", description=__doc__.partition(":")[0])
    parser.add_argument("trees", nargs="+", help="folders with the source of Headrace")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--answers", type=int, default=300, help="answers in a round")
    parser.add_argument("--per-s", type=float, default=50, help="answers a second")
    parser.add_argument("--idle-s", type=float, default=60, help="time for which the idle systems are measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
