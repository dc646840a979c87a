"""Measured values, round by round, and their medians."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.stage import Values

#: Other programs may use this much of the machine without a remark.
_IGNORED_CORES = 0.15
_FAILED = "failed: "
_WRONG = {"gaps": "tokens missing", "duplicates": "tokens twice"}


@dataclass(frozen=True, slots=True)
class Record:
    """Result of one target under one shape in one round. ``error``: the reason if there are no values, or None."""

    shape: str
    target: str
    round: int
    values: Values = field(default_factory=dict)
    error: str | None = None

    def with_values(self, values: Values) -> "Record":
        return replace(self, values=values)

    def failed(self, why: str) -> "Record":
        return replace(self, error=why)


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the successful rounds."""

    values: Values
    rounds: int
    errors: tuple[str, ...]

    @property
    def problems(self) -> str:
        """Failed streams, missing or duplicate tokens, failed rounds, and other load on the machine, as text."""
        found = [f"{self.values[name]:g} {label}" for name, label in _WRONG.items() if self.values[name]]
        failures = {k.removeprefix(_FAILED): count for k, count in self.values.items() if k.startswith(_FAILED)}
        found += [f"{count:g} streams {why}" for why, count in failures.items()]
        others = self.values.get("others_cores", 0)
        if others > _IGNORED_CORES:
            found.append(f"others used {others:.1f} cores")
        return "; ".join([*found, *dict.fromkeys(self.errors)])


def summarize(records: Sequence[Record]) -> dict[tuple[str, str], Summary]:
    """Return the summaries by shape and target, in the order of their first records. Problems are not averaged: the
    worst round counts."""
    grouped: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        grouped[record.shape, record.target].append(record)
    return {key: _summary(group) for key, group in grouped.items()}


def _summary(records: Sequence[Record]) -> Summary:
    good = [record.values for record in records if record.error is None]
    names = dict.fromkeys(name for values in good for name in values)
    medians = {name: statistics.median([v[name] for v in good if name in v]) for name in names}
    for name in (*_WRONG, *(name for name in names if name.startswith(_FAILED))):
        medians[name] = max((values.get(name, 0) for values in good), default=0)
    return Summary(medians, len(good), tuple(record.error for record in records if record.error is not None))
