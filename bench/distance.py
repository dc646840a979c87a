"""Table of what a Redis costs that is far from gateways and workers: times in milliseconds and in round trips.

`make bench-reports` has the command that measures them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from bench.markdown import NOTHING, aligned
from bench.results import Record, Summary, summarize
from bench.targets.headrace_far import ROUND_TRIPS_MS

_NEAR: Final = "headrace"
#: Columns of times: title, shape and figure.
_TIMES: Final = (
    ("first token", "first-token", "ttft_p50_ms"),
    ("a token, 1 stream", "1x30", "latency_p50_ms"),
    ("a token, 100 streams", "100x30", "latency_p50_ms"),
)


def distance_table(records: Sequence[Record]) -> str:
    """Return a table with a row for each round trip. A time in round trips is what it is above that on loopback."""
    summaries = summarize(records)
    head = [
        "round trip ms",
        *(f"{title}, p50 ms" for title, _, _ in _TIMES),
        "100 x 30, of offered",
        "one answer, tokens/s",
    ]
    rows = [[f"{round_trip_ms:g}", *_cells(summaries, target, round_trip_ms)] for target, round_trip_ms in _targets()]
    return aligned([head, *rows])


def _targets() -> list[tuple[str, float]]:
    return [(_NEAR, 0.0), *ROUND_TRIPS_MS.items()]


def _cells(summaries: Mapping[tuple[str, str], Summary], target: str, round_trip_ms: float) -> list[str]:
    def value(shape: str, figure: str, of: str = target) -> float | None:
        summary = summaries.get((shape, of))
        return summary.values.get(figure) if summary is not None else None

    cells = []
    for _, shape, figure in _TIMES:
        taken, near = value(shape, figure), value(shape, figure, _NEAR)
        if taken is None:
            cells.append(NOTHING)
        elif not round_trip_ms or near is None:
            cells.append(f"{taken:.1f}")
        else:
            cells.append(f"{taken:.1f} = {near:.1f} + {(taken - near) / round_trip_ms:.2f} round trips")
    share, speed = value("100x30", "share"), value("answer-100k", "tokens_per_s")
    return [*cells, NOTHING if share is None else f"{share:.3f}", NOTHING if speed is None else f"{speed:,.0f}"]
