"""Capacity model and its simulation, as Markdown: ``python -m bench.capacity``.

Constants are in ``capacity.json``. Nothing is run; docs/scaling.md has the result.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bench.capacity_constants import Constants, load
from bench.capacity_limits import broken_from, clusters, limits, share_of, to_clients_gbit_s
from bench.capacity_model import Demand, Plan, hit, plan, redis_memory_gib
from bench.capacity_simulation import simulate
from bench.markdown import NOTHING, aligned

_RETENTIONS: Final = {"10 min": 600, "1 h": 3600, "24 h (the default)": 86_400}
_STREAMS: Final = (1_000, 10_000, 100_000, 1_000_000)
_FEW_STREAMS: Final = (100, 1_000, 10_000)
_TOKENS_PER_S: Final = 30.0
_ANSWER_TOKENS: Final = 500.0
_KEPT_S: Final = 600.0
Sized = tuple[Demand, Plan]


def main() -> None:
    options = _arguments()
    c = load()
    hub_s = c.gathered_s.gateway if options.hub_tick_s is None else options.hub_tick_s
    c = replace(c, gathered_s=replace(c.gathered_s, gateway=hub_s))
    c = replace(c, desk=replace(c.desk, holds_per_s=3 / options.lease_s))
    sized: list[Sized] = []
    for streams in options.streams:
        demand = Demand(streams, options.tokens_per_s, options.duty, options.answer_tokens, options.retention_s)
        sized.append((demand, plan(c, demand)))
    assumptions = (
        f"{options.tokens_per_s:g} tokens/s a stream, {options.duty:.0%} of the streams generating, "
        f"{options.answer_tokens:g} tokens an answer, answers kept for {options.retention_s:g} s, "
        f"planned to {c.limits.utilisation:.0%} of each core."
    )
    parts = {
        "Processes": f"{assumptions}\n\n{_processes(c, sized)}",
        "Limits of one cluster: share used, bold where broken": _limits(c, sized),
        "Redis memory, GiB, by retention": _retentions(c, sized),
        f"Simulation, seed {options.seed}": _simulation(c, sized, options.seed),
    }
    print("\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items()))


def default_tables() -> dict[str, str]:
    """Return the tables that docs/scaling.md and docs/performance.md show, for 30 tokens/s and answers of 500."""
    c = load()
    demands = [Demand(streams, _TOKENS_PER_S, 1, _ANSWER_TOKENS, _KEPT_S) for streams in _STREAMS]
    sized = [(demand, plan(c, demand)) for demand in demands]
    few = [replace(sized[0][0], streams=streams) for streams in _FEW_STREAMS]
    return {
        "processes": _processes(c, sized),
        "limits": _limits(c, sized),
        "simulation": _simulation(c, sized, seed=1),
        "retention": _retentions(c, [(demand, plan(c, demand)) for demand in few]),
    }


def _processes(c: Constants, sized: Sequence[Sized]) -> str:
    rows = [["streams", "tokens/s", "requests/s", "clusters", "in each: gateways", "workers", "masters (for memory)"]]
    rows[0] += ["the desk, of a core", "nearest limit", "cores in use, in all", "µs/token", "to clients"]
    for demand, _ in sized:
        count = clusters(c, demand)
        part = share_of(demand, count)
        p = plan(c, part)
        nearest = max(limits(c, part, p), key=lambda limit: limit.share)
        rows.append(
            [
                f"{demand.streams:,}",
                f"{demand.tokens:,.0f}",
                f"{demand.requests:,.0f}",
                f"{count}",
                f"{p.gateways:,}",
                f"{p.workers:,}",
                f"{p.masters:,} ({p.masters_for_memory:,})",
                f"{p.desk_cores:.0%}",
                f"{nearest.name}, {nearest.share:.0%}",
                f"{p.cores_in_use * count:,.1f}",
                f"{p.cores_in_use / part.tokens * 1e6:,.0f}",
                f"{to_clients_gbit_s(c, demand):,.2f} Gbit/s",
            ]
        )
    return aligned(rows)


def _limits(c: Constants, sized: Sequence[Sized]) -> str:
    found = [limits(c, demand, p) for demand, p in sized]
    rows = [["", *(f"{demand.streams:,}" for demand, _ in sized), "reached at streams"]]
    for index, same in enumerate(zip(*found, strict=True)):
        at = broken_from(c, sized[0][0], index)
        reached = "beyond 10 million" if at is None else f"{float(f'{at:.2g}'):,.0f}"
        rows.append([same[0].name, *(_share(limit.share) for limit in same), reached])
    return aligned(rows)


def _share(share: float) -> str:
    if share == 0:
        return NOTHING
    return f"**{share:.1f}**" if share > 1 else f"{share:.2f}"


def _retentions(c: Constants, sized: Sequence[Sized]) -> str:
    rows = [["", *(f"{demand.streams:,}" for demand, _ in sized)]]
    for name, retention_s in _RETENTIONS.items():
        gib_by_demand = (redis_memory_gib(c, replace(demand, retention_s=retention_s)) for demand, _ in sized)
        rows.append([name, *(f"{gib:,.1f}" for gib in gib_by_demand)])
    return aligned(rows)


def _simulation(c: Constants, sized: Sequence[Sized], seed: int) -> str:
    """Return the hottest processes of a simulation of one cluster, and its numbers beside the model's."""
    rows = [["streams of a cluster", "masters", "hottest master", "its core, busy", "hottest gateway"]]
    rows[0] += ["its core, busy", "hottest worker", "masters read at once (model)"]
    for whole, _ in sized:
        demand = share_of(whole, clusters(c, whole))
        p = plan(c, demand)
        got = simulate(c, demand, p, seed=seed)
        together = demand.tokens / p.gateways * c.gathered_s.gateway
        rows.append(
            [
                f"{demand.streams:,}",
                f"{got.masters} of {p.masters}",
                f"{got.master:.2f} x mean",
                f"{got.master * p.cores.redis / got.masters:.0%}",
                f"{got.gateway:.2f} x",
                f"{got.gateway * p.cores.gateway / p.gateways:.0%}",
                f"{got.worker:.2f} x, {got.worker * p.cores.worker / p.workers:.0%}",
                f"{got.masters_at_once:.1f} ({hit(got.masters, together):.1f})",
            ]
        )
    return aligned(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=_numbers, default=list(_STREAMS))
    parser.add_argument("--tokens-per-s", type=float, default=_TOKENS_PER_S, help="rate of a stream that generates")
    parser.add_argument("--duty", type=float, default=1, help="share of the streams that generate")
    parser.add_argument("--answer-tokens", type=float, default=_ANSWER_TOKENS, help="mean length of an answer")
    parser.add_argument("--retention-s", type=float, default=_KEPT_S, help="time for which an ended answer is kept")
    parser.add_argument("--lease-s", type=float, default=10, help="HEADRACE_LEASE_S")
    parser.add_argument("--hub-tick-s", type=float, help="tick of the hub, which has none")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


if __name__ == "__main__":
    main()
