"""Targets of performance: each is a figure of one shape, measured beside what it is compared with.

``python -m bench --goals`` measures all of them in one run, see ``bench/goal_table.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """Target for a figure of ``target`` under a shape. ``limit``: the largest allowed value, or the smallest if
    ``at_least``. ``beside``: the target that the value is divided by, or subtracted if ``added``. ``per``: the unit
    of the value, as a number."""

    title: str
    wanted: str
    shape: str
    figure: str
    limit: float
    target: str = "headrace"
    beside: str | None = None
    added: bool = False
    at_least: bool = False
    unit: str = ""
    per: float = 1

    def meets(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


_RESUMABLE: Final = "resumable_stream"
_UP: Final = "headrace_up"


def _cpu(title: str, shape: str, limit: float) -> Goal:
    wanted = f"≤ {limit} of resumable-stream's"
    return Goal(title, wanted, shape, "cpu_token_us", limit, beside=_RESUMABLE, unit="µs")


GOALS: Final = (
    _cpu("CPU per token, 100 x 30", "100x30", 0.95),
    _cpu("CPU per token, 500 x 20", "500x20", 0.75),
    _cpu("CPU per token, 1,000 x 10", "1000x10", 0.75),
    _cpu("CPU per token, unpaced x 20, 64 tokens in a write", "torrent", 0.35),
    _cpu("CPU per token, unpaced x 20, a write for each token", "unpaced", 1.1),
    _cpu("CPU per token, 20 x 500, each token alone in a read", "20x500", 1.1),
    Goal(
        "first token, one stream, added to direct",
        "≤ 3 ms",
        "first-token",
        "ttft_p50_ms",
        3,
        beside="direct",
        added=True,
        unit="ms",
    ),
    Goal(
        "first token of 1,000 streams within 10 s, defaults, p50",
        "≤ 100 ms",
        "arrivals-1000",
        "ttft_p50_ms",
        100,
        _UP,
        unit="ms",
    ),
    Goal("the same, p99", "≤ 500 ms", "arrivals-1000", "ttft_p99_ms", 500, _UP, unit="ms"),
    Goal(
        "first token of 1,000 streams within 0.5 s, defaults, p50",
        "≤ resumable-stream's",
        "burst-1000",
        "ttft_p50_ms",
        1,
        _UP,
        beside=_RESUMABLE,
        unit="ms",
    ),
    Goal(
        "the same, p99",
        "≤ resumable-stream's",
        "burst-1000",
        "ttft_p99_ms",
        1,
        _UP,
        beside=_RESUMABLE,
        unit="ms",
    ),
    Goal("rate held, 1,000 x 10, defaults", "≥ 98 %", "1000x10", "share", 98, _UP, at_least=True, unit="%", per=0.01),
    Goal("ended answer of 500 tokens, after a minute", "≤ 6 KiB", "kept", "kept_bytes", 6, unit="KiB", per=_KIB),
    Goal("CPU of an idle system", "≤ 4 ms/s", "nothing", "idle_cpu_ms", 4, unit="ms/s"),
    Goal("event to one of 1,000 viewers", "≤ 10 µs", "viewers", "cpu_delivery_us", 10, unit="µs"),
    Goal("CPU of an answer beside its tokens", "≤ 3 ms", "answers", "answer_cpu_ms", 3, unit="ms"),
)
#: Shapes that hardly vary and take a minute: one round is enough.
ONCE: Final = frozenset({"kept"})


def plan() -> dict[str, Sequence[str]]:
    """Return the shapes of the targets, each with the systems that are measured in turn."""
    shapes: dict[str, dict[str, None]] = {}
    for goal in GOALS:
        systems = shapes.setdefault(goal.shape, {})
        systems[goal.target] = None
        if goal.beside is not None:
            systems[goal.beside] = None
    return {shape: tuple(systems) for shape, systems in shapes.items()}
