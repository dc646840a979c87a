"""Counts of a load client, over all its streams. Times are microseconds of CLOCK_MONOTONIC, like the stamps."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

STEP_US = 50_000


@dataclass(slots=True)
class Tally:
    """Counts and times. ``timeline``: tokens received in each step of ``STEP_US``."""

    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    gaps: int = 0
    duplicates: int = 0
    received_bytes: int = 0
    latency_us: "array[int]" = field(default_factory=lambda: array("q"))
    first_token_us: "array[int]" = field(default_factory=lambda: array("q"))
    timeline: Counter[int] = field(default_factory=Counter)
    first_us: int = 0
    last_us: int = 0

    def take(self, now_us: int, stamps: Sequence[tuple[bytes, bytes]], expected: int) -> int:
        """Count ``stamps`` (seq, sent) of one stream that were received together. Return the next seq to expect."""
        count = len(stamps)
        self.latency_us.extend([now_us - int(sent) for _, sent in stamps])
        self.timeline[now_us // STEP_US] += count
        self.tokens += count
        self.last_us = now_us
        if not self.first_us:
            self.first_us = now_us
        seqs = [int(seq) for seq, _ in stamps]
        if seqs == list(range(expected, expected + count)):
            return expected + count
        for seq in seqs:
            self.gaps += max(0, seq - expected)
            self.duplicates += seq < expected
            expected = max(expected, seq + 1)
        return expected

    def result(self) -> dict[str, Any]:
        """Return the counts in the form that the client prints as JSON."""
        return {
            "ok": self.ok,
            "failures": dict(self.failures),
            "tokens": self.tokens,
            "gaps": self.gaps,
            "duplicates": self.duplicates,
            "bytes": self.received_bytes,
            "ttft_ms": [us / 1000 for us in sorted(self.first_token_us)],
            "latency_ms": percentiles(self.latency_us),
            "first_us": self.first_us,
            "last_us": self.last_us,
            "timeline": sorted(self.timeline.items()),
        }


def percentiles(values_us: Sequence[int]) -> dict[str, float]:
    """Return percentiles in milliseconds; empty without values."""
    ordered = sorted(values_us)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: percentile(ordered, share) / 1000 for name, share in shares.items()}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the percentile of at least one value, in order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
