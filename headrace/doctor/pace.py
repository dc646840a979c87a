"""Judges whether tokens arrive one by one.

The judgement is by grouping: a slow machine delays tokens, but does not gather dozens of them for seconds.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from headrace.doctor.stream_reading import Reading

_FEWEST_TOKENS: Final = 12
#: A stream that took less time tells nothing: one read may have all of it.
_SHORTEST_S: Final = 0.8
#: Of the time that the answer took: all that came within so much of it came at once.
_AT_ONCE: Final = 0.1
#: Tokens that come together on average if something holds them back.
_BLOCK: Final = 8
_LONG_GAP_S: Final = 0.4


class Pace(StrEnum):
    SINGLE = "single"
    BLOCKS = "blocks"
    AT_ONCE = "at once"
    UNKNOWN = "unknown"


def pace_of(reading: Reading, took_s: float, direct: Reading | None) -> Pace:
    """Judge a reading. ``took_s``: time in which the answer was made. ``direct``: the same answer, without the
    proxy."""
    tokens = len(reading.tokens)
    if tokens < _FEWEST_TOKENS or took_s < _SHORTEST_S:
        return Pace.UNKNOWN
    if reading.moments == 1 or reading.span_s < took_s * _AT_ONCE:
        return Pace.AT_ONCE if _is_finer(direct, reading) else Pace.UNKNOWN
    in_blocks = reading.moments * _BLOCK <= tokens and reading.longest_gap_s > _LONG_GAP_S
    if in_blocks and _is_finer(direct, reading):
        return Pace.BLOCKS
    return Pace.SINGLE


def _is_finer(direct: Reading | None, reading: Reading) -> bool:
    """Return False if a direct reader got the tokens in blocks too: then it is not the proxy."""
    return direct is None or direct.moments >= 3 * reading.moments


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read through the URL and, if possible, from a gateway beside it. ``took_s``: time in which it was
    made."""

    read: Reading
    direct: Reading | None
    took_s: float

    @property
    def pace(self) -> Pace:
        return pace_of(self.read, self.took_s, self.direct)
