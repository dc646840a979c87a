"""Table of the targets: wanted, measured, ratio, and whether they are met."""

import statistics
from collections.abc import Sequence
from typing import Final

from bench.goals import GOALS, Goal
from bench.markdown import NOTHING, aligned
from bench.results import Record
from bench.targets.registry import display_name

_BY_ROUND: Final = 5


def goal_table(records: Sequence[Record], goals: Sequence[Goal] = GOALS, *, by_round: bool = True) -> str:
    """Return a table with a row for each target. The ratio is the median of the rounds' ratios, which are shown
    too if ``by_round``."""
    head = ["target", "wanted", "measured", "beside it", "ratio or difference", "by round", "met"]
    rows = [head, *(_row(goal, records) for goal in goals)]
    return aligned(rows if by_round else [[*row[:_BY_ROUND], *row[_BY_ROUND + 1 :]] for row in rows])


def _row(goal: Goal, records: Sequence[Record]) -> list[str]:
    own = _values(goal, goal.target, records)
    if not own:
        return [goal.title, goal.wanted, *[NOTHING] * 4, _why(goal, records)]
    measured = _text(statistics.median(own.values()), goal.unit)
    if goal.beside is None:
        value = statistics.median(own.values())
        by_round = " ".join(_number(each) for each in own.values())
        return [goal.title, goal.wanted, measured, NOTHING, NOTHING, by_round, _verdict(goal, value)]
    others = _values(goal, goal.beside, records)
    pairs = [(value, others[number]) for number, value in own.items() if others.get(number)]
    if not pairs:
        return [goal.title, goal.wanted, measured, *[NOTHING] * 3, f"{display_name(goal.beside)} is missing"]
    compared = [value - other if goal.added else value / other for value, other in pairs]
    beside = f"{display_name(goal.beside)} {_text(statistics.median(others.values()), goal.unit)}"
    middle = statistics.median(compared)
    ratio = _text(middle, goal.unit) if goal.added else f"{middle:.2f}"
    by_round = " ".join(_number(each) if goal.added else f"{each:.2f}" for each in compared)
    return [goal.title, goal.wanted, measured, beside, ratio, by_round, _verdict(goal, middle)]


def _values(goal: Goal, target: str, records: Sequence[Record]) -> dict[int, float]:
    """Return the figure by round."""
    return {
        record.round: record.values[goal.figure] / goal.per
        for record in records
        if record.shape == goal.shape and record.target == target and goal.figure in record.values
    }


def _verdict(goal: Goal, value: float) -> str:
    return "yes" if goal.meets(value) else "no"


def _why(goal: Goal, records: Sequence[Record]) -> str:
    """Return the error of a shape without values."""
    errors = (record.error for record in records if record.shape == goal.shape and record.target == goal.target)
    return next((error for error in errors if error), "not measured")


def _text(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
