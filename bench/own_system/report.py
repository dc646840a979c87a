"""Counts of a load test, its progress and its report."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.own_system.answer import Answer
from bench.tally import percentile


class Report:
    """All answers of a run. ``live``: requests in progress."""

    def __init__(self) -> None:
        self.live = 0
        self._answers: list[Answer] = []
        self._shown = 0
        self._began = time.monotonic()
        self._most_live = 0

    def begin(self) -> None:
        self.live += 1
        self._most_live = max(self._most_live, self.live)

    def end(self, answer: Answer) -> None:
        self.live -= 1
        answer.text = ""  # it was compared, and thousands of them would fill the memory
        self._answers.append(answer)

    @property
    def is_sound(self) -> bool:
        """True if no answer failed, lost an event, had one twice or was altered."""
        return not any(each.error or each.lost or each.twice or each.altered for each in self._answers)

    def progress(self) -> str:
        """Return a line about the answers since the last one."""
        new, self._shown = self._answers[self._shown :], len(self._answers)
        failed = sum(bool(each.error) for each in new)
        first = _quantiles([each.first_s for each in new if each.first_s is not None])
        slow = f", first token p95 {first['p95_ms']:.0f} ms" if first else ""
        return f"{time.monotonic() - self._began:5.0f} s: {self.live} live, {len(new)} ended, {failed} failed{slow}"

    def figures(self) -> dict[str, Any]:
        """Return the report as values for JSON."""
        ended, seconds = self._answers, time.monotonic() - self._began
        tokens = sum(each.tokens for each in ended)
        return {
            "requests": len(ended),
            "complete": sum(not each.error for each in ended),
            "errors": dict(Counter(each.error for each in ended if each.error).most_common()),
            "most_live": self._most_live,
            "seconds": round(seconds, 1),
            "tokens": tokens,
            "tokens_per_s": round(tokens / max(seconds, 0.001), 1),
            "first_token": _quantiles([each.first_s for each in ended if each.first_s is not None]),
            "between_events": _quantiles([gap for each in ended for gap in each.gaps_s]),
            "whole_answer": _quantiles([each.whole_s for each in ended if each.whole_s]),
            "resumed_connections": sum(each.resumes for each in ended),
            "resets": sum(each.resets for each in ended),
            "lost_events": sum(each.lost for each in ended),
            "events_twice": sum(each.twice for each in ended),
            "altered_answers": sum(each.altered for each in ended),
        }

    def text(self) -> str:
        figures = self.figures()
        lines = [
            f"{figures['requests']} requests in {figures['seconds']} s, at most {figures['most_live']} at once; "
            f"{figures['complete']} complete, {figures['tokens']} tokens, {figures['tokens_per_s']} a second",
            *(f"  {n} x {code}" for code, n in figures["errors"].items()),
            "",
            f"{'':24}{'median':>10}{'95 %':>10}{'99 %':>10}{'worst':>10}",
        ]
        for name in ("first_token", "between_events", "whole_answer"):
            if found := figures[name]:
                lines.append(f"{name.replace('_', ' '):24}" + "".join(f"{ms:>7.0f} ms" for ms in found.values()))
        integrity = ("resumed_connections", "resets", "lost_events", "events_twice", "altered_answers")
        lines += ["", *(f"{name.replace('_', ' '):24}{figures[name]:>10}" for name in integrity)]
        return "\n".join(lines)

    def json(self) -> str:
        return json.dumps(self.figures(), indent=2)


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    if not ordered:
        return {}
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "worst_ms": 1.0}
    return {name: round(percentile(ordered, share) * 1000, 1) for name, share in shares.items()}
