"""Measures two curves of Headrace: CPU and latency by the worker's tick, and CPU by the number of streams.

    python -m bench.curve --ticks 0,0.002,0.005,0.01,0.02 --streams 100,500,1000,5000 --tokens-per-s 3000

The total rate is the same at every point. Writes ``curve.md``, ``curve-flat.svg``, ``curve-trade.svg`` and
``curve.json`` to ``bench/results/``.
"""

import argparse
import asyncio
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench import machine, svg
from bench.attempt import attempt
from bench.children import ProviderProcess
from bench.load import Load
from bench.markdown import aligned
from bench.report import FOLDER, head
from bench.results import Record, Summary, summarize
from bench.targets.headrace import Headrace

_SETTING: Final = "HEADRACE_MAX_TICK_S"
_OPENED_PER_S: Final = 100


def main() -> None:
    options = _arguments()
    points = [(tick, streams) for tick in _numbers(options.ticks) for streams in map(int, _numbers(options.streams))]
    extra = dict(pair.split("=", 1) for pair in options.set)
    records = asyncio.run(_run(points, options.tokens_per_s, options.rounds, options.seconds, extra))
    summaries = summarize(records)
    measured = [
        {"tick": r.shape, "streams": r.target, "round": r.round, "values": r.values, "error": r.error}
        for r in records
    ]
    table = curve_table(measured)
    facts = {**machine.facts(), "command": shlex.join(["python", "-m", "bench.curve", *sys.argv[1:]])}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{options.name}.md").write_text("\n\n".join(["# Curves", head(facts), table, ""]))
    (FOLDER / f"{options.name}.json").write_text(json.dumps({"facts": facts, "records": measured}, indent=1) + "\n")
    for part, chart in _charts(points, summaries, f"at {options.tokens_per_s:g} tokens/s in all").items():
        (FOLDER / f"{options.name}-{part}.svg").write_text(chart)
    print(table)


async def _run(
    points: Sequence[tuple[float, int]], tokens_per_s: float, rounds: int, seconds: float, extra: dict[str, str]
) -> list[Record]:
    """Measure all points. ``shape`` of a record is the tick, ``target`` the number of streams."""
    records = []
    provider = ProviderProcess()
    await provider.start()
    try:
        for number in range(1, rounds + 1):
            for tick, streams in points:
                over_s = max(1.0, streams / _OPENED_PER_S)
                load = Load(streams, tokens_per_s / streams, over_s)
                target = Headrace({**extra, _SETTING: f"{tick}"})
                blank = Record(f"{tick}", f"{streams}", number)
                record = await attempt(blank, target, provider, seconds + over_s, load.measure)
                records.append(record)
                print(f"round {number} tick {tick * 1000:g} ms, {streams} streams: {_summary(record)}", flush=True)
    finally:
        await provider.stop()
    return records


def _summary(record: Record) -> str:
    values = record.values
    return (
        record.error or f"{values.get('cpu_token_us', 0):.1f} µs/token, p50 {values.get('latency_p50_ms', 0):.2f} ms"
    )


def _charts(
    points: Sequence[tuple[float, int]], summaries: dict[tuple[str, str], Summary], rate: str
) -> dict[str, str]:
    """Return two charts by name: CPU by streams, a line for each tick; and CPU by latency, a line for each number of
    streams."""
    by_tick: dict[str, list[tuple[float, float]]] = {}
    by_streams: dict[str, list[tuple[float, float]]] = {}
    for tick, streams in points:
        values = summaries[f"{tick}", f"{streams}"].values
        if "cpu_token_us" in values:
            cpu, latency = values["cpu_token_us"], values["latency_p50_ms"]
            by_tick.setdefault(f"tick {tick * 1000:g} ms", []).append((streams, cpu))
            by_streams.setdefault(f"{streams} streams", []).append((latency, cpu))
    trade = "token latency p50, ms; along a line the tick grows"
    return {
        "flat": svg.lines(f"CPU per token by streams, {rate}", "µs", "streams", by_tick),
        "trade": svg.lines(f"CPU per token against latency, {rate}", "µs", trade, by_streams),
    }


def curve_table(measured: Sequence[Mapping[str, Any]]) -> str:
    """Return a table with a row for each point, from the records of a report."""
    summaries = summarize(
        [Record(r["tick"], r["streams"], r["round"], r["values"], r.get("error")) for r in measured]
    )
    rows = [
        [
            "tick ms",
            "streams",
            "CPU µs/token",
            "gateway",
            "worker",
            "redis",
            "latency p50 ms",
            "p99 ms",
            "held",
            "problems",
        ]
    ]
    for (tick, streams), summary in summaries.items():
        values = summary.values
        names = ["cpu_token_us", *(f"cpu_token_us.{role}" for role in ("gateway", "worker", "redis"))]
        figures = [f"{values.get(name, 0):.1f}" for name in (*names, "latency_p50_ms", "latency_p99_ms")]
        rows.append([f"{float(tick) * 1000:g}", streams, *figures, f"{values.get('share', 0):.2f}", summary.problems])
    return aligned(rows)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.curve", description=__doc__.partition("\n")[0])
    parser.add_argument("--ticks", default="0,0.002,0.005,0.01", help="seconds")
    parser.add_argument("--streams", default="100,200,500,1000,2000,5000")
    parser.add_argument("--tokens-per-s", type=float, default=3000, help="rate of all streams together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="time measured at each point")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="environment variable for Headrace"
    )
    parser.add_argument("--name", default="curve", help="base name of the files in bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
